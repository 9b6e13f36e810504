/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm/vcpu.h"

#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "base/array.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/guest_memory.h"
#include "base/io_bus.h"
#include "base/log.h"
#include "vmm/kvm/cpu_template.h"
#include "vmm/kvm/cpuid.h"
#include "vmm/kvm/kvm.h"
#include "vmm/kvm/registers.h"
#include "vmm/seccomp.h"

/* Interrupts KVM_RUN, and a system call that a device makes. */
#define KICK_SIGNAL SIGRTMIN

const struct metric vcpu_metric_table[] = {
	METRIC(vcpu_metrics, exit_io_in),
	METRIC(vcpu_metrics, exit_io_out),
	METRIC(vcpu_metrics, exit_mmio_read),
	METRIC(vcpu_metrics, exit_mmio_write),
	METRIC(vcpu_metrics, failures),
	METRIC_NEVER("kvmclock_ctrl_fails"),
	METRIC_NEVER_TIMED("exit_io_in_agg"),
	METRIC_NEVER_TIMED("exit_io_out_agg"),
	METRIC_NEVER_TIMED("exit_mmio_read_agg"),
	METRIC_NEVER_TIMED("exit_mmio_write_agg"),
	{ NULL },
};

static const char *const exit_names[] = {
	[KVM_EXIT_UNKNOWN] = "UNKNOWN",
	[KVM_EXIT_EXCEPTION] = "EXCEPTION",
	[KVM_EXIT_IO] = "IO",
	[KVM_EXIT_HYPERCALL] = "HYPERCALL",
	[KVM_EXIT_DEBUG] = "DEBUG",
	[KVM_EXIT_HLT] = "HLT",
	[KVM_EXIT_MMIO] = "MMIO",
	[KVM_EXIT_IRQ_WINDOW_OPEN] = "IRQ_WINDOW_OPEN",
	[KVM_EXIT_SHUTDOWN] = "SHUTDOWN",
	[KVM_EXIT_FAIL_ENTRY] = "FAIL_ENTRY",
	[KVM_EXIT_INTR] = "INTR",
	[KVM_EXIT_SET_TPR] = "SET_TPR",
	[KVM_EXIT_TPR_ACCESS] = "TPR_ACCESS",
	[KVM_EXIT_NMI] = "NMI",
	[KVM_EXIT_INTERNAL_ERROR] = "INTERNAL_ERROR",
	[KVM_EXIT_SYSTEM_EVENT] = "SYSTEM_EVENT",
	[KVM_EXIT_IOAPIC_EOI] = "IOAPIC_EOI",
	[KVM_EXIT_X86_RDMSR] = "X86_RDMSR",
	[KVM_EXIT_X86_WRMSR] = "X86_WRMSR",
};

const char *vcpu_exit_name(unsigned int reason)
{
	return reason < ARRAY_SIZE(exit_names) ? exit_names[reason] : NULL;
}

static void handle_io(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	metric_add(run->io.direction == KVM_EXIT_IO_OUT ? &vcpu->metrics.exit_io_out
							: &vcpu->metrics.exit_io_in,
		   1);
	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_OUT)
			(void)io_bus_write(vcpu->group->ports, run->io.port, data, run->io.size);
		else
			(void)io_bus_read(vcpu->group->ports, run->io.port, data, run->io.size);
	}
}

static void handle_mmio(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	metric_add(run->mmio.is_write ? &vcpu->metrics.exit_mmio_write
				      : &vcpu->metrics.exit_mmio_read,
		   1);
	if (run->mmio.is_write)
		(void)io_bus_write(vcpu->group->mmio, run->mmio.phys_addr, run->mmio.data,
				   run->mmio.len);
	else
		(void)io_bus_read(vcpu->group->mmio, run->mmio.phys_addr, run->mmio.data,
				  run->mmio.len);
}

static void end_with(struct vcpu *vcpu, const struct vm_end *end)
{
	vcpu->group->ended(vcpu->group->opaque, end);
}

static void end_with_dump(struct vcpu *vcpu, struct vm_end *end)
{
	end->kind = VM_END_KVM_ERROR;
	metric_add(&vcpu->metrics.failures, 1);
	log_error("%s; the registers of vCPU %u follow.", end->text, vcpu->id);
	registers_log(vcpu->fd);
	end_with(vcpu, end);
}

static void handle_internal_error(struct vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;
	struct vm_end end;

	snprintf(end.text, sizeof(end.text), "vCPU %u: KVM_EXIT_INTERNAL_ERROR, suberror %u%s",
		 vcpu->id, run->internal.suberror,
		 run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION
			 ? " (an instruction that KVM cannot emulate)"
			 : "");
	for (uint32_t i = 0; i < run->internal.ndata && i < 16; i++)
		log_error("internal error data[%u] = %016llx", i,
			  (unsigned long long)run->internal.data[i]);
	end_with_dump(vcpu, &end);
}

static void handle_exit(struct vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;
	struct vm_end end;
	const char *name;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		handle_io(vcpu);
		return;
	case KVM_EXIT_MMIO:
		handle_mmio(vcpu);
		return;
	case KVM_EXIT_SHUTDOWN:
		end.kind = VM_END_TRIPLE_FAULT;
		snprintf(end.text, sizeof(end.text),
			 "The guest ended with a triple fault on vCPU %u", vcpu->id);
		end_with(vcpu, &end);
		return;
	case KVM_EXIT_INTERNAL_ERROR:
		handle_internal_error(vcpu);
		return;
	case KVM_EXIT_FAIL_ENTRY:
		snprintf(end.text, sizeof(end.text),
			 "vCPU %u: KVM_EXIT_FAIL_ENTRY, hardware reason 0x%llx", vcpu->id,
			 (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		end_with_dump(vcpu, &end);
		return;
	default:
		name = vcpu_exit_name(run->exit_reason);
		snprintf(end.text, sizeof(end.text), "vCPU %u: unexpected KVM exit %u%s%s%s",
			 vcpu->id, run->exit_reason, name ? " (KVM_EXIT_" : "", name ? name : "",
			 name ? ")" : "");
		end_with_dump(vcpu, &end);
		return;
	}
}

/* Waits until the group runs again; false if the thread is to end. */
static bool park(struct vcpu *vcpu)
{
	struct vcpu_group *group = vcpu->group;
	bool run;

	pthread_mutex_lock(&group->lock);
	group->parked++;
	pthread_cond_broadcast(&group->changed);
	while (group->wanted == VCPU_PAUSE)
		pthread_cond_wait(&group->changed, &group->lock);
	run = group->wanted == VCPU_RUN;
	if (run) {
		group->parked--;
		vcpu->run->immediate_exit = 0;
	}
	pthread_mutex_unlock(&group->lock);
	return run;
}

/* A vCPU that is to pause or stop goes on, to complete its exit, and parks. */
static void wait_while_held(struct vcpu_group *group)
{
	pthread_mutex_lock(&group->lock);
	while (atomic_load(&group->holds) > 0 && group->wanted == VCPU_RUN)
		pthread_cond_wait(&group->changed, &group->lock);
	pthread_mutex_unlock(&group->lock);
}

void vcpu_group_hold(struct vcpu_group *group, bool hold)
{
	pthread_mutex_lock(&group->lock);
	atomic_fetch_add(&group->holds, hold ? 1u : -1u);
	pthread_cond_broadcast(&group->changed);
	pthread_mutex_unlock(&group->lock);
}

static void note_first_run(struct vcpu *vcpu)
{
	vcpu->first_run_ns = clock_ns();
}

/* Until the main thread stops the group there is nothing left to do. */
static void retire(struct vcpu_group *group)
{
	pthread_mutex_lock(&group->lock);
	group->parked++;
	pthread_cond_broadcast(&group->changed);
	pthread_mutex_unlock(&group->lock);
}

static void end_without_filter(struct vcpu *vcpu, const struct err *err)
{
	struct vm_end end = { .kind = VM_END_KVM_ERROR };

	snprintf(end.text, sizeof(end.text), "vCPU %u: %.200s", vcpu->id, err->text);
	end_with(vcpu, &end);
}

static void *vcpu_thread(void *opaque)
{
	struct vcpu *vcpu = opaque;
	struct vcpu_group *group = vcpu->group;
	char name[16];
	sigset_t kick;
	struct err err;

	/* Whoever started us may have blocked it. */
	sigemptyset(&kick);
	sigaddset(&kick, KICK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
	snprintf(name, sizeof(name), "vcpu%u", vcpu->id);
	pthread_setname_np(pthread_self(), name);
	log_set_thread_name("vcpu");
	if (!park(vcpu))
		return NULL;
	if (group->filtered && seccomp_enter(SECCOMP_VCPU, &err) < 0) {
		end_without_filter(vcpu, &err);
		retire(group);
		return NULL;
	}
	note_first_run(vcpu);
	for (;;) {
		if (atomic_load_explicit(&group->holds, memory_order_acquire) > 0)
			wait_while_held(group);
		/* A pending I/O is completed by the next KVM_RUN, even one that is to exit at once:
		 * so a vCPU parks only when KVM_RUN says EINTR. */
		int rc = ioctl(vcpu->fd, KVM_RUN, 0);
		int saved = errno;

		if (rc < 0) {
			if (saved == EAGAIN)
				continue;
			if (saved == EINTR) {
				if (!park(vcpu))
					return NULL;
				continue;
			}
			struct vm_end end;

			snprintf(end.text, sizeof(end.text), "vCPU %u: KVM_RUN: %s", vcpu->id,
				 strerrordesc_np(saved));
			end_with_dump(vcpu, &end);
		} else {
			if (vcpu->run->exit_reason < VCPU_EXIT_REASONS)
				vcpu->exits[vcpu->run->exit_reason]++;
			handle_exit(vcpu);
		}
		if (atomic_load_explicit(&group->over, memory_order_relaxed)) {
			retire(group);
			return NULL;
		}
	}
}

static void ignore_signal(int signal)
{
	(void)signal;
}

/* Under the group's lock. */
static void kick_all(struct vcpu_group *group)
{
	for (unsigned int i = 0; i < group->count; i++) {
		struct vcpu *vcpu = &group->vcpus[i];

		if (!vcpu->thread_started)
			continue;
		/* KVM reads it when KVM_RUN begins; a vCPU already inside is woken by the signal.
		 */
		__atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		pthread_kill(vcpu->thread, KICK_SIGNAL);
	}
}

static int open_vcpu(struct vcpu *vcpu, const struct kvm *kvm, const union cpuid_table *supported,
		     const struct cpuid_topology *topology, struct err *err)
{
	union cpuid_table cpuid = *supported;
	void *run;
	int rc;

	vcpu->fd = ioctl(kvm->vm_fd, KVM_CREATE_VCPU, vcpu->id);
	if (vcpu->fd < 0)
		return err_sys(err, errno, "vCPU %u: KVM_CREATE_VCPU", vcpu->id);
	run = mmap(NULL, kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (run == MAP_FAILED)
		return err_sys(err, errno, "vCPU %u: its kvm_run area", vcpu->id);
	vcpu->run = run;
	vcpu->run_size = kvm->run_size;
	cpuid_normalise(&cpuid, topology);
	rc = cpu_template_apply_cpuid(vcpu->group->cpu_template, &cpuid, err);
	if (rc < 0)
		return rc;
	if (ioctl(vcpu->fd, KVM_SET_CPUID2, &cpuid.kvm) < 0)
		return err_sys(err, errno, "vCPU %u: KVM_SET_CPUID2", vcpu->id);
	rc = pthread_create(&vcpu->thread, NULL, vcpu_thread, vcpu);
	if (rc != 0)
		return err_sys(err, rc, "vCPU %u: its thread", vcpu->id);
	vcpu->thread_started = true;
	return 0;
}

int vcpu_group_open(struct vcpu_group *group, const struct kvm *kvm, unsigned int count,
		    unsigned int threads_per_core, struct err *err)
{
	/* Without SA_RESTART, so that it interrupts. */
	const struct sigaction action = { .sa_handler = ignore_signal };
	union cpuid_table supported;
	int rc;

	if (sigaction(KICK_SIGNAL, &action, NULL) < 0)
		return err_sys(err, errno, "vCPUs: sigaction");
	rc = cpuid_get_supported(kvm->dev_fd, &supported, err);
	if (rc < 0)
		return rc;
	pthread_mutex_init(&group->lock, NULL);
	pthread_cond_init(&group->changed, NULL);
	group->wanted = VCPU_PAUSE;
	for (unsigned int i = 0; i < count && rc == 0; i++) {
		struct vcpu *vcpu = &group->vcpus[i];
		const struct cpuid_topology topology = { i, count, threads_per_core };

		vcpu->group = group;
		vcpu->id = i;
		group->count++;
		rc = open_vcpu(vcpu, kvm, &supported, &topology, err);
	}
	if (rc < 0)
		vcpu_group_close(group);
	return rc;
}

int vcpu_group_boot(struct vcpu_group *group, const struct kernel_image *kernel, struct err *err)
{
	int rc = 0;

	for (unsigned int i = 0; i < group->count && rc == 0; i++) {
		const struct vcpu *vcpu = &group->vcpus[i];

		rc = registers_set_up(vcpu->fd, vcpu->id, kernel->entry_kind, kernel->entry, err);
		if (rc == 0)
			rc = cpu_template_apply_msrs(group->cpu_template, vcpu->fd, err);
	}
	return rc;
}

void vcpu_group_stop(struct vcpu_group *group)
{
	if (group->count == 0)
		return;
	pthread_mutex_lock(&group->lock);
	group->wanted = VCPU_STOP;
	pthread_cond_broadcast(&group->changed);
	kick_all(group);
	pthread_mutex_unlock(&group->lock);
	for (unsigned int i = 0; i < group->count; i++) {
		if (group->vcpus[i].thread_started)
			pthread_join(group->vcpus[i].thread, NULL);
		group->vcpus[i].thread_started = false;
	}
}

void vcpu_group_close(struct vcpu_group *group)
{
	if (group->count == 0)
		return;
	vcpu_group_stop(group);
	for (unsigned int i = 0; i < group->count; i++) {
		struct vcpu *vcpu = &group->vcpus[i];

		if (vcpu->run)
			munmap(vcpu->run, vcpu->run_size);
		vcpu->run = NULL;
		fd_close(&vcpu->fd);
	}
	group->count = 0;
	pthread_cond_destroy(&group->changed);
	pthread_mutex_destroy(&group->lock);
}

void vcpu_group_resume(struct vcpu_group *group)
{
	pthread_mutex_lock(&group->lock);
	group->wanted = VCPU_RUN;
	pthread_cond_broadcast(&group->changed);
	pthread_mutex_unlock(&group->lock);
}

void vcpu_group_pause(struct vcpu_group *group)
{
	pthread_mutex_lock(&group->lock);
	group->wanted = VCPU_PAUSE;
	pthread_cond_broadcast(&group->changed);
	kick_all(group);
	while (group->parked < group->count)
		pthread_cond_wait(&group->changed, &group->lock);
	pthread_mutex_unlock(&group->lock);
}

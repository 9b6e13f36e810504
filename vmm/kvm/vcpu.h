/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtual processors, a thread each: KVM_RUN and those exits that must be answered at once. The
 * main thread starts, pauses and stops them as a group.
 */
#ifndef MOTE_VMM_KVM_VCPU_H
#define MOTE_VMM_KVM_VCPU_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/metrics.h"
#include "vmm/boot/kernel_image.h"
#include "vmm/vm_end.h"

struct cpu_template;
struct err;
struct io_bus;
struct kvm;
struct kvm_run;

#define VCPU_MAX 32
#define VCPU_EXIT_REASONS 64

enum vcpu_wanted { VCPU_PAUSE, VCPU_RUN, VCPU_STOP };

struct vcpu_group;

struct vcpu_metrics {
	uint64_t exit_io_in;
	uint64_t exit_io_out;
	uint64_t exit_mmio_read;
	uint64_t exit_mmio_write;
	uint64_t failures; /* KVM could not go on */
};

extern const struct metric vcpu_metric_table[];

struct vcpu {
	struct vcpu_group *group;
	unsigned int id;
	int fd;		     /* owned */
	struct kvm_run *run; /* shared with KVM; owned mapping */
	size_t run_size;
	pthread_t thread;
	bool thread_started;
	/* When this vCPU first entered the guest, CLOCK_MONOTONIC; 0 not yet. */
	_Atomic int64_t first_run_ns;
	/* Written by the vCPU's thread only; exact once it has ended. */
	uint64_t exits[VCPU_EXIT_REASONS];
	struct vcpu_metrics metrics;
};

struct vcpu_group {
	struct vcpu vcpus[VCPU_MAX];
	unsigned int count;
	const struct io_bus *ports;
	const struct io_bus *mmio;
	const struct cpu_template *cpu_template;
	bool filtered; /* the threads put themselves under their seccomp policy when first resumed
			*/
	/* Called on a vCPU thread when that vCPU cannot go on. */
	void (*ended)(void *opaque, const struct vm_end *end);
	void *opaque;
	/* Resets that go on: no vCPU that has left the guest enters it again until they are done.
	 */
	atomic_uint holds;
	/* The VM has ended: a vCPU that leaves the guest for the VMM does not enter it again. */
	atomic_bool over;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum vcpu_wanted wanted; /* under lock, with the vCPUs' immediate_exit */
	unsigned int parked;	 /* threads that wait or have ended */
};

/*
 * Creates `count` vCPUs with their CPUID, and their threads, which wait. The buses, the CPU
 * template and the callback are the caller's and set in the group before. 0 or -errno with err set;
 * on failure there is nothing to close.
 */
int vcpu_group_open(struct vcpu_group *group, const struct kvm *kvm, unsigned int count,
		    unsigned int threads_per_core, struct err *err);
/* Sets their registers for a kernel's entry. Before the first resume. 0 or -errno with err set. */
int vcpu_group_boot(struct vcpu_group *group, const struct kernel_image *kernel, struct err *err);
/* Stops and joins the threads. Safe on a zeroed or already closed object. */
void vcpu_group_close(struct vcpu_group *group);

/* Begins and ends a hold; any thread. The group can be paused and stopped meanwhile. */
void vcpu_group_hold(struct vcpu_group *group, bool hold);

void vcpu_group_resume(struct vcpu_group *group);
/* Returns when every vCPU is out of the guest with no half-finished I/O. */
void vcpu_group_pause(struct vcpu_group *group);
/* Ends all threads; their counters can be read afterwards. */
void vcpu_group_stop(struct vcpu_group *group);

/* The name of a KVM exit reason ("IO", "MMIO", ...), or NULL. */
const char *vcpu_exit_name(unsigned int reason);

#endif

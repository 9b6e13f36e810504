/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm/vcpu_state.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/array.h"
#include "base/err.h"
#include "vmm/kvm/cpuid.h"
#include "vmm/kvm/cpuid_check.h"
#include "vmm/kvm/kvm.h"
#include "vmm/kvm/msr_state.h"

/* A clock this near to another is as good as the same: parts in a million. */
#define TSC_TOLERANCE_PPM 250

/* What KVM_GET_XSAVE2 may need: far more than any processor does. */
#define XSAVE_MAX (UINT32_C(64) << 10)

/* What the two halves of a section exchange with KVM, but for CPUID and MSRs. */
struct registers {
	struct kvm_mp_state mp_state;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debug;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	uint32_t tsc_khz;
	uint32_t xsave_size;
	union {
		struct kvm_xsave kvm;
		uint8_t bytes[XSAVE_MAX];
	} xsave;
};

static void code_regs(const struct state_codec *codec, struct kvm_regs *regs)
{
	__u64 *const fields[] = {
		&regs->rax, &regs->rbx, &regs->rcx, &regs->rdx, &regs->rsi, &regs->rdi,
		&regs->rsp, &regs->rbp, &regs->r8,  &regs->r9,	&regs->r10, &regs->r11,
		&regs->r12, &regs->r13, &regs->r14, &regs->r15, &regs->rip, &regs->rflags,
	};

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		STATE_CODE(codec, *fields[i]);
}

static void code_segment(const struct state_codec *codec, struct kvm_segment *segment)
{
	STATE_CODE(codec, segment->base);
	STATE_CODE(codec, segment->limit);
	STATE_CODE(codec, segment->selector);
	STATE_CODE(codec, segment->type);
	STATE_CODE(codec, segment->present);
	STATE_CODE(codec, segment->dpl);
	STATE_CODE(codec, segment->db);
	STATE_CODE(codec, segment->s);
	STATE_CODE(codec, segment->l);
	STATE_CODE(codec, segment->g);
	STATE_CODE(codec, segment->avl);
	STATE_CODE(codec, segment->unusable);
}

static void code_sregs(const struct state_codec *codec, struct kvm_sregs *sregs)
{
	struct kvm_segment *const segments[] = {
		&sregs->cs, &sregs->ds, &sregs->es, &sregs->fs,
		&sregs->gs, &sregs->ss, &sregs->tr, &sregs->ldt,
	};
	__u64 *const fields[] = {
		&sregs->cr0, &sregs->cr2,  &sregs->cr3,	      &sregs->cr4,
		&sregs->cr8, &sregs->efer, &sregs->apic_base,
	};

	for (size_t i = 0; i < ARRAY_SIZE(segments); i++)
		code_segment(codec, segments[i]);
	STATE_CODE(codec, sregs->gdt.base);
	STATE_CODE(codec, sregs->gdt.limit);
	STATE_CODE(codec, sregs->idt.base);
	STATE_CODE(codec, sregs->idt.limit);
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		STATE_CODE(codec, *fields[i]);
	for (size_t i = 0; i < ARRAY_SIZE(sregs->interrupt_bitmap); i++)
		STATE_CODE(codec, sregs->interrupt_bitmap[i]);
}

/* One pair; KVM knows of no other register than XCR0. */
static void code_xcrs(const struct state_codec *codec, struct kvm_xcrs *xcrs)
{
	xcrs->nr_xcrs = 1;
	STATE_CODE(codec, xcrs->xcrs[0].xcr);
	STATE_CODE(codec, xcrs->xcrs[0].value);
}

static void code_debug(const struct state_codec *codec, struct kvm_debugregs *debug)
{
	for (size_t i = 0; i < ARRAY_SIZE(debug->db); i++)
		STATE_CODE(codec, debug->db[i]);
	STATE_CODE(codec, debug->dr6);
	STATE_CODE(codec, debug->dr7);
}

static void code_events(const struct state_codec *codec, struct kvm_vcpu_events *events)
{
	STATE_CODE(codec, events->flags);
	STATE_CODE(codec, events->exception.injected);
	STATE_CODE(codec, events->exception.nr);
	STATE_CODE(codec, events->exception.has_error_code);
	STATE_CODE(codec, events->exception.pending);
	STATE_CODE(codec, events->exception.error_code);
	STATE_CODE(codec, events->exception_has_payload);
	STATE_CODE(codec, events->exception_payload);
	STATE_CODE(codec, events->interrupt.injected);
	STATE_CODE(codec, events->interrupt.nr);
	STATE_CODE(codec, events->interrupt.soft);
	STATE_CODE(codec, events->interrupt.shadow);
	STATE_CODE(codec, events->nmi.injected);
	STATE_CODE(codec, events->nmi.pending);
	STATE_CODE(codec, events->nmi.masked);
	STATE_CODE(codec, events->sipi_vector);
	STATE_CODE(codec, events->smi.smm);
	STATE_CODE(codec, events->smi.pending);
	STATE_CODE(codec, events->smi.smm_inside_nmi);
	STATE_CODE(codec, events->smi.latched_init);
}

static void code_registers(const struct state_codec *codec, struct registers *registers)
{
	STATE_CODE(codec, registers->tsc_khz);
	STATE_CODE(codec, registers->mp_state.mp_state);
	code_regs(codec, &registers->regs);
	code_sregs(codec, &registers->sregs);
	STATE_CODE(codec, registers->xsave_size);
	if (registers->xsave_size <= XSAVE_MAX)
		state_code_bytes(codec, registers->xsave.bytes, registers->xsave_size);
	code_xcrs(codec, &registers->xcrs);
	code_debug(codec, &registers->debug);
	state_code_bytes(codec, registers->lapic.regs, sizeof(registers->lapic.regs));
	code_events(codec, &registers->events);
}

/* What an ioctl exchanges, and what it is called. */
struct exchange {
	unsigned long request;
	void *data;
	const char *name;
};

static int exchange_all(int vcpu_fd, const struct exchange *exchanges, size_t count,
			struct err *err)
{
	for (size_t i = 0; i < count; i++) {
		if (ioctl(vcpu_fd, exchanges[i].request, exchanges[i].data) < 0)
			return err_sys(err, errno, "/dev/kvm: %s", exchanges[i].name);
	}
	return 0;
}

#define EXCHANGE(request, data)                                                                    \
	{                                                                                          \
		request, data, #request                                                            \
	}

/* Bytes of the XSAVE area of a vCPU; 0 if it is too large for us. */
static uint32_t xsave_size(const struct kvm *kvm)
{
	int size = ioctl(kvm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);

	if (size > (int)XSAVE_MAX)
		return 0;
	return size < (int)sizeof(struct kvm_xsave) ? (uint32_t)sizeof(struct kvm_xsave)
						    : (uint32_t)size;
}

static int get_registers(const struct kvm *kvm, int vcpu_fd, struct registers *registers,
			 struct err *err)
{
	const bool has_xsave2 = ioctl(kvm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2) > 0;
	const struct exchange exchanges[] = {
		EXCHANGE(KVM_GET_MP_STATE, &registers->mp_state),
		EXCHANGE(KVM_GET_REGS, &registers->regs),
		EXCHANGE(KVM_GET_SREGS, &registers->sregs),
		{ has_xsave2 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, &registers->xsave, "KVM_GET_XSAVE" },
		EXCHANGE(KVM_GET_XCRS, &registers->xcrs),
		EXCHANGE(KVM_GET_DEBUGREGS, &registers->debug),
		EXCHANGE(KVM_GET_VCPU_EVENTS, &registers->events),
	};
	int khz = ioctl(vcpu_fd, KVM_GET_TSC_KHZ, 0);

	if (khz <= 0)
		return err_sys(err, khz < 0 ? errno : EIO, "/dev/kvm: KVM_GET_TSC_KHZ");
	registers->tsc_khz = (uint32_t)khz;
	registers->xsave_size = xsave_size(kvm);
	if (registers->xsave_size == 0)
		return err_set(err, E2BIG, "/dev/kvm: the XSAVE area is larger than %u bytes",
			       XSAVE_MAX);
	return exchange_all(vcpu_fd, exchanges, ARRAY_SIZE(exchanges), err);
}

/*
 * The local APIC, and its timer's deadline of the same moment: if it came due in between, the
 * interrupt would be in neither of them, or in both.
 */
static int get_lapic(int vcpu_fd, struct registers *registers, uint64_t *deadline, struct err *err)
{
	uint64_t before;

	do {
		bool has_deadline = msr_state_deadline(vcpu_fd, &before);

		if (ioctl(vcpu_fd, KVM_GET_LAPIC, &registers->lapic) < 0)
			return err_sys(err, errno, "/dev/kvm: KVM_GET_LAPIC");
		if (!has_deadline || !msr_state_deadline(vcpu_fd, deadline))
			return 0;
	} while (*deadline != before);
	return 0;
}

static int save(const struct kvm *kvm, int vcpu_fd, struct registers *registers,
		struct state_writer *out, struct err *err)
{
	const struct state_codec codec = { .out = out };
	union cpuid_table cpuid = { .kvm.nent = CPUID_ENTRIES };
	uint64_t deadline = 0;
	int rc = get_registers(kvm, vcpu_fd, registers, err);

	if (rc == 0)
		rc = get_lapic(vcpu_fd, registers, &deadline, err);
	if (rc < 0)
		return rc;
	if (ioctl(vcpu_fd, KVM_GET_CPUID2, &cpuid.kvm) < 0)
		return err_sys(err, errno, "/dev/kvm: KVM_GET_CPUID2");
	cpuid_code(&codec, &cpuid);
	code_registers(&codec, registers);
	return msr_state_save(kvm, vcpu_fd, deadline, out, err);
}

int vcpu_state_save(const struct kvm *kvm, int vcpu_fd, struct state_writer *out, struct err *err)
{
	struct registers *registers = calloc(1, sizeof(*registers));
	int rc = registers ? save(kvm, vcpu_fd, registers, out, err)
			   : err_sys(err, ENOMEM, "vCPU state");

	free(registers);
	return rc;
}

/* Whether the guest's clock, as it was promised, is this host's. */
static bool is_near(uint32_t khz, uint32_t host_khz)
{
	uint64_t difference = khz > host_khz ? khz - host_khz : host_khz - khz;

	return difference * 1000000 <= (uint64_t)host_khz * TSC_TOLERANCE_PPM;
}

static int set_tsc_khz(const struct kvm *kvm, int vcpu_fd, uint32_t khz, struct err *err)
{
	int host_khz = ioctl(vcpu_fd, KVM_GET_TSC_KHZ, 0);

	if (host_khz <= 0)
		return err_sys(err, host_khz < 0 ? errno : EIO, "/dev/kvm: KVM_GET_TSC_KHZ");
	if (is_near(khz, (uint32_t)host_khz))
		return 0;
	if (ioctl(kvm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) <= 0)
		return err_set(err, ENOTSUP,
			       "the guest's time-stamp counter has %u kHz, this host's %d, and "
			       "this host cannot scale it",
			       khz, host_khz);
	if (ioctl(vcpu_fd, KVM_SET_TSC_KHZ, (unsigned long)khz) < 0)
		return err_sys(err, errno, "/dev/kvm: KVM_SET_TSC_KHZ %u", khz);
	return 0;
}

static int set_registers(int vcpu_fd, struct registers *registers, union cpuid_table *cpuid,
			 struct err *err)
{
	const struct exchange exchanges[] = {
		EXCHANGE(KVM_SET_CPUID2, cpuid),
		EXCHANGE(KVM_SET_MP_STATE, &registers->mp_state),
		EXCHANGE(KVM_SET_REGS, &registers->regs),
		EXCHANGE(KVM_SET_SREGS, &registers->sregs),
		EXCHANGE(KVM_SET_XSAVE, &registers->xsave),
		EXCHANGE(KVM_SET_XCRS, &registers->xcrs),
		EXCHANGE(KVM_SET_DEBUGREGS, &registers->debug),
		EXCHANGE(KVM_SET_LAPIC, &registers->lapic),
	};

	return exchange_all(vcpu_fd, exchanges, ARRAY_SIZE(exchanges), err);
}

static int set_events(int vcpu_fd, struct registers *registers, struct err *err)
{
	const struct exchange exchange = EXCHANGE(KVM_SET_VCPU_EVENTS, &registers->events);
	int rc = exchange_all(vcpu_fd, &exchange, 1, err);

	/* So that its watchdog does not take the time for its own; EINVAL: it has no kvmclock. */
	if (rc == 0 && ioctl(vcpu_fd, KVM_KVMCLOCK_CTRL, 0) < 0 && errno != EINVAL)
		rc = err_sys(err, errno, "/dev/kvm: KVM_KVMCLOCK_CTRL");
	return rc;
}

static int restore(const struct kvm *kvm, int vcpu_fd, struct registers *registers,
		   struct state_reader *in, struct err *err)
{
	const struct state_codec codec = { .in = in };
	union cpuid_table cpuid = { 0 };
	uint32_t size = xsave_size(kvm);
	int rc;

	cpuid_code(&codec, &cpuid);
	code_registers(&codec, registers);
	if (in->failed)
		return err_set(err, EINVAL, "vCPU state: cut off");
	if (registers->xsave_size > size || registers->xsave_size < sizeof(struct kvm_xsave))
		return err_set(err, ENOTSUP, "the guest's XSAVE area has %u bytes, this host's %u",
			       registers->xsave_size, size);
	rc = cpuid_check(kvm->dev_fd, vcpu_fd, &cpuid, err);
	if (rc == 0)
		rc = set_tsc_khz(kvm, vcpu_fd, registers->tsc_khz, err);
	if (rc == 0)
		rc = set_registers(vcpu_fd, registers, &cpuid, err);
	if (rc == 0)
		rc = msr_state_restore(vcpu_fd, in, err);
	return rc < 0 ? rc : set_events(vcpu_fd, registers, err);
}

int vcpu_state_restore(const struct kvm *kvm, int vcpu_fd, struct state_reader *in, struct err *err)
{
	struct registers *registers = calloc(1, sizeof(*registers));
	int rc = registers ? restore(kvm, vcpu_fd, registers, in, err)
			   : err_sys(err, ENOMEM, "vCPU state");

	free(registers);
	return rc;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm/registers.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/array.h"
#include "base/err.h"
#include "base/guest_memory.h"
#include "base/log.h"
#include "vmm/boot/layout.h"

#define CR0_PE 0x1
#define CR0_ET 0x10
#define CR0_PG 0x80000000
#define CR4_PAE 0x20
#define EFER_LME 0x100
#define EFER_LMA 0x400
#define RFLAGS_FIXED 0x2

#define PAGE_PRESENT_WRITABLE 0x3
#define PAGE_HUGE 0x80
#define PAGE_TABLE_ENTRIES 512

#define LAPIC_LVT_LINT0 0x350
#define LAPIC_LVT_LINT1 0x360
#define LAPIC_MODE_MASK 0x700
#define LAPIC_MODE_EXTINT 0x700
#define LAPIC_MODE_NMI 0x400

#define FPU_CONTROL_DEFAULT 0x37f
#define MXCSR_DEFAULT 0x1f80

#define MISC_ENABLE_FAST_STRING 0x1
#define MTRR_ENABLED_WRITE_BACK 0x806

/* Selectors are the index into the GDT times 8. */
enum { GDT_NULL, GDT_CODE, GDT_DATA, GDT_TSS, GDT_ENTRIES };

static const struct kvm_msr_entry boot_msrs[] = {
	{ .index = 0x174 /* SYSENTER_CS */ },
	{ .index = 0x175 /* SYSENTER_ESP */ },
	{ .index = 0x176 /* SYSENTER_EIP */ },
	{ .index = 0xc0000081 /* STAR */ },
	{ .index = 0xc0000083 /* CSTAR */ },
	{ .index = 0xc0000102 /* KERNEL_GS_BASE */ },
	{ .index = 0xc0000084 /* SYSCALL_MASK */ },
	{ .index = 0xc0000082 /* LSTAR */ },
	{ .index = 0x10 /* TSC */ },
	{ .index = 0x1a0 /* MISC_ENABLE */, .data = MISC_ENABLE_FAST_STRING },
	{ .index = 0x2ff /* MTRRdefType */, .data = MTRR_ENABLED_WRITE_BACK },
};

#define BOOT_MSRS (ARRAY_SIZE(boot_msrs))

static struct kvm_segment segment(unsigned int index, enum kernel_entry entry)
{
	struct kvm_segment segment = {
		.limit = 0xffffffff,
		.selector = (uint16_t)(index * 8),
		.present = 1,
		.s = 1,
		.g = 1,
	};

	switch (index) {
	case GDT_CODE:
		segment.type = 0xb;
		segment.l = entry == KERNEL_ENTRY_64;
		segment.db = entry == KERNEL_ENTRY_PVH;
		break;
	case GDT_DATA:
		segment.type = 0x3;
		segment.db = 1;
		break;
	default:
		segment.type = 0xb;
		segment.s = 0;
		segment.g = 0;
		segment.limit = 0x67;
		break;
	}
	return segment;
}

/* The eight bytes of a descriptor (Intel SDM volume 3, 3.4.5). */
static uint64_t descriptor(const struct kvm_segment *segment)
{
	uint32_t limit = segment->g ? segment->limit >> 12 : segment->limit;

	return (limit & 0xffff) | (segment->base & 0xffffff) << 16 | (uint64_t)segment->type << 40 |
	       (uint64_t)segment->s << 44 | (uint64_t)segment->dpl << 45 |
	       (uint64_t)segment->present << 47 | (uint64_t)(limit >> 16 & 0xf) << 48 |
	       (uint64_t)segment->l << 53 | (uint64_t)segment->db << 54 |
	       (uint64_t)segment->g << 55 | (segment->base >> 24 & 0xff) << 56;
}

static void write_page_tables(const struct guest_memory *memory)
{
	const uint64_t pml4 = LAYOUT_PDPT | PAGE_PRESENT_WRITABLE;
	const uint64_t pdpt = LAYOUT_PD | PAGE_PRESENT_WRITABLE;
	uint64_t pd[PAGE_TABLE_ENTRIES];

	for (uint64_t i = 0; i < PAGE_TABLE_ENTRIES; i++)
		pd[i] = i << 21 | PAGE_HUGE | PAGE_PRESENT_WRITABLE;
	(void)guest_memory_write(memory, LAYOUT_PML4, &pml4, sizeof(pml4));
	(void)guest_memory_write(memory, LAYOUT_PDPT, &pdpt, sizeof(pdpt));
	(void)guest_memory_write(memory, LAYOUT_PD, pd, sizeof(pd));
}

void registers_write_tables(const struct guest_memory *memory, enum kernel_entry entry)
{
	uint64_t gdt[GDT_ENTRIES] = { 0 };
	const uint64_t idt = 0;

	for (unsigned int i = GDT_CODE; i < GDT_ENTRIES; i++) {
		const struct kvm_segment from = segment(i, entry);

		gdt[i] = descriptor(&from);
	}
	(void)guest_memory_write(memory, LAYOUT_GDT, gdt, sizeof(gdt));
	(void)guest_memory_write(memory, LAYOUT_IDT, &idt, sizeof(idt));
	if (entry == KERNEL_ENTRY_64)
		write_page_tables(memory);
}

void registers_entry(struct kvm_regs *regs, enum kernel_entry entry, uint64_t address)
{
	memset(regs, 0, sizeof(*regs));
	regs->rflags = RFLAGS_FIXED;
	regs->rip = address;
	if (entry == KERNEL_ENTRY_PVH) {
		regs->rbx = LAYOUT_PVH_START_INFO;
		return;
	}
	regs->rsi = LAYOUT_ZERO_PAGE;
	regs->rsp = LAYOUT_BOOT_STACK;
	regs->rbp = LAYOUT_BOOT_STACK;
}

void registers_segments(struct kvm_sregs *sregs, enum kernel_entry entry)
{
	const struct kvm_segment data = segment(GDT_DATA, entry);

	sregs->cs = segment(GDT_CODE, entry);
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
	sregs->tr = segment(GDT_TSS, entry);
	sregs->gdt.base = LAYOUT_GDT;
	sregs->gdt.limit = GDT_ENTRIES * 8 - 1;
	sregs->idt.base = LAYOUT_IDT;
	sregs->idt.limit = 7;
	sregs->cr0 = CR0_PE | CR0_ET;
	sregs->cr4 = 0;
	if (entry == KERNEL_ENTRY_64) {
		sregs->cr0 |= CR0_PG;
		sregs->cr3 = LAYOUT_PML4;
		sregs->cr4 = CR4_PAE;
		sregs->efer |= EFER_LME | EFER_LMA;
	}
}

static void set_lvt_mode(struct kvm_lapic_state *lapic, unsigned int offset, uint32_t mode)
{
	uint32_t value;

	memcpy(&value, lapic->regs + offset, sizeof(value));
	value = (value & ~(uint32_t)LAPIC_MODE_MASK) | mode;
	memcpy(lapic->regs + offset, &value, sizeof(value));
}

void registers_lapic(struct kvm_lapic_state *lapic)
{
	set_lvt_mode(lapic, LAPIC_LVT_LINT0, LAPIC_MODE_EXTINT);
	set_lvt_mode(lapic, LAPIC_LVT_LINT1, LAPIC_MODE_NMI);
}

static int set_msrs(int vcpu_fd, struct err *err)
{
	union {
		struct kvm_msrs kvm;
		char room[sizeof(struct kvm_msrs) + sizeof(boot_msrs)];
	} msrs = { .kvm.nmsrs = BOOT_MSRS };
	int set;

	memcpy(msrs.kvm.entries, boot_msrs, sizeof(boot_msrs));
	set = ioctl(vcpu_fd, KVM_SET_MSRS, &msrs.kvm);
	if (set < 0)
		return err_sys(err, errno, "/dev/kvm: KVM_SET_MSRS");
	if (set != BOOT_MSRS)
		return err_set(err, EIO, "/dev/kvm: KVM_SET_MSRS: MSR 0x%x is refused",
			       boot_msrs[set].index);
	return 0;
}

int registers_set_up(int vcpu_fd, unsigned int vcpu_id, enum kernel_entry entry, uint64_t address,
		     struct err *err)
{
	const struct kvm_fpu fpu = { .fcw = FPU_CONTROL_DEFAULT, .mxcsr = MXCSR_DEFAULT };
	struct kvm_lapic_state lapic;
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	int rc = set_msrs(vcpu_fd, err);

	if (rc < 0)
		return rc;
	if (ioctl(vcpu_fd, KVM_SET_FPU, &fpu) < 0)
		return err_sys(err, errno, "/dev/kvm: KVM_SET_FPU");
	if (ioctl(vcpu_fd, KVM_GET_LAPIC, &lapic) < 0)
		return err_sys(err, errno, "/dev/kvm: KVM_GET_LAPIC");
	registers_lapic(&lapic);
	if (ioctl(vcpu_fd, KVM_SET_LAPIC, &lapic) < 0)
		return err_sys(err, errno, "/dev/kvm: KVM_SET_LAPIC");
	/* The others wait for the boot processor's start-up interrupt, which sets these. */
	if (vcpu_id != 0)
		return 0;
	if (ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
		return err_sys(err, errno, "/dev/kvm: KVM_GET_SREGS");
	registers_segments(&sregs, entry);
	if (ioctl(vcpu_fd, KVM_SET_SREGS, &sregs) < 0)
		return err_sys(err, errno, "/dev/kvm: KVM_SET_SREGS");
	registers_entry(&regs, entry, address);
	if (ioctl(vcpu_fd, KVM_SET_REGS, &regs) < 0)
		return err_sys(err, errno, "/dev/kvm: KVM_SET_REGS");
	return 0;
}

static void log_segment(const char *name, const struct kvm_segment *segment)
{
	log_error(
		"%s selector %04x base %016llx limit %08x type %x s %u dpl %u p %u l %u db %u g %u",
		name, segment->selector, (unsigned long long)segment->base, segment->limit,
		segment->type, segment->s, segment->dpl, segment->present, segment->l, segment->db,
		segment->g);
}

void registers_log(int vcpu_fd)
{
	struct kvm_vcpu_events events;
	struct kvm_sregs sregs;
	struct kvm_regs r;

#define X(value) ((unsigned long long)(value))
	if (ioctl(vcpu_fd, KVM_GET_REGS, &r) == 0) {
		log_error("rip %016llx rflags %016llx", X(r.rip), X(r.rflags));
		log_error("rax %016llx rbx %016llx rcx %016llx rdx %016llx", X(r.rax), X(r.rbx),
			  X(r.rcx), X(r.rdx));
		log_error("rsi %016llx rdi %016llx rsp %016llx rbp %016llx", X(r.rsi), X(r.rdi),
			  X(r.rsp), X(r.rbp));
		log_error("r8  %016llx r9  %016llx r10 %016llx r11 %016llx", X(r.r8), X(r.r9),
			  X(r.r10), X(r.r11));
		log_error("r12 %016llx r13 %016llx r14 %016llx r15 %016llx", X(r.r12), X(r.r13),
			  X(r.r14), X(r.r15));
	}
	if (ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) == 0) {
		log_error("cr0 %016llx cr2 %016llx cr3 %016llx cr4 %016llx cr8 %llx", X(sregs.cr0),
			  X(sregs.cr2), X(sregs.cr3), X(sregs.cr4), X(sregs.cr8));
		log_error("efer %016llx apic_base %016llx", X(sregs.efer), X(sregs.apic_base));
		log_segment("cs", &sregs.cs);
		log_segment("ds", &sregs.ds);
		log_segment("es", &sregs.es);
		log_segment("fs", &sregs.fs);
		log_segment("gs", &sregs.gs);
		log_segment("ss", &sregs.ss);
		log_segment("tr", &sregs.tr);
		log_segment("ldt", &sregs.ldt);
		log_error("gdt base %016llx limit %04x idt base %016llx limit %04x",
			  X(sregs.gdt.base), sregs.gdt.limit, X(sregs.idt.base), sregs.idt.limit);
	}
	if (ioctl(vcpu_fd, KVM_GET_VCPU_EVENTS, &events) == 0)
		log_error("exception injected %u nr %u error code %x; nmi pending %u",
			  events.exception.injected, events.exception.nr,
			  events.exception.error_code, events.nmi.pending);
#undef X
}

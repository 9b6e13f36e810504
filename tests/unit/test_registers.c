/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm/registers.h"

#include "base/guest_memory.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "vmm/boot/layout.h"

#define ENTRY UINT64_C(0x1000200)

static struct guest_memory memory;
static struct kvm_sregs sregs;
static struct kvm_regs regs;

static void set_up(void)
{
	open_guest_memory(&memory, MIB(16));
	memset(&sregs, 0, sizeof(sregs));
	memset(&regs, 0xee, sizeof(regs));
}

static void tear_down(void)
{
	guest_memory_close(&memory);
}

static uint64_t gdt(unsigned int index)
{
	return guest_value(&memory, LAYOUT_GDT + 8 * index, 8);
}

START_TEST(gdt_for_the_64_bit_entry)
{
	registers_write_tables(&memory, KERNEL_ENTRY_64);
	ck_assert_uint_eq(gdt(0), 0);
	ck_assert_uint_eq(gdt(1), 0x00af9b000000ffff);
	ck_assert_uint_eq(gdt(2), 0x00cf93000000ffff);
	ck_assert_uint_eq(gdt(3), 0x00008b0000000067);
}
END_TEST

START_TEST(gdt_for_pvh)
{
	registers_write_tables(&memory, KERNEL_ENTRY_PVH);
	ck_assert_uint_eq(gdt(0), 0);
	ck_assert_uint_eq(gdt(1), 0x00cf9b000000ffff);
	ck_assert_uint_eq(gdt(2), 0x00cf93000000ffff);
	ck_assert_uint_eq(gdt(3), 0x00008b0000000067);
}
END_TEST

START_TEST(gdt_ends_where_the_idt_begins)
{
	registers_segments(&sregs, KERNEL_ENTRY_64);
	ck_assert_uint_eq(sregs.gdt.base, LAYOUT_GDT);
	ck_assert_uint_le(sregs.gdt.base + sregs.gdt.limit + 1, sregs.idt.base);
	ck_assert_uint_eq(sregs.idt.base, LAYOUT_IDT);
}
END_TEST

/* As the processor walks them, for a page of 2 MiB. */
static uint64_t translate(uint64_t address)
{
	uint64_t pml4e = guest_value(&memory, LAYOUT_PML4 + 8 * (address >> 39 & 511), 8);
	uint64_t pdpte, pde;

	ck_assert_uint_eq(pml4e & 0xfff, 3);
	pdpte = guest_value(&memory, (pml4e & ~UINT64_C(0xfff)) + 8 * (address >> 30 & 511), 8);
	ck_assert_uint_eq(pdpte & 0xfff, 3);
	pde = guest_value(&memory, (pdpte & ~UINT64_C(0xfff)) + 8 * (address >> 21 & 511), 8);
	ck_assert_uint_eq(pde & 0xfff, 0x83);
	return (pde & ~UINT64_C(0xfff)) | (address & (MIB(2) - 1));
}

START_TEST(page_tables_map_the_first_gib_onto_itself)
{
	registers_write_tables(&memory, KERNEL_ENTRY_64);
	for (uint64_t address = 5; address < GIB(1); address += MIB(2))
		ck_assert_uint_eq(translate(address), address);
}
END_TEST

START_TEST(page_tables_map_nothing_else)
{
	registers_write_tables(&memory, KERNEL_ENTRY_64);
	ck_assert(all_bytes(guest_memory_range(&memory, LAYOUT_PML4 + 8, 4088), 4088, 0));
	ck_assert(all_bytes(guest_memory_range(&memory, LAYOUT_PDPT + 8, 4088), 4088, 0));
}
END_TEST

START_TEST(pvh_has_no_page_tables)
{
	registers_write_tables(&memory, KERNEL_ENTRY_PVH);
	ck_assert(all_bytes(guest_memory_range(&memory, LAYOUT_PML4, 0x3000), 0x3000, 0));
}
END_TEST

static void assert_data_segment(const struct kvm_segment *segment)
{
	ck_assert_uint_eq(segment->selector, 0x10);
	ck_assert_uint_eq(segment->base, 0);
	ck_assert_uint_eq(segment->limit, UINT32_MAX);
	ck_assert_uint_eq(segment->type, 3);
	ck_assert_uint_eq(segment->present, 1);
	ck_assert_uint_eq(segment->s, 1);
	ck_assert_uint_eq(segment->db, 1);
	ck_assert_uint_eq(segment->g, 1);
	ck_assert_uint_eq(segment->unusable, 0);
}

START_TEST(data_segments_are_flat)
{
	registers_segments(&sregs, KERNEL_ENTRY_64);
	assert_data_segment(&sregs.ds);
	assert_data_segment(&sregs.es);
	assert_data_segment(&sregs.fs);
	assert_data_segment(&sregs.gs);
	assert_data_segment(&sregs.ss);
}
END_TEST

START_TEST(task_register_is_a_busy_tss)
{
	registers_segments(&sregs, KERNEL_ENTRY_64);
	ck_assert_uint_eq(sregs.tr.selector, 0x18);
	ck_assert_uint_eq(sregs.tr.type, 0xb);
	ck_assert_uint_eq(sregs.tr.s, 0);
	ck_assert_uint_eq(sregs.tr.present, 1);
}
END_TEST

START_TEST(long_mode_for_the_64_bit_entry)
{
	registers_segments(&sregs, KERNEL_ENTRY_64);
	ck_assert_uint_eq(sregs.cs.selector, 8);
	ck_assert_uint_eq(sregs.cs.l, 1);
	ck_assert_uint_eq(sregs.cs.db, 0);
	ck_assert_uint_eq(sregs.cr0, 0x80000011);
	ck_assert_uint_eq(sregs.cr3, LAYOUT_PML4);
	ck_assert_uint_eq(sregs.cr4, 0x20);
	ck_assert_uint_eq(sregs.efer, 0x500);
}
END_TEST

START_TEST(protected_mode_without_paging_for_pvh)
{
	registers_segments(&sregs, KERNEL_ENTRY_PVH);
	ck_assert_uint_eq(sregs.cs.selector, 8);
	ck_assert_uint_eq(sregs.cs.l, 0);
	ck_assert_uint_eq(sregs.cs.db, 1);
	ck_assert_uint_eq(sregs.cr0, 0x11);
	ck_assert_uint_eq(sregs.cr4, 0);
	ck_assert_uint_eq(sregs.efer, 0);
}
END_TEST

START_TEST(what_kvm_set_besides_is_kept)
{
	sregs.apic_base = 0xfee00900;
	registers_segments(&sregs, KERNEL_ENTRY_64);
	ck_assert_uint_eq(sregs.apic_base, 0xfee00900);
}
END_TEST

START_TEST(entry_by_the_64_bit_protocol)
{
	const struct kvm_regs expected = {
		.rip = ENTRY,
		.rflags = 2,
		.rsi = LAYOUT_ZERO_PAGE,
		.rsp = LAYOUT_BOOT_STACK,
		.rbp = LAYOUT_BOOT_STACK,
	};

	registers_entry(&regs, KERNEL_ENTRY_64, ENTRY);
	ck_assert_mem_eq(&regs, &expected, sizeof(regs));
}
END_TEST

START_TEST(entry_by_pvh)
{
	const struct kvm_regs expected = {
		.rip = ENTRY,
		.rflags = 2,
		.rbx = LAYOUT_PVH_START_INFO,
	};

	registers_entry(&regs, KERNEL_ENTRY_PVH, ENTRY);
	ck_assert_mem_eq(&regs, &expected, sizeof(regs));
}
END_TEST

START_TEST(local_interrupts_are_extint_and_nmi)
{
	const uint32_t masked = 0x10000, fixed_level = 0x8000;
	struct kvm_lapic_state lapic = { 0 };
	uint32_t lint0, lint1;

	memcpy(lapic.regs + 0x350, &masked, sizeof(masked));
	memcpy(lapic.regs + 0x360, &fixed_level, sizeof(fixed_level));
	registers_lapic(&lapic);
	memcpy(&lint0, lapic.regs + 0x350, sizeof(lint0));
	memcpy(&lint1, lapic.regs + 0x360, sizeof(lint1));
	ck_assert_uint_eq(lint0, masked | 0x700);
	ck_assert_uint_eq(lint1, fixed_level | 0x400);
}
END_TEST

START_TEST(other_lapic_registers_are_kept)
{
	struct kvm_lapic_state lapic;

	memset(&lapic, 0x5a, sizeof(lapic));
	registers_lapic(&lapic);
	ck_assert(all_bytes(lapic.regs, 0x350, 0x5a));
	ck_assert(all_bytes(lapic.regs + 0x354, 0xc, 0x5a));
	ck_assert(all_bytes(lapic.regs + 0x364, sizeof(lapic.regs) - 0x364, 0x5a));
}
END_TEST

Suite *registers_suite(void)
{
	return SUITE("registers", set_up, tear_down, gdt_for_the_64_bit_entry, gdt_for_pvh,
		     gdt_ends_where_the_idt_begins, page_tables_map_the_first_gib_onto_itself,
		     page_tables_map_nothing_else, pvh_has_no_page_tables, data_segments_are_flat,
		     task_register_is_a_busy_tss, long_mode_for_the_64_bit_entry,
		     protected_mode_without_paging_for_pvh, what_kvm_set_besides_is_kept,
		     entry_by_the_64_bit_protocol, entry_by_pvh,
		     local_interrupts_are_extint_and_nmi, other_lapic_registers_are_kept);
}

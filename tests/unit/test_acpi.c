/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "vmm/boot/acpi.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/guest_memory.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "vmm/boot/layout.h"

/* Offsets in the tables: ACPI 6.5, chapter 5.2. */
#define LENGTH 4
#define HEADER_SIZE 36
#define RSDP_XSDT 24
#define RSDP_SIZE 36
#define FADT_FLAGS 112
#define FADT_RESET_REGISTER 116
#define FADT_RESET_VALUE 128
#define FADT_X_DSDT 140
#define FADT_SLEEP_CONTROL 244
#define FADT_SLEEP_STATUS 256
#define FADT_SIZE 276
#define GAS_ADDRESS 4
#define MADT_LAPIC_ADDRESS 36
#define MADT_ENTRIES 44

#define HW_REDUCED (1u << 20)
#define RESET_REG_SUP (1u << 10)

static const unsigned int vcpu_counts[] = { 1, 2, 3, 32 };

static struct guest_memory memory;

static void write_tables(unsigned int vcpu_count)
{
	struct err err;

	ck_assert_msg(acpi_write(&memory, vcpu_count, 0, &err) == 0, "%s", err.text);
}

static void set_up(void)
{
	open_guest_memory(&memory, MIB(16));
}

static void set_up_one(void)
{
	set_up();
	write_tables(1);
}

static void tear_down(void)
{
	guest_memory_close(&memory);
}

static uint64_t length(uint64_t table)
{
	return guest_value(&memory, table + LENGTH, 4);
}

static uint64_t xsdt(void)
{
	return guest_value(&memory, LAYOUT_RSDP + RSDP_XSDT, 8);
}

static uint64_t find_table(const char signature[4])
{
	for (uint64_t at = xsdt() + HEADER_SIZE; at < xsdt() + length(xsdt()); at += 8) {
		uint64_t table = guest_value(&memory, at, 8);

		if (guest_has(&memory, table, signature))
			return table;
	}
	ck_abort_msg("the XSDT names no %.4s", signature);
	return 0;
}

static uint64_t dsdt(void)
{
	return guest_value(&memory, find_table("FACP") + FADT_X_DSDT, 8);
}

static void assert_table(uint64_t table, const char signature[4])
{
	ck_assert(guest_has(&memory, table, signature));
	ck_assert_uint_ge(length(table), HEADER_SIZE);
	ck_assert_uint_eq(guest_sum(&memory, table, length(table)), 0);
	ck_assert_uint_ge(table, LAYOUT_ACPI_TABLES);
	ck_assert_uint_le(table + length(table), LAYOUT_SYSTEM_TABLES_END);
}

START_TEST(every_table_is_valid_and_in_its_place)
{
	write_tables(vcpu_counts[_i]);
	assert_table(xsdt(), "XSDT");
	assert_table(find_table("FACP"), "FACP");
	assert_table(find_table("APIC"), "APIC");
	assert_table(dsdt(), "DSDT");
}
END_TEST

START_TEST(tables_do_not_overlap)
{
	write_tables(vcpu_counts[_i]);
	const uint64_t tables[] = { xsdt(), find_table("FACP"), find_table("APIC"), dsdt() };

	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(tables); j++)
			ck_assert(i == j || tables[i] + length(tables[i]) <= tables[j] ||
				  tables[j] + length(tables[j]) <= tables[i]);
	}
}
END_TEST

START_TEST(madt_lists_each_vcpu_and_the_ioapic)
{
	uint64_t at, madt;

	write_tables(vcpu_counts[_i]);
	madt = find_table("APIC");
	at = madt + MADT_ENTRIES;
	ck_assert_uint_eq(guest_value(&memory, madt + MADT_LAPIC_ADDRESS, 4), LAYOUT_LAPIC);
	for (unsigned int i = 0; i < vcpu_counts[_i]; i++, at += 8) {
		ck_assert_uint_eq(guest_value(&memory, at, 1), 0);
		ck_assert_uint_eq(guest_value(&memory, at + 1, 1), 8);
		ck_assert_uint_eq(guest_value(&memory, at + 2, 1), i);
		ck_assert_uint_eq(guest_value(&memory, at + 3, 1), i);
		ck_assert_uint_eq(guest_value(&memory, at + 4, 4), 1);
	}
	ck_assert_uint_eq(guest_value(&memory, at, 1), 1);
	ck_assert_uint_eq(guest_value(&memory, at + 1, 1), 12);
	ck_assert_uint_eq(guest_value(&memory, at + 2, 1), vcpu_counts[_i]);
	ck_assert_uint_eq(guest_value(&memory, at + 4, 4), LAYOUT_IOAPIC);
	ck_assert_uint_eq(guest_value(&memory, at + 8, 4), 0);
	ck_assert_uint_eq(at + 12, madt + length(madt));
}
END_TEST

START_TEST(rsdp_is_valid)
{
	ck_assert(guest_has(&memory, LAYOUT_RSDP, "RSD PTR "));
	ck_assert_uint_eq(guest_value(&memory, LAYOUT_RSDP + 15, 1), 2);
	ck_assert_uint_eq(guest_value(&memory, LAYOUT_RSDP + 20, 4), RSDP_SIZE);
	ck_assert_uint_eq(guest_sum(&memory, LAYOUT_RSDP, 20), 0);
	ck_assert_uint_eq(guest_sum(&memory, LAYOUT_RSDP, RSDP_SIZE), 0);
}
END_TEST

START_TEST(fadt_is_hardware_reduced)
{
	uint64_t flags = guest_value(&memory, find_table("FACP") + FADT_FLAGS, 4);

	ck_assert_uint_eq(length(find_table("FACP")), FADT_SIZE);
	ck_assert(flags & HW_REDUCED);
	ck_assert(flags & RESET_REG_SUP);
}
END_TEST

START_TEST(fadt_registers_are_those_of_the_devices)
{
	uint64_t fadt = find_table("FACP");

	ck_assert_uint_eq(guest_value(&memory, fadt + FADT_RESET_REGISTER + GAS_ADDRESS, 8), 0x64);
	ck_assert_uint_eq(guest_value(&memory, fadt + FADT_RESET_VALUE, 1), 0xfe);
	ck_assert_uint_eq(guest_value(&memory, fadt + FADT_SLEEP_CONTROL + GAS_ADDRESS, 8),
			  LAYOUT_PORT_SLEEP);
	ck_assert_uint_eq(guest_value(&memory, fadt + FADT_SLEEP_STATUS + GAS_ADDRESS, 8),
			  LAYOUT_PORT_SLEEP + 1);
}
END_TEST

/* Writes the table to NAME.aml and returns what the disassembler makes of it, to be freed. */
static char *disassemble(const char *name, uint64_t table)
{
	char command[128], file[32];
	char *output;
	int status;

	snprintf(file, sizeof(file), "%s.aml", name);
	write_file(file, guest_memory_range(&memory, table, length(table)), length(table));
	snprintf(command, sizeof(command), "iasl -d %s >%s.out 2>&1", file, name);
	status = system(command);
	snprintf(file, sizeof(file), "%s.out", name);
	output = read_text(file);
	ck_assert_msg(status == 0, "iasl (package acpica-tools): %s", output);
	ck_assert_msg(!strstr(output, "Incorrect checksum"), "%s", output);
	free(output);
	snprintf(file, sizeof(file), "%s.dsl", name);
	return read_text(file);
}

static const char *const tables[] = { "XSDT", "FACP", "APIC", "DSDT" };

START_TEST(disassembler_accepts_the_table)
{
	uint64_t table;
	char *source;

	write_tables(3);
	if (strcmp(tables[_i], "XSDT") == 0)
		table = xsdt();
	else if (strcmp(tables[_i], "DSDT") == 0)
		table = dsdt();
	else
		table = find_table(tables[_i]);
	source = disassemble(tables[_i], table);
	assert_contains(source, tables[_i]);
	ck_assert_ptr_null(strstr(source, "Invalid"));
	free(source);
}
END_TEST

/* Layout and comments are the disassembler's; the terms are what counts. */
static void strip_layout(char *source)
{
	char *to = source;

	for (const char *from = source; *from; from++) {
		if (from[0] == '/' && from[1] == '/')
			from += strcspn(from, "\n") - 1;
		else if (!isspace((unsigned char)*from))
			*to++ = *from;
	}
	*to = '\0';
}

START_TEST(dsdt_names_serial_port_keyboard_and_power_off)
{
	char *source = disassemble("dsdt", dsdt());

	strip_layout(source);
	assert_contains(source, "Scope(_SB)");
	assert_contains(source, "Device(COM1)");
	assert_contains(source, "Name(_HID,EisaId(\"PNP0501\")");
	assert_contains(source, "IO(Decode16,0x03F8,0x03F8,0x01,0x08,)");
	assert_contains(source,
			"Interrupt(ResourceConsumer,Edge,ActiveHigh,Exclusive,,,){0x00000004,}");
	assert_contains(source, "Device(PS2)");
	assert_contains(source, "IO(Decode16,0x0060,0x0060,0x01,0x01,)");
	assert_contains(source, "IO(Decode16,0x0064,0x0064,0x01,0x01,)");
	assert_contains(source,
			"Interrupt(ResourceConsumer,Edge,ActiveHigh,Exclusive,,,){0x00000001,}");
	assert_contains(source, "Name(_S5,Package(0x04){0x05,");
	free(source);
}
END_TEST

START_TEST(disassembled_dsdt_compiles)
{
	char *output;
	int status;

	free(disassemble("again", dsdt()));
	status = system("iasl -p again2 again.dsl >again.out 2>&1");
	output = read_text("again.out");
	ck_assert_msg(status == 0, "%s", output);
	free(output);
}
END_TEST

Suite *acpi_suite(void)
{
	Suite *suite =
		SUITE("acpi", set_up_one, tear_down, rsdp_is_valid, fadt_is_hardware_reduced,
		      fadt_registers_are_those_of_the_devices,
		      dsdt_names_serial_port_keyboard_and_power_off, disassembled_dsdt_compiles);

	add_table_test(suite, set_up, tear_down, every_table_is_valid_and_in_its_place,
		       ARRAY_SIZE(vcpu_counts));
	add_table_test(suite, set_up, tear_down, tables_do_not_overlap, ARRAY_SIZE(vcpu_counts));
	add_table_test(suite, set_up, tear_down, madt_lists_each_vcpu_and_the_ioapic,
		       ARRAY_SIZE(vcpu_counts));
	add_table_test(suite, set_up, tear_down, disassembler_accepts_the_table,
		       ARRAY_SIZE(tables));
	return suite;
}

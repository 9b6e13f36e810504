/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/boot/acpi.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"
#include "base/guest_memory.h"
#include "vmm/boot/aml.h"
#include "vmm/boot/checksum.h"
#include "vmm/boot/layout.h"
#include "vmm/platform/sleep.h"

#define TABLE_SIZE_MAX 8192
#define TABLE_ALIGNMENT 16

#define FADT_PWR_BUTTON (1u << 4)
#define FADT_SLP_BUTTON (1u << 5)
#define FADT_RESET_REG_SUP (1u << 10)
#define FADT_HW_REDUCED (1u << 20)
#define FADT_VGA_NOT_PRESENT (1u << 2)
#define FADT_NO_CMOS_RTC (1u << 5)
#define FADT_I8042_PORT 0x64
#define FADT_I8042_RESET 0xfe

#define GAS_SYSTEM_IO 1
#define GAS_BYTE_ACCESS 1

enum { MADT_LAPIC, MADT_IOAPIC };

struct acpi_header {
	char signature[4];
	uint32_t length;
	uint8_t revision;
	uint8_t checksum;
	char oem_id[6];
	char oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
} __attribute__((packed));

struct acpi_rsdp {
	char signature[8];
	uint8_t checksum; /* of the first 20 bytes */
	char oem_id[6];
	uint8_t revision;
	uint32_t rsdt;
	uint32_t length;
	uint64_t xsdt;
	uint8_t extended_checksum;
	uint8_t reserved[3];
} __attribute__((packed));

struct acpi_address {
	uint8_t space;
	uint8_t bit_width;
	uint8_t bit_offset;
	uint8_t access_size;
	uint64_t address;
} __attribute__((packed));

/* Only the fields that hardware-reduced ACPI uses are named. */
struct acpi_fadt {
	struct acpi_header header;
	uint8_t legacy[73];
	uint16_t iapc_boot_arch;
	uint8_t reserved;
	uint32_t flags;
	struct acpi_address reset_register;
	uint8_t reset_value;
	uint16_t arm_boot_arch;
	uint8_t minor_revision;
	uint64_t x_firmware_control;
	uint64_t x_dsdt;
	struct acpi_address legacy_registers[8];
	struct acpi_address sleep_control;
	struct acpi_address sleep_status;
	char hypervisor_id[8];
} __attribute__((packed));

_Static_assert(offsetof(struct acpi_fadt, iapc_boot_arch) == 109, "FADT layout");
_Static_assert(offsetof(struct acpi_fadt, x_dsdt) == 140, "FADT layout");
_Static_assert(sizeof(struct acpi_fadt) == 276, "FADT layout");

struct acpi_madt {
	struct acpi_header header;
	uint32_t lapic;
	uint32_t flags;
} __attribute__((packed));

struct acpi_madt_lapic {
	uint8_t type;
	uint8_t length;
	uint8_t processor_id;
	uint8_t apic_id;
	uint32_t flags;
} __attribute__((packed));

struct acpi_madt_ioapic {
	uint8_t type;
	uint8_t length;
	uint8_t id;
	uint8_t reserved;
	uint32_t addr;
	uint32_t gsi_base;
} __attribute__((packed));

/* A table being put together; its header is completed when it is written. */
struct table {
	uint8_t bytes[TABLE_SIZE_MAX];
	size_t used;
};

static void append(struct table *table, const void *data, size_t size)
{
	memcpy(table->bytes + table->used, data, size);
	table->used += size;
}

/* Writes the table at *addr, moves *addr behind it, and returns where it was put. */
static uint64_t write_table(const struct guest_memory *memory, struct table *table,
			    const char signature[4], uint8_t revision, uint64_t *addr)
{
	uint64_t at = *addr;
	struct acpi_header header = {
		.length = (uint32_t)table->used,
		.revision = revision,
		.oem_id = { 'M', 'O', 'T', 'E', ' ', ' ' },
		.oem_table_id = { 'M', 'I', 'C', 'R', 'O', 'V', 'M', ' ' },
		.oem_revision = 1,
		.creator_id = { 'M', 'O', 'T', 'E' },
		.creator_revision = 1,
	};

	memcpy(header.signature, signature, sizeof(header.signature));
	memcpy(table->bytes, &header, sizeof(header));
	header.checksum = table_checksum(table->bytes, table->used);
	memcpy(table->bytes, &header, sizeof(header));
	(void)guest_memory_write(memory, at, table->bytes, table->used);
	*addr = (at + table->used + TABLE_ALIGNMENT - 1) & ~(uint64_t)(TABLE_ALIGNMENT - 1);
	return at;
}

static void describe_virtio(struct aml *aml, unsigned int index)
{
	const char name[4] = { 'V', 'I', (char)('0' + index / 10), (char)('0' + index % 10) };
	struct aml_package device = aml_device_begin(aml, name);
	struct aml_resources resources;

	aml_name_string(aml, "_HID", "LNRO0005");
	aml_name_integer(aml, "_UID", index);
	aml_name_integer(aml, "_CCA", 1); /* coherent */
	resources = aml_resources_begin(aml);
	aml_resource_memory(aml, (uint32_t)(LAYOUT_VIRTIO + index * LAYOUT_VIRTIO_SIZE),
			    (uint32_t)LAYOUT_VIRTIO_SIZE);
	aml_resource_interrupt(aml, LAYOUT_VIRTIO_IRQ + index);
	aml_resources_end(aml, resources);
	aml_end(aml, device);
}

static bool build_dsdt(struct table *dsdt, unsigned int virtio_count)
{
	static const uint8_t s5[] = { SLEEP_TYPE_S5, 0, 0, 0 };
	struct aml aml = { .bytes = dsdt->bytes + sizeof(struct acpi_header),
			   .size = sizeof(dsdt->bytes) - sizeof(struct acpi_header) };
	struct aml_package scope, device;
	struct aml_resources resources;

	aml_name_package(&aml, "_S5_", s5, sizeof(s5));
	scope = aml_scope_begin(&aml, "_SB_");
	device = aml_device_begin(&aml, "COM1");
	aml_name_eisa_id(&aml, "_HID", "PNP0501");
	aml_name_integer(&aml, "_UID", 0);
	resources = aml_resources_begin(&aml);
	aml_resource_io(&aml, LAYOUT_PORT_SERIAL, 8);
	aml_resource_interrupt(&aml, LAYOUT_IRQ_SERIAL);
	aml_resources_end(&aml, resources);
	aml_end(&aml, device);
	device = aml_device_begin(&aml, "PS2_");
	aml_name_eisa_id(&aml, "_HID", "PNP0303");
	resources = aml_resources_begin(&aml);
	aml_resource_io(&aml, LAYOUT_PORT_I8042, 1);
	aml_resource_io(&aml, LAYOUT_PORT_I8042 + 4, 1);
	aml_resource_interrupt(&aml, LAYOUT_IRQ_KEYBOARD);
	aml_resources_end(&aml, resources);
	aml_end(&aml, device);
	for (unsigned int i = 0; i < virtio_count; i++)
		describe_virtio(&aml, i);
	aml_end(&aml, scope);
	dsdt->used = sizeof(struct acpi_header) + aml.used;
	return !aml.overflow;
}

static void build_fadt(struct table *table, uint64_t dsdt)
{
	struct acpi_fadt fadt = {
		.iapc_boot_arch = FADT_VGA_NOT_PRESENT | FADT_NO_CMOS_RTC,
		.flags = FADT_PWR_BUTTON | FADT_SLP_BUTTON | FADT_RESET_REG_SUP | FADT_HW_REDUCED,
		.reset_register = { GAS_SYSTEM_IO, 8, 0, GAS_BYTE_ACCESS, FADT_I8042_PORT },
		.reset_value = FADT_I8042_RESET,
		.minor_revision = 5,
		.x_dsdt = dsdt,
		.sleep_control = { GAS_SYSTEM_IO, 8, 0, GAS_BYTE_ACCESS, LAYOUT_PORT_SLEEP },
		.sleep_status = { GAS_SYSTEM_IO, 8, 0, GAS_BYTE_ACCESS, LAYOUT_PORT_SLEEP + 1 },
		.hypervisor_id = { 'M', 'O', 'T', 'E', ' ', ' ', ' ', ' ' },
	};

	table->used = 0;
	append(table, &fadt, sizeof(fadt));
}

static void build_madt(struct table *table, unsigned int vcpu_count)
{
	const struct acpi_madt madt = { .lapic = (uint32_t)LAYOUT_LAPIC };
	const struct acpi_madt_ioapic ioapic = {
		MADT_IOAPIC, sizeof(ioapic), (uint8_t)vcpu_count, 0, (uint32_t)LAYOUT_IOAPIC, 0,
	};

	table->used = 0;
	append(table, &madt, sizeof(madt));
	for (unsigned int i = 0; i < vcpu_count; i++) {
		const struct acpi_madt_lapic lapic = {
			MADT_LAPIC, sizeof(lapic), (uint8_t)i, (uint8_t)i, 1 /* enabled */,
		};

		append(table, &lapic, sizeof(lapic));
	}
	append(table, &ioapic, sizeof(ioapic));
}

static void write_rsdp(const struct guest_memory *memory, uint64_t xsdt)
{
	struct acpi_rsdp rsdp = {
		.signature = { 'R', 'S', 'D', ' ', 'P', 'T', 'R', ' ' },
		.oem_id = { 'M', 'O', 'T', 'E', ' ', ' ' },
		.revision = 2,
		.length = sizeof(rsdp),
		.xsdt = xsdt,
	};

	rsdp.checksum = table_checksum(&rsdp, offsetof(struct acpi_rsdp, length));
	rsdp.extended_checksum = table_checksum(&rsdp, sizeof(rsdp));
	(void)guest_memory_write(memory, LAYOUT_RSDP, &rsdp, sizeof(rsdp));
}

int acpi_write(const struct guest_memory *memory, unsigned int vcpu_count,
	       unsigned int virtio_count, struct err *err)
{
	uint64_t addr = LAYOUT_ACPI_TABLES;
	uint64_t dsdt, tables[2];
	struct table table;

	if (!build_dsdt(&table, virtio_count))
		return err_set(err, ENOSPC, "ACPI tables: the DSDT outgrows %d bytes",
			       TABLE_SIZE_MAX);
	dsdt = write_table(memory, &table, "DSDT", 2, &addr);
	build_fadt(&table, dsdt);
	tables[0] = write_table(memory, &table, "FACP", 6, &addr);
	build_madt(&table, vcpu_count);
	tables[1] = write_table(memory, &table, "APIC", 5, &addr);
	table.used = sizeof(struct acpi_header);
	append(&table, tables, sizeof(tables));
	write_rsdp(memory, write_table(memory, &table, "XSDT", 1, &addr));
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/boot/mptable.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/guest_memory.h"
#include "vmm/boot/checksum.h"
#include "vmm/boot/layout.h"

#define MP_SPEC_REVISION 4
#define MP_IOAPIC_INPUTS 24
#define MP_LAPIC_VERSION 0x14
#define MP_IOAPIC_VERSION 0x11
#define MP_CPU_ENABLED 0x1
#define MP_CPU_BSP 0x2
#define MP_CPU_FEATURES 0x201 /* FPU, APIC */
#define MP_CPU_SIGNATURE 0x600
#define MP_APIC_USABLE 0x1
#define MP_ALL_LAPICS 0xff

enum { MP_PROCESSOR, MP_BUS, MP_IOAPIC, MP_INTSRC, MP_LINTSRC };
enum { MP_INT, MP_NMI, MP_SMI, MP_EXTINT };

struct mp_floating {
	char signature[4];
	uint32_t table;
	uint8_t length; /* in units of 16 bytes */
	uint8_t revision;
	uint8_t checksum;
	uint8_t features[5];
} __attribute__((packed));

struct mp_header {
	char signature[4];
	uint16_t length;
	uint8_t revision;
	uint8_t checksum;
	char oem[8];
	char product[12];
	uint32_t oem_table;
	uint16_t oem_size;
	uint16_t entries;
	uint32_t lapic;
	uint32_t reserved;
} __attribute__((packed));

struct mp_processor {
	uint8_t type;
	uint8_t apic_id;
	uint8_t apic_version;
	uint8_t flags;
	uint32_t signature;
	uint32_t features;
	uint32_t reserved[2];
} __attribute__((packed));

struct mp_bus {
	uint8_t type;
	uint8_t id;
	char name[6];
} __attribute__((packed));

struct mp_ioapic {
	uint8_t type;
	uint8_t id;
	uint8_t version;
	uint8_t flags;
	uint32_t addr;
} __attribute__((packed));

/* Also the local interrupt entry: the same bytes, the destination being a local APIC. */
struct mp_interrupt {
	uint8_t type;
	uint8_t kind;
	uint16_t flags; /* 0: polarity and trigger as the bus has them */
	uint8_t bus;
	uint8_t bus_irq;
	uint8_t apic;
	uint8_t input;
} __attribute__((packed));

struct writer {
	uint8_t bytes[LAYOUT_ACPI_TABLES - LAYOUT_SYSTEM_TABLES];
	size_t used;
};

static void append(struct writer *writer, struct mp_header *header, const void *entry, size_t size)
{
	memcpy(writer->bytes + writer->used, entry, size);
	writer->used += size;
	header->entries++;
}

void mptable_write(const struct guest_memory *memory, unsigned int vcpu_count)
{
	struct writer writer = { .used = sizeof(struct mp_floating) + sizeof(struct mp_header) };
	struct mp_floating floating = {
		.signature = { '_', 'M', 'P', '_' },
		.table = (uint32_t)LAYOUT_SYSTEM_TABLES + sizeof(floating),
		.length = sizeof(floating) / 16,
		.revision = MP_SPEC_REVISION,
	};
	struct mp_header header = {
		.signature = { 'P', 'C', 'M', 'P' },
		.revision = MP_SPEC_REVISION,
		.oem = { 'M', 'O', 'T', 'E', ' ', ' ', ' ', ' ' },
		.product = { 'M', 'I', 'C', 'R', 'O', 'V', 'M', ' ', ' ', ' ', ' ', ' ' },
		.lapic = (uint32_t)LAYOUT_LAPIC,
	};
	const struct mp_bus bus = { MP_BUS, 0, { 'I', 'S', 'A', ' ', ' ', ' ' } };
	const struct mp_ioapic ioapic = { MP_IOAPIC, (uint8_t)vcpu_count, MP_IOAPIC_VERSION,
					  MP_APIC_USABLE, (uint32_t)LAYOUT_IOAPIC };
	const struct mp_interrupt extint = { MP_LINTSRC, MP_EXTINT, 0, 0, 0, 0, 0 };
	const struct mp_interrupt nmi = { MP_LINTSRC, MP_NMI, 0, 0, 0, MP_ALL_LAPICS, 1 };

	for (unsigned int i = 0; i < vcpu_count; i++) {
		const struct mp_processor processor = {
			.type = MP_PROCESSOR,
			.apic_id = (uint8_t)i,
			.apic_version = MP_LAPIC_VERSION,
			.flags = (uint8_t)(MP_CPU_ENABLED | (i == 0 ? MP_CPU_BSP : 0)),
			.signature = MP_CPU_SIGNATURE,
			.features = MP_CPU_FEATURES,
		};

		append(&writer, &header, &processor, sizeof(processor));
	}
	append(&writer, &header, &bus, sizeof(bus));
	append(&writer, &header, &ioapic, sizeof(ioapic));
	for (unsigned int i = 0; i < MP_IOAPIC_INPUTS; i++) {
		const struct mp_interrupt interrupt = { MP_INTSRC, MP_INT,     0,
							0,	   (uint8_t)i, (uint8_t)vcpu_count,
							(uint8_t)i };

		append(&writer, &header, &interrupt, sizeof(interrupt));
	}
	append(&writer, &header, &extint, sizeof(extint));
	append(&writer, &header, &nmi, sizeof(nmi));

	header.length = (uint16_t)(writer.used - sizeof(floating));
	memcpy(writer.bytes + sizeof(floating), &header, sizeof(header));
	header.checksum = table_checksum(writer.bytes + sizeof(floating), header.length);
	memcpy(writer.bytes + sizeof(floating), &header, sizeof(header));
	floating.checksum = table_checksum(&floating, sizeof(floating));
	memcpy(writer.bytes, &floating, sizeof(floating));
	(void)guest_memory_write(memory, LAYOUT_SYSTEM_TABLES, writer.bytes, writer.used);
}

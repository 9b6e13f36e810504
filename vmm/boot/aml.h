/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the few ACPI Machine Language terms that describe our devices (ACPI 6.5, chapter 20).
 * Terms nest by *_begin and aml_end. A buffer that is too small sets `overflow` and stays valid.
 */
#ifndef MOTE_VMM_BOOT_AML_H
#define MOTE_VMM_BOOT_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aml {
	uint8_t *bytes; /* not owned */
	size_t size;
	size_t used;
	bool overflow;
};

/* Where a package's length goes once it is known. */
struct aml_package {
	size_t length_at;
};

struct aml_package aml_scope_begin(struct aml *aml, const char *name);
struct aml_package aml_device_begin(struct aml *aml, const char name[4]);
void aml_end(struct aml *aml, struct aml_package package);

void aml_name_integer(struct aml *aml, const char name[4], uint32_t value);
/* An EISA id such as "PNP0501". */
void aml_name_eisa_id(struct aml *aml, const char name[4], const char id[7]);
/* Of printable ASCII. */
void aml_name_string(struct aml *aml, const char name[4], const char *string);
void aml_name_package(struct aml *aml, const char name[4], const uint8_t *values, uint8_t count);

/* _CRS: a resource template of the descriptors between begin and end (ACPI 6.5, 6.4). */
struct aml_resources {
	struct aml_package buffer;
	size_t size_at;
};

struct aml_resources aml_resources_begin(struct aml *aml);
void aml_resource_io(struct aml *aml, uint16_t base, uint8_t length);
/* Writable memory at a fixed 32-bit address. */
void aml_resource_memory(struct aml *aml, uint32_t base, uint32_t size);
/* An edge-triggered, active-high, exclusive interrupt that the device consumes. */
void aml_resource_interrupt(struct aml *aml, uint32_t gsi);
void aml_resources_end(struct aml *aml, struct aml_resources resources);

#endif

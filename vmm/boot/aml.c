/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/boot/aml.h"

#include <string.h>

#define OP_NAME 0x08
#define OP_DWORD 0x0c
#define OP_STRING 0x0d
#define OP_WORD 0x0b
#define OP_BYTE 0x0a
#define OP_SCOPE 0x10
#define OP_BUFFER 0x11
#define OP_PACKAGE 0x12
#define OP_EXT 0x5b
#define OP_EXT_DEVICE 0x82

/* Packages always take the three-byte length, which covers 1 MiB: no need to shift bytes later. */
#define LENGTH_SIZE 3

static void put(struct aml *aml, const void *data, size_t size)
{
	if (aml->overflow || size > aml->size - aml->used) {
		aml->overflow = true;
		return;
	}
	memcpy(aml->bytes + aml->used, data, size);
	aml->used += size;
}

static void put8(struct aml *aml, uint8_t value)
{
	put(aml, &value, sizeof(value));
}

static void put16(struct aml *aml, uint16_t value)
{
	put(aml, &value, sizeof(value));
}

static void put32(struct aml *aml, uint32_t value)
{
	put(aml, &value, sizeof(value));
}

static void put_integer(struct aml *aml, uint32_t value)
{
	if (value <= UINT8_MAX) {
		put8(aml, OP_BYTE);
		put8(aml, (uint8_t)value);
	} else if (value <= UINT16_MAX) {
		put8(aml, OP_WORD);
		put16(aml, (uint16_t)value);
	} else {
		put8(aml, OP_DWORD);
		put32(aml, value);
	}
}

static struct aml_package package_begin(struct aml *aml)
{
	const struct aml_package package = { aml->used };
	const uint8_t length[LENGTH_SIZE] = { 0 };

	put(aml, length, sizeof(length));
	return package;
}

void aml_end(struct aml *aml, struct aml_package package)
{
	size_t length = aml->used - package.length_at;

	if (aml->overflow)
		return;
	/* ACPI 6.5, 20.2.4: the first byte holds how many follow and the lowest four bits. */
	aml->bytes[package.length_at] = (uint8_t)((LENGTH_SIZE - 1) << 6 | (length & 0xf));
	aml->bytes[package.length_at + 1] = (uint8_t)(length >> 4);
	aml->bytes[package.length_at + 2] = (uint8_t)(length >> 12);
}

struct aml_package aml_scope_begin(struct aml *aml, const char *name)
{
	struct aml_package package;

	put8(aml, OP_SCOPE);
	package = package_begin(aml);
	put(aml, name, strlen(name));
	return package;
}

struct aml_package aml_device_begin(struct aml *aml, const char name[4])
{
	struct aml_package package;

	put8(aml, OP_EXT);
	put8(aml, OP_EXT_DEVICE);
	package = package_begin(aml);
	put(aml, name, 4);
	return package;
}

static void name(struct aml *aml, const char segment[4])
{
	put8(aml, OP_NAME);
	put(aml, segment, 4);
}

void aml_name_integer(struct aml *aml, const char segment[4], uint32_t value)
{
	name(aml, segment);
	put_integer(aml, value);
}

void aml_name_eisa_id(struct aml *aml, const char segment[4], const char id[7])
{
	uint32_t value = 0;
	uint8_t bytes[4];

	/* Three letters of five bits, four hexadecimal digits, most significant byte first. */
	for (int i = 0; i < 3; i++)
		value = value << 5 | (uint32_t)(id[i] - '@');
	for (int i = 3; i < 7; i++)
		value = value << 4 | (uint32_t)(id[i] <= '9' ? id[i] - '0' : id[i] - 'A' + 10);
	for (int i = 0; i < 4; i++)
		bytes[i] = (uint8_t)(value >> (24 - 8 * i));
	name(aml, segment);
	put8(aml, OP_DWORD);
	put(aml, bytes, sizeof(bytes));
}

void aml_name_string(struct aml *aml, const char segment[4], const char *string)
{
	name(aml, segment);
	put8(aml, OP_STRING);
	put(aml, string, strlen(string) + 1);
}

void aml_name_package(struct aml *aml, const char segment[4], const uint8_t *values, uint8_t count)
{
	struct aml_package package;

	name(aml, segment);
	put8(aml, OP_PACKAGE);
	package = package_begin(aml);
	put8(aml, count);
	for (uint8_t i = 0; i < count; i++)
		put_integer(aml, values[i]);
	aml_end(aml, package);
}

struct aml_resources aml_resources_begin(struct aml *aml)
{
	struct aml_resources resources;

	name(aml, "_CRS");
	put8(aml, OP_BUFFER);
	resources.buffer = package_begin(aml);
	put8(aml, OP_WORD);
	resources.size_at = aml->used;
	put16(aml, 0);
	return resources;
}

void aml_resource_io(struct aml *aml, uint16_t base, uint8_t length)
{
	put8(aml, 0x47);
	put8(aml, 1); /* decodes 16 bits */
	put16(aml, base);
	put16(aml, base);
	put8(aml, 1);
	put8(aml, length);
}

void aml_resource_memory(struct aml *aml, uint32_t base, uint32_t size)
{
	put8(aml, 0x86);
	put16(aml, 9);
	put8(aml, 1); /* writable */
	put32(aml, base);
	put32(aml, size);
}

void aml_resource_interrupt(struct aml *aml, uint32_t gsi)
{
	put8(aml, 0x89);
	put16(aml, 6);
	put8(aml, 0x3); /* consumer, edge-triggered */
	put8(aml, 1);
	put32(aml, gsi);
}

void aml_resources_end(struct aml *aml, struct aml_resources resources)
{
	uint16_t size;

	put8(aml, 0x79); /* end tag, its checksum not used */
	put8(aml, 0);
	if (aml->overflow)
		return;
	size = (uint16_t)(aml->used - resources.size_at - sizeof(size));
	memcpy(aml->bytes + resources.size_at, &size, sizeof(size));
	aml_end(aml, resources.buffer);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/snapshot/format.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#include "base/array.h"
#include "base/err.h"

static const char magic[8] = "MOTESNAP";

#define HEADER_SIZE (sizeof(magic) + 2 * sizeof(uint32_t))
#define CHECKSUM_SIZE sizeof(uint64_t)

/* CRC-64/XZ: reflected ECMA-182, all ones before and after. */
#define POLYNOMIAL UINT64_C(0xc96c5795d7870f42)

static uint64_t checksum(const uint8_t *bytes, size_t size)
{
	uint64_t table[256], crc = UINT64_MAX;

	for (uint64_t i = 0; i < ARRAY_SIZE(table); i++) {
		table[i] = i;
		for (unsigned int bit = 0; bit < 8; bit++)
			table[i] = table[i] >> 1 ^ (table[i] & 1 ? POLYNOMIAL : 0);
	}
	for (size_t i = 0; i < size; i++)
		crc = table[(crc ^ bytes[i]) & 0xff] ^ crc >> 8;
	return ~crc;
}

void snapshot_begin(struct state_writer *file)
{
	state_put_bytes(file, magic, sizeof(magic));
	state_put_u32(file, SNAPSHOT_FORMAT_VERSION);
	state_put_u32(file, EM_X86_64);
}

void snapshot_end(struct state_writer *file)
{
	if (!file->failed)
		state_put_u64(file, checksum(file->data, file->size));
}

int snapshot_check(const uint8_t *bytes, size_t size, struct state_reader *sections,
		   struct err *err)
{
	struct state_reader header = { .at = bytes, .left = size }, sum;
	char its_magic[sizeof(magic)];
	uint32_t version, machine;

	state_get_bytes(&header, its_magic, sizeof(its_magic));
	version = state_get_u32(&header);
	machine = state_get_u32(&header);
	if (header.failed || memcmp(its_magic, magic, sizeof(magic)) != 0)
		return err_set(err, EINVAL, "not a snapshot's state");
	if (version != SNAPSHOT_FORMAT_VERSION)
		return err_set(err, ENOTSUP, "its format has the version %u, and %d is read",
			       version, SNAPSHOT_FORMAT_VERSION);
	if (machine != EM_X86_64)
		return err_set(err, ENOTSUP, "it is of another architecture (ELF machine %u)",
			       machine);
	if (header.left < CHECKSUM_SIZE)
		return err_set(err, EINVAL, "it is cut off");
	*sections = (struct state_reader){ header.at, header.left - CHECKSUM_SIZE, false };
	sum = (struct state_reader){ sections->at + sections->left, CHECKSUM_SIZE, false };
	if (state_get_u64(&sum) != checksum(bytes, size - CHECKSUM_SIZE))
		return err_set(err, EINVAL, "it is damaged: its checksum is another");
	return 0;
}

int snapshot_next(struct state_reader *sections, enum snapshot_section kind, uint32_t version,
		  struct state_section *section, struct err *err)
{
	if (!state_next(sections, section))
		return err_set(err, EINVAL, "its section of kind %d is missing", kind);
	if (section->kind != kind)
		return err_set(err, EINVAL,
			       "a section of kind %u is where one of kind %d is expected",
			       section->kind, kind);
	if (section->version == 0 || section->version > version)
		return err_set(err, ENOTSUP,
			       "its section of kind %d has the version %u, and %u is the latest "
			       "that is read",
			       kind, section->version, version);
	return 0;
}

int snapshot_done(const struct state_section *section, struct err *err)
{
	return state_is_done(&section->body)
		       ? 0
		       : err_set(err, EINVAL, "its section of kind %u has another length",
				 section->kind);
}

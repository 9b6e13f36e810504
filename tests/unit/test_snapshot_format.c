/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/snapshot/format.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>

#include "base/err.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define AT_VERSION 8
#define AT_MACHINE 12
#define HEADER 16

static struct state_writer file;
static struct err err;

static void add(uint32_t kind, uint32_t version, const char *text)
{
	size_t section = state_begin(&file, kind, version);

	state_put_bytes(&file, text, strlen(text));
	state_end(&file, section);
}

static void set_up(void)
{
	file = (struct state_writer){ 0 };
	snapshot_begin(&file);
	add(SNAPSHOT_CONFIG, 2, "{}");
	add(SNAPSHOT_MACHINE, 1, "abc");
	snapshot_end(&file);
}

static void tear_down(void)
{
	state_writer_free(&file);
}

/* With its checksum made good, if it is to be. */
static int check(struct state_reader *sections, bool with_checksum)
{
	if (with_checksum) {
		file.size -= sizeof(uint64_t);
		snapshot_end(&file);
	}
	err.text[0] = '\0';
	return snapshot_check(file.data, file.size, sections, &err);
}

START_TEST(checksum_is_crc_64_xz)
{
	struct state_writer text = { 0 };
	struct state_reader sum;

	state_put_bytes(&text, "123456789", 9);
	snapshot_end(&text);
	ck_assert_uint_eq(text.size, 9 + 8);
	sum = (struct state_reader){ .at = text.data + 9, .left = 8 };
	ck_assert_uint_eq(state_get_u64(&sum), UINT64_C(0x995dc9bbdf1939fa));
	state_writer_free(&text);
}
END_TEST

START_TEST(header_is_as_documented)
{
	static const uint8_t expected[HEADER] = "MOTESNAP\1\0\0\0\x3e\0\0";

	ck_assert_mem_eq(file.data, expected, HEADER);
}
END_TEST

START_TEST(sections_are_read_in_their_order)
{
	struct state_reader sections;
	struct state_section section;
	uint8_t bytes[3];

	ck_assert_int_eq(check(&sections, false), 0);
	ck_assert_int_eq(snapshot_next(&sections, SNAPSHOT_CONFIG, 2, &section, &err), 0);
	ck_assert_uint_eq(section.version, 2);
	ck_assert_uint_eq(section.body.left, 2);
	ck_assert_int_eq(snapshot_done(&section, &err), -EINVAL);
	assert_contains(err.text, "kind 1 has another length");
	/* An older one is read by whoever knows a later one. */
	ck_assert_int_eq(snapshot_next(&sections, SNAPSHOT_MACHINE, 7, &section, &err), 0);
	ck_assert_uint_eq(section.version, 1);
	state_get_bytes(&section.body, bytes, sizeof(bytes));
	ck_assert_mem_eq(bytes, "abc", 3);
	ck_assert_int_eq(snapshot_done(&section, &err), 0);
	ck_assert_uint_eq(sections.left, 0);
	ck_assert_int_eq(snapshot_next(&sections, SNAPSHOT_MEMORY, 1, &section, &err), -EINVAL);
	assert_contains(err.text, "kind 3 is missing");
}
END_TEST

/* A reader that went past the end of its section is not done, though nothing is left. */
START_TEST(section_that_is_too_short_is_not_done)
{
	struct state_reader sections;
	struct state_section section;

	ck_assert_int_eq(check(&sections, false), 0);
	ck_assert_int_eq(snapshot_next(&sections, SNAPSHOT_CONFIG, 2, &section, &err), 0);
	ck_assert_uint_eq(state_get_u16(&section.body), '{' | '}' << 8);
	ck_assert_int_eq(snapshot_done(&section, &err), 0);
	(void)state_get_u8(&section.body);
	ck_assert_int_eq(snapshot_done(&section, &err), -EINVAL);
}
END_TEST

START_TEST(other_section_is_refused)
{
	struct state_reader sections;
	struct state_section section;

	ck_assert_int_eq(check(&sections, false), 0);
	ck_assert_int_eq(snapshot_next(&sections, SNAPSHOT_MACHINE, 1, &section, &err), -EINVAL);
	assert_contains(err.text, "a section of kind 1 is where one of kind 2 is expected");
}
END_TEST

START_TEST(later_section_is_refused)
{
	struct state_reader sections;
	struct state_section section;

	ck_assert_int_eq(check(&sections, false), 0);
	ck_assert_int_eq(snapshot_next(&sections, SNAPSHOT_CONFIG, 1, &section, &err), -ENOTSUP);
	assert_contains(err.text, "kind 1 has the version 2, and 1 is the latest");
}
END_TEST

START_TEST(section_without_a_version_is_refused)
{
	struct state_reader sections;
	struct state_section section;

	file.data[HEADER + 4] = 0;
	ck_assert_int_eq(check(&sections, true), 0);
	ck_assert_int_eq(snapshot_next(&sections, SNAPSHOT_CONFIG, 2, &section, &err), -ENOTSUP);
	assert_contains(err.text, "the version 0");
}
END_TEST

/* The checksum's bytes lie after the sections, and belong to none of them. */
START_TEST(section_that_is_longer_than_the_rest_is_missing)
{
	struct state_reader sections;
	struct state_section section;

	file.data[HEADER + 8] = 2 + 16 + 3 + 1;
	ck_assert_int_eq(check(&sections, true), 0);
	ck_assert_int_eq(snapshot_next(&sections, SNAPSHOT_CONFIG, 2, &section, &err), -EINVAL);
	assert_contains(err.text, "kind 1 is missing");
	memset(file.data + HEADER + 8, 0xff, 8);
	ck_assert_int_eq(check(&sections, true), 0);
	ck_assert_int_eq(snapshot_next(&sections, SNAPSHOT_CONFIG, 2, &section, &err), -EINVAL);
}
END_TEST

START_TEST(other_magic_is_refused)
{
	struct state_reader sections;

	for (size_t i = 0; i < AT_VERSION; i++) {
		file.data[i] ^= 1;
		ck_assert_int_eq(check(&sections, true), -EINVAL);
		ck_assert_str_eq(err.text, "not a snapshot's state");
		file.data[i] ^= 1;
	}
}
END_TEST

START_TEST(other_version_is_refused)
{
	struct state_reader sections;

	for (uint8_t version = 0; version < 4; version += 2) {
		file.data[AT_VERSION] = version;
		ck_assert_int_eq(check(&sections, true), -ENOTSUP);
		assert_contains(err.text, "its format has the version");
	}
	file.data[AT_VERSION] = 1;
	file.data[AT_VERSION + 3] = 1;
	ck_assert_int_eq(check(&sections, true), -ENOTSUP);
	assert_contains(err.text, "16777217");
}
END_TEST

START_TEST(other_architecture_is_refused)
{
	struct state_reader sections;

	file.data[AT_MACHINE] = EM_AARCH64;
	ck_assert_int_eq(check(&sections, true), -ENOTSUP);
	assert_contains(err.text, "another architecture (ELF machine 183)");
}
END_TEST

START_TEST(each_bit_counts)
{
	struct state_reader sections;

	for (size_t bit = 0; bit < file.size * 8; bit++) {
		file.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		ck_assert_int_lt(check(&sections, false), 0);
		ck_assert(err.text[0] != '\0');
		file.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	ck_assert_int_eq(check(&sections, false), 0);
}
END_TEST

START_TEST(file_that_is_cut_off_is_refused)
{
	for (size_t size = 0; size < file.size; size++) {
		struct state_reader sections;
		/* A copy of that size: the address sanitizer sees what is beyond it. */
		uint8_t *copy = malloc(size + 1);

		ck_assert_ptr_nonnull(copy);
		memcpy(copy + 1, file.data, size);
		err.text[0] = '\0';
		ck_assert_int_eq(snapshot_check(copy + 1, size, &sections, &err), -EINVAL);
		assert_contains(err.text, size < HEADER	      ? "not a snapshot's state"
					  : size < HEADER + 8 ? "cut off"
							      : "damaged");
		free(copy);
	}
}
END_TEST

START_TEST(file_that_goes_on_is_refused)
{
	struct state_reader sections;

	state_put_u8(&file, 0);
	ck_assert_int_eq(snapshot_check(file.data, file.size, &sections, &err), -EINVAL);
	assert_contains(err.text, "its checksum is another");
}
END_TEST

/* What has no room is no file, not even one with a good checksum. */
START_TEST(file_that_is_too_large_has_no_checksum)
{
	static uint8_t block[1 << 20];
	size_t size;

	while (!file.failed)
		state_put_bytes(&file, block, sizeof(block));
	size = file.size;
	snapshot_end(&file);
	ck_assert(file.failed);
	ck_assert_uint_eq(file.size, size);
}
END_TEST

Suite *snapshot_format_suite(void)
{
	return SUITE("snapshot_format", set_up, tear_down, checksum_is_crc_64_xz,
		     header_is_as_documented, sections_are_read_in_their_order,
		     section_that_is_too_short_is_not_done, other_section_is_refused,
		     later_section_is_refused, section_without_a_version_is_refused,
		     section_that_is_longer_than_the_rest_is_missing, other_magic_is_refused,
		     other_version_is_refused, other_architecture_is_refused, each_bit_counts,
		     file_that_is_cut_off_is_refused, file_that_goes_on_is_refused,
		     file_that_is_too_large_has_no_checksum);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "vmm/boot/aml.h"

#include "tests/unit/suites.h"
#include "tests/unit/support.h"

static uint8_t buffer[256];

static struct aml writer(size_t size)
{
	memset(buffer, 0xee, sizeof(buffer));
	return (struct aml){ .bytes = buffer, .size = size };
}

static void write_device(struct aml *aml)
{
	static const uint8_t values[] = { 1, 2 };
	struct aml_package scope = aml_scope_begin(aml, "_SB_");
	struct aml_package device = aml_device_begin(aml, "COM1");
	struct aml_resources resources;

	aml_name_eisa_id(aml, "_HID", "PNP0501");
	aml_name_integer(aml, "_UID", 0x12345);
	aml_name_package(aml, "PKG_", values, sizeof(values));
	resources = aml_resources_begin(aml);
	aml_resource_io(aml, 0x3f8, 8);
	aml_resource_interrupt(aml, 4);
	aml_resources_end(aml, resources);
	aml_end(aml, device);
	aml_end(aml, scope);
}

static const struct {
	uint32_t value;
	uint8_t bytes[5];
	size_t size;
} integers[] = {
	{ 0, { 0x0a, 0 }, 2 },
	{ 0xff, { 0x0a, 0xff }, 2 },
	{ 0x100, { 0x0b, 0x00, 0x01 }, 3 },
	{ 0xffff, { 0x0b, 0xff, 0xff }, 3 },
	{ 0x10000, { 0x0c, 0x00, 0x00, 0x01, 0x00 }, 5 },
	{ UINT32_MAX, { 0x0c, 0xff, 0xff, 0xff, 0xff }, 5 },
};

START_TEST(integer_takes_the_prefix_of_its_size)
{
	struct aml aml = writer(sizeof(buffer));

	aml_name_integer(&aml, "NAME", integers[_i].value);
	ck_assert_mem_eq(buffer, "\x08NAME", 5);
	ck_assert_uint_eq(aml.used, 5 + integers[_i].size);
	ck_assert_mem_eq(buffer + 5, integers[_i].bytes, integers[_i].size);
}
END_TEST

START_TEST(eisa_id_is_packed)
{
	static const uint8_t expected[] = { 0x0c, 0x41, 0xd0, 0x05, 0x01 };
	struct aml aml = writer(sizeof(buffer));

	aml_name_eisa_id(&aml, "_HID", "PNP0501");
	ck_assert_mem_eq(buffer + 5, expected, sizeof(expected));
}
END_TEST

START_TEST(package_length_counts_itself_and_what_follows)
{
	struct aml aml = writer(sizeof(buffer));
	struct aml_package scope = aml_scope_begin(&aml, "_SB_");
	size_t length;

	aml_name_integer(&aml, "NAME", 1);
	aml_end(&aml, scope);
	length = (buffer[1] & 0xfu) | (size_t)buffer[2] << 4 | (size_t)buffer[3] << 12;
	ck_assert_uint_eq(buffer[1] >> 6, 2);
	ck_assert_uint_eq(length, aml.used - 1);
}
END_TEST

START_TEST(buffer_of_the_right_size_is_enough)
{
	struct aml aml = writer(sizeof(buffer));
	size_t needed;

	write_device(&aml);
	needed = aml.used;
	aml = writer(needed);
	write_device(&aml);
	ck_assert(!aml.overflow);
}
END_TEST

START_TEST(smaller_buffer_overflows_without_being_left)
{
	struct aml aml = writer(sizeof(buffer));
	size_t needed;

	write_device(&aml);
	needed = aml.used;
	for (size_t size = 0; size < needed; size++) {
		aml = writer(size);
		write_device(&aml);
		ck_assert(aml.overflow);
		ck_assert_uint_le(aml.used, size);
		ck_assert(all_bytes(buffer + size, sizeof(buffer) - size, 0xee));
	}
}
END_TEST

Suite *aml_suite(void)
{
	Suite *suite = SUITE(
		"aml", NULL, NULL, eisa_id_is_packed, package_length_counts_itself_and_what_follows,
		buffer_of_the_right_size_is_enough, smaller_buffer_overflows_without_being_left);

	add_table_test(suite, NULL, NULL, integer_takes_the_prefix_of_its_size,
		       ARRAY_SIZE(integers));
	return suite;
}

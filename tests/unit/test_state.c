/* SPDX-License-Identifier: Apache-2.0 */
#include "base/state.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/suites.h"
#include "tests/unit/support.h"

static struct state_writer writer;

static void setup(void)
{
	writer = (struct state_writer){ 0 };
}

static void teardown(void)
{
	state_writer_free(&writer);
}

static struct state_reader written(void)
{
	ck_assert(!writer.failed);
	return (struct state_reader){ .at = writer.data, .left = writer.size };
}

START_TEST(numbers_are_little_endian)
{
	static const uint8_t expected[] = { 0x01, 0x03, 0x02, 0x07, 0x06, 0x05, 0x04, 0x0f,
					    0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 0x09, 0x08, 0x01 };

	state_put_u8(&writer, 0x01);
	state_put_u16(&writer, 0x0203);
	state_put_u32(&writer, 0x04050607);
	state_put_u64(&writer, 0x08090a0b0c0d0e0f);
	state_put_bool(&writer, true);
	ck_assert_uint_eq(writer.size, sizeof(expected));
	ck_assert_mem_eq(writer.data, expected, sizeof(expected));

	struct state_reader reader = written();

	ck_assert_uint_eq(state_get_u8(&reader), 0x01);
	ck_assert_uint_eq(state_get_u16(&reader), 0x0203);
	ck_assert_uint_eq(state_get_u32(&reader), 0x04050607);
	ck_assert_uint_eq(state_get_u64(&reader), 0x08090a0b0c0d0e0f);
	ck_assert(!state_is_done(&reader));
	ck_assert(state_get_bool(&reader));
	ck_assert(state_is_done(&reader));
}
END_TEST

START_TEST(nothing_is_read_past_the_end)
{
	state_put_u32(&writer, UINT32_MAX);
	for (size_t size = 0; size < 4; size++) {
		struct state_reader reader = { .at = writer.data, .left = size };
		uint8_t bytes[4] = { 1, 2, 3, 4 };

		ck_assert_uint_eq(state_get_u32(&reader), 0);
		ck_assert(reader.failed);
		/* And nothing ever after. */
		state_get_bytes(&reader, bytes, 1);
		ck_assert_uint_eq(bytes[0], 0);
		ck_assert_uint_eq(state_get_u8(&reader), 0);
	}
}
END_TEST

START_TEST(truth_is_0_or_1)
{
	struct state_reader reader;

	state_put_u8(&writer, 2);
	reader = written();
	ck_assert(!state_get_bool(&reader));
	ck_assert(reader.failed);
}
END_TEST

START_TEST(texts_have_their_size)
{
	struct state_reader reader;
	char text[6];

	state_put_text(&writer, "drive");
	state_put_text(&writer, NULL);
	reader = written();
	state_get_text(&reader, text, sizeof(text));
	ck_assert_str_eq(text, "drive");
	state_get_text(&reader, text, sizeof(text));
	ck_assert_str_eq(text, "");
	ck_assert(state_is_done(&reader));

	/* Without room for the zero at its end; */
	reader = written();
	state_get_text(&reader, text, 5);
	ck_assert(reader.failed);
	ck_assert_str_eq(text, "");
	/* with one inside; */
	writer.data[6] = '\0';
	reader = written();
	state_get_text(&reader, text, sizeof(text));
	ck_assert(reader.failed);
	/* longer than what is there. */
	writer.data[0] = 200;
	reader = written();
	char large[300];

	state_get_text(&reader, large, sizeof(large));
	ck_assert(reader.failed);
}
END_TEST

START_TEST(sections_stand_in_sections)
{
	size_t outer = state_begin(&writer, 7, 1), inner;
	struct state_section section, within;
	struct state_reader reader;

	state_put_u8(&writer, 42);
	inner = state_begin(&writer, 8, 3);
	state_put_u16(&writer, 0x1234);
	state_end(&writer, inner);
	state_end(&writer, outer);
	state_end(&writer, state_begin(&writer, 9, 2));

	reader = written();
	ck_assert(state_next(&reader, &section));
	ck_assert_uint_eq(section.kind, 7);
	ck_assert_uint_eq(section.version, 1);
	ck_assert_uint_eq(state_get_u8(&section.body), 42);
	ck_assert(state_next(&section.body, &within));
	ck_assert_uint_eq(within.kind, 8);
	ck_assert_uint_eq(within.version, 3);
	ck_assert_uint_eq(state_get_u16(&within.body), 0x1234);
	ck_assert(state_is_done(&within.body));
	ck_assert(!state_next(&section.body, &within));
	ck_assert(state_is_done(&section.body));
	ck_assert(state_next(&reader, &section));
	ck_assert_uint_eq(section.kind, 9);
	ck_assert(state_is_done(&section.body));
	ck_assert(!state_next(&reader, &section));
	ck_assert(state_is_done(&reader));
}
END_TEST

START_TEST(cut_sections_fail)
{
	size_t begun = state_begin(&writer, 7, 1);

	state_put_u32(&writer, 5);
	state_end(&writer, begun);
	for (size_t size = 1; size < writer.size; size++) {
		struct state_reader reader = { .at = writer.data, .left = size };
		struct state_section section;

		ck_assert(!state_next(&reader, &section));
		ck_assert(reader.failed);
		ck_assert(!state_is_done(&reader));
	}
	/* A length that no file has. */
	memset(writer.data + 8, 0xff, 8);

	struct state_reader reader = written();
	struct state_section section;

	ck_assert(!state_next(&reader, &section));
	ck_assert(reader.failed);
}
END_TEST

START_TEST(size_is_limited)
{
	char *half = calloc(1, STATE_SIZE_MAX / 2);
	size_t begun = state_begin(&writer, 1, 1);

	state_put_bytes(&writer, half, STATE_SIZE_MAX / 2);
	ck_assert(!writer.failed);
	state_put_bytes(&writer, half, STATE_SIZE_MAX / 2);
	ck_assert(writer.failed);
	state_put_u8(&writer, 1);
	state_end(&writer, begun);
	ck_assert(writer.failed);
	free(half);
}
END_TEST

Suite *state_suite(void)
{
	return SUITE("state", setup, teardown, numbers_are_little_endian,
		     nothing_is_read_past_the_end, truth_is_0_or_1, texts_have_their_size,
		     sections_stand_in_sections, cut_sections_fail, size_is_limited);
}

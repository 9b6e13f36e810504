/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "host/agent_client.h"

#include <errno.h>

#include "base/err.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define FRAMES_MAX 16

static struct agent_reader reader;
static struct err err;

/* What the guest sends. */
static uint8_t stream[4 * PROTOCOL_PAYLOAD_MAX];
static size_t stream_size;

/* What came out, the payloads by their sizes and sums. */
static struct {
	uint8_t type;
	uint32_t size;
	uint32_t sum;
} frames[FRAMES_MAX];
static unsigned int frame_count;

static void restart(void)
{
	memset(&reader, 0, sizeof(reader));
	frame_count = 0;
}

static void set_up(void)
{
	restart();
	stream_size = 0;
}

static void send_bytes(const void *data, size_t size)
{
	ck_assert_uint_le(size, sizeof(stream) - stream_size);
	memcpy(stream + stream_size, data, size);
	stream_size += size;
}

static void send_text(const char *text)
{
	send_bytes(text, strlen(text));
}

static void send_header(uint8_t type, uint32_t size)
{
	uint8_t header[PROTOCOL_HEADER_SIZE];

	agent_frame_header(header, type, size);
	send_bytes(header, sizeof(header));
}

static void send_frame(uint8_t type, const char *payload)
{
	send_header(type, (uint32_t)strlen(payload));
	send_text(payload);
}

static uint32_t sum_of(const uint8_t *data, size_t size)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < size; i++)
		sum = sum * 31 + data[i];
	return sum;
}

static int take_frames(void)
{
	struct agent_frame frame;
	int rc;

	while ((rc = agent_reader_next(&reader, &frame, &err)) > 0) {
		ck_assert_uint_lt(frame_count, FRAMES_MAX);
		frames[frame_count].type = frame.type;
		frames[frame_count].size = frame.size;
		frames[frame_count++].sum = sum_of(frame.payload, frame.size);
	}
	return rc;
}

/* Hands the reader that part of the stream, as much at a time as it has room for. */
static int feed(size_t from, size_t to)
{
	int rc = 0;

	while (from < to && rc == 0) {
		size_t room;
		uint8_t *at = agent_reader_room(&reader, &room);

		ck_assert_uint_gt(room, 0);
		if (room > to - from)
			room = to - from;
		memcpy(at, stream + from, room);
		agent_reader_added(&reader, room);
		from += room;
		rc = take_frames();
	}
	return rc;
}

static int feed_all(void)
{
	return feed(0, stream_size);
}

static void assert_frame(unsigned int i, uint8_t type, const char *payload)
{
	ck_assert_uint_gt(frame_count, i);
	ck_assert_uint_eq(frames[i].type, type);
	ck_assert_uint_eq(frames[i].size, strlen(payload));
	ck_assert_uint_eq(frames[i].sum, sum_of((const uint8_t *)payload, strlen(payload)));
}

static void send_conversation(void)
{
	send_frame(PROTOCOL_STDOUT, "");
	send_frame(PROTOCOL_STDOUT, "hello\n\x13world");
	send_frame(PROTOCOL_STDERR, "oops");
	send_frame(PROTOCOL_EXIT, "{\"code\": 7}");
}

static void assert_conversation(void)
{
	ck_assert_uint_eq(frame_count, 4);
	assert_frame(0, PROTOCOL_STDOUT, "");
	assert_frame(1, PROTOCOL_STDOUT, "hello\n\x13world");
	assert_frame(2, PROTOCOL_STDERR, "oops");
	assert_frame(3, PROTOCOL_EXIT, "{\"code\": 7}");
}

START_TEST(several_frames_in_one_read)
{
	send_conversation();
	ck_assert_int_eq(feed_all(), 0);
	assert_conversation();
}
END_TEST

START_TEST(stream_may_be_split_at_every_byte)
{
	send_conversation();
	for (size_t split = 0; split <= stream_size; split++) {
		restart();
		ck_assert_int_eq(feed(0, split), 0);
		ck_assert_int_eq(feed(split, stream_size), 0);
		assert_conversation();
	}
}
END_TEST

START_TEST(stream_may_come_byte_by_byte)
{
	send_conversation();
	for (size_t i = 0; i < stream_size; i++)
		ck_assert_int_eq(feed(i, i + 1), 0);
	assert_conversation();
}
END_TEST

static const uint8_t unknown_types[] = {
	0, PROTOCOL_REQUEST, PROTOCOL_WINDOW, PROTOCOL_STDOUT - 1, PROTOCOL_STARTED + 1, UINT8_MAX
};

START_TEST(type_that_is_not_the_agents_is_an_error)
{
	send_frame(PROTOCOL_STDOUT, "");
	send_frame(unknown_types[_i], "");
	ck_assert_int_eq(feed_all(), -EPROTO);
	assert_contains(err.text, "the guest's agent");
	ck_assert_uint_eq(frame_count, 1);
}
END_TEST

static const uint32_t oversizes[] = { PROTOCOL_PAYLOAD_MAX + 1, INT32_MAX, UINT32_MAX - 4,
				      UINT32_MAX };

START_TEST(oversize_length_is_an_error)
{
	send_header(PROTOCOL_STDOUT, oversizes[_i]);
	ck_assert_int_eq(feed_all(), -EPROTO);
}
END_TEST

START_TEST(error_stays)
{
	struct agent_frame frame;

	send_header(0, 0);
	ck_assert_int_eq(feed_all(), -EPROTO);
	ck_assert_int_eq(agent_reader_next(&reader, &frame, &err), -EPROTO);
}
END_TEST

START_TEST(largest_payload_fits)
{
	static uint8_t payload[PROTOCOL_PAYLOAD_MAX];

	fill_pattern(payload, sizeof(payload));
	for (int i = 0; i < 2; i++) {
		send_header(PROTOCOL_STDOUT, sizeof(payload));
		send_bytes(payload, sizeof(payload));
	}
	send_frame(PROTOCOL_EXIT, "{}");
	ck_assert_int_eq(feed_all(), 0);
	ck_assert_uint_eq(frame_count, 3);
	ck_assert_uint_eq(frames[1].size, sizeof(payload));
	ck_assert_uint_eq(frames[1].sum, sum_of(payload, sizeof(payload)));
	assert_frame(2, PROTOCOL_EXIT, "{}");
}
END_TEST

START_TEST(unfinished_frame_waits)
{
	send_header(PROTOCOL_STDOUT, 10);
	send_text("123456789");
	ck_assert_int_eq(feed_all(), 0);
	ck_assert_uint_eq(frame_count, 0);
}
END_TEST

START_TEST(header_is_type_and_little_endian_length)
{
	uint8_t header[PROTOCOL_HEADER_SIZE];

	agent_frame_header(header, PROTOCOL_STDIN, 0x0102);
	ck_assert_mem_eq(header, ((const uint8_t[]){ PROTOCOL_STDIN, 2, 1, 0, 0 }), sizeof(header));
}
END_TEST

Suite *agent_client_suite(void)
{
	Suite *suite = SUITE("agent_client", set_up, NULL, several_frames_in_one_read,
			     stream_may_be_split_at_every_byte, stream_may_come_byte_by_byte,
			     error_stays, largest_payload_fits, unfinished_frame_waits,
			     header_is_type_and_little_endian_length);

	add_table_test(suite, set_up, NULL, type_that_is_not_the_agents_is_an_error,
		       ARRAY_SIZE(unknown_types));
	add_table_test(suite, set_up, NULL, oversize_length_is_an_error, ARRAY_SIZE(oversizes));
	return suite;
}

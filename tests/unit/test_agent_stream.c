/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's side of its protocol: its streams, and what it makes of an exec request. */
#include "base/array.h"
#include "guest/stream.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest/failure.h"
#include "guest/program.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

static struct stream stream;
static int client;

static void set_up(void)
{
	int ends[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
	stream_open(&stream, ends[0]);
	client = ends[1];
}

static void tear_down(void)
{
	stream_close(&stream);
	close(client);
}

static void send_bytes(const void *data, size_t size)
{
	ck_assert_int_eq(write(client, data, size), (ssize_t)size);
}

START_TEST(frame_is_seen_when_it_is_whole)
{
	static const char frame[] = "\x01\x03\x00\x00\x00"
				    "abc";

	for (size_t i = 0; i < sizeof(frame) - 1; i++) {
		ck_assert_int_eq(stream_frame(&stream), 0);
		send_bytes(frame + i, 1);
		ck_assert(stream_receive(&stream));
	}
	ck_assert_int_eq(stream_frame(&stream), 8);
	send_bytes(frame, sizeof(frame) - 1);
	ck_assert(stream_receive(&stream));
	stream_drop(&stream, 8);
	ck_assert_int_eq(stream_frame(&stream), 8);
	ck_assert_mem_eq(stream.in, frame, 8);
}
END_TEST

START_TEST(nothing_to_read_is_no_end)
{
	ck_assert(stream_receive(&stream));
	shutdown(client, SHUT_WR);
	ck_assert(!stream_receive(&stream));
}
END_TEST

START_TEST(oversize_frame_is_refused)
{
	send_bytes("\x02\x01\x00\x01\x00", 5);
	ck_assert(stream_receive(&stream));
	ck_assert_int_eq(stream_frame(&stream), -EPROTO);
}
END_TEST

START_TEST(client_that_does_not_read_fills_the_buffer_and_no_more)
{
	size_t room, total = 0;
	uint8_t *at;

	while ((at = stream_room(&stream, &room)) != NULL) {
		ck_assert_uint_gt(room, 0);
		ck_assert_uint_le(room, PROTOCOL_PAYLOAD_MAX);
		memset(at, 'x', room);
		stream_add(&stream, PROTOCOL_STDOUT, room);
		total += room + PROTOCOL_HEADER_SIZE;
		ck_assert(stream_flush(&stream));
		ck_assert_uint_lt(total, 16 << 20);
	}
	ck_assert(stream_pending(&stream));
	/* The end of the program can still be told. */
	ck_assert(stream_send(&stream, PROTOCOL_EXIT, "{}", 2));
	while (total > 0) {
		static char data[65536];
		ssize_t n = read(client, data, sizeof(data));

		if (n > 0)
			total = total > (size_t)n ? total - (size_t)n : 0;
		ck_assert(stream_flush(&stream));
	}
	ck_assert(!stream_pending(&stream));
	ck_assert(stream_room(&stream, &room) != NULL);
}
END_TEST

START_TEST(small_frames_without_end_are_refused_at_last)
{
	unsigned int count = 0;

	while (stream_send(&stream, PROTOCOL_TAKEN, "1234", 4))
		count++;
	ck_assert_uint_eq(count, sizeof(stream.out) / 9);
}
END_TEST

START_TEST(client_that_has_left_is_noticed)
{
	ck_assert(stream_send(&stream, PROTOCOL_EXIT, "{}", 2));
	shutdown(client, SHUT_RDWR);
	ck_assert(!stream_flush(&stream));
}
END_TEST

START_TEST(failure_is_json)
{
	struct failure failure;
	char text[128] = "";

	failure_sys(&failure, ENOENT, "%s", "a \"b\"");
	ck_assert(stream_send_failure(&stream, &failure));
	ck_assert(stream_flush(&stream));
	ck_assert_int_gt(read(client, text, sizeof(text) - 1), PROTOCOL_HEADER_SIZE);
	ck_assert_int_eq(text[0], PROTOCOL_ERROR);
	ck_assert_str_eq(text + PROTOCOL_HEADER_SIZE,
			 "{\"error\":\"a \\\"b\\\": No such file or directory\",\"status\":125}");
}
END_TEST

static const struct {
	const char *json;
	const char *error; /* part of it; NULL: taken */
} requests[] = {
	{ "{\"argv\": [\"true\"]}", NULL },
	{ "{\"argv\": [\"a\", \"b\"], \"env\": [\"A=b\"], \"cwd\": \"/tmp\", \"timeout_ms\": 5, "
	  "\"keep\": true, \"stdin\": false, \"tty\": {\"rows\": 1, \"columns\": 2}}",
	  NULL },
	{ "{\"argv\": [\"a\"], \"tty\": true}", NULL },
	{ "{\"argv\": [\"a\"], \"tty\": false}", NULL },
	{ "{\"argv\": [\"a\"], \"user\": \"0:0\"}", NULL },
	{ "{}", "argv" },
	{ "[]", "exec" },
	{ "{\"argv\": []}", "argv" },
	{ "{\"argv\": \"true\"}", "argv" },
	{ "{\"argv\": [1]}", "argv" },
	{ "{\"argv\": [\"a\"], \"env\": {}}", "env" },
	{ "{\"argv\": [\"a\"], \"env\": [null]}", "env" },
	{ "{\"argv\": [\"a\"], \"cwd\": 1}", "exec" },
	{ "{\"argv\": [\"a\"], \"timeout_ms\": -1}", "timeout_ms" },
	{ "{\"argv\": [\"a\"], \"timeout_ms\": 9223372036854775807}", "timeout_ms" },
	{ "{\"argv\": [\"a\"], \"tty\": {\"rows\": 1, \"depth\": 2}}", "tty" },
	{ "{\"argv\": [\"a\"], \"other\": 1}", "other" },
	{ "{\"argv\": [\"a\"], \"user\": \"no such user\"}", "no such user" },
	{ "{\"argv\": [\"a\"], \"user\": \"0:no such group\"}", "no such group" },
	{ "{\"argv\": [\"a\"], \"user\": \"4294967295\"}", "4294967295" },
};

START_TEST(exec_request)
{
	struct failure failure = { .text = "" };
	struct program program;
	json_t *exec = json_loads(requests[_i].json, 0, NULL);
	int rc;

	ck_assert_ptr_nonnull(exec);
	rc = program_parse(&program, exec, &failure);
	json_decref(exec);
	ck_assert_int_eq(rc, requests[_i].error ? -1 : 0);
	if (requests[_i].error)
		assert_contains(failure.text, requests[_i].error);
}
END_TEST

Suite *agent_stream_suite(void)
{
	Suite *suite = SUITE("agent_stream", set_up, tear_down, frame_is_seen_when_it_is_whole,
			     nothing_to_read_is_no_end, oversize_frame_is_refused,
			     client_that_does_not_read_fills_the_buffer_and_no_more,
			     small_frames_without_end_are_refused_at_last,
			     client_that_has_left_is_noticed, failure_is_json);

	add_table_test(suite, NULL, NULL, exec_request, ARRAY_SIZE(requests));
	return suite;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "host/api_reader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
#define JSON "Content-Type: application/json\r\n"

static struct api_reader reader;
static struct api_answer answer;
static struct err err;

/* What the sink was given. */
static char sunk[256];
static size_t sunk_len;
static int sink_rc;

static int sink(void *opaque, const char *data, size_t len, struct err *cause)
{
	ck_assert_ptr_eq(opaque, sunk);
	ck_assert_uint_le(len, sizeof(sunk) - sunk_len);
	memcpy(sunk + sunk_len, data, len);
	sunk_len += len;
	return sink_rc < 0 ? err_set(cause, -sink_rc, "the sink is full") : 0;
}

static void start(api_sink *to)
{
	api_answer_free(&answer);
	api_reader_start(&reader, &answer, to, sunk);
	sunk_len = 0;
	sink_rc = 0;
}

static void set_up(void)
{
	start(NULL);
}

static void tear_down(void)
{
	api_answer_free(&answer);
}

static int feed(const char *text)
{
	return api_reader_feed(&reader, text, strlen(text), &err);
}

static void assert_body(const char *text)
{
	ck_assert_uint_eq(answer.body_len, strlen(text));
	ck_assert_str_eq(answer.body, text);
}

START_TEST(answer_may_be_split_at_every_byte)
{
	static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n" CHUNKED
				   "content-TYPE: application/json\r\nX: y\r\n\r\n"
				   "3\r\n{\"a\r\n5;x=y\r\n\": 1}\r\n0\r\nContent-Type: z\r\n\r\n";

	for (size_t split = 0; split < sizeof(text) - 1; split++) {
		start(sink);
		ck_assert_int_eq(api_reader_feed(&reader, text, split, &err), 0);
		ck_assert_int_eq(feed(text + split), 1);
		ck_assert_uint_eq(answer.status, 200);
		ck_assert_str_eq(answer.type, "application/json");
		assert_body("{\"a\": 1}");
		ck_assert(!answer.streamed && sunk_len == 0);
		ck_assert(api_reader_keeps_alive(&reader));
	}
}
END_TEST

START_TEST(answer_may_come_byte_by_byte)
{
	static const char text[] =
		"HTTP/1.1 400 Bad Request\r\n" JSON "Content-Length: 2\r\n\r\n{}";

	for (size_t i = 0; i < sizeof(text) - 1; i++)
		ck_assert_int_eq(api_reader_feed(&reader, text + i, 1, &err),
				 i == sizeof(text) - 2);
	ck_assert_uint_eq(answer.status, 400);
	assert_body("{}");
}
END_TEST

START_TEST(answer_without_a_body)
{
	ck_assert_int_eq(feed("HTTP/1.1 204 No Content\r\nServer: mote\r\n\r\n"), 1);
	ck_assert_uint_eq(answer.status, 204);
	ck_assert_ptr_null(answer.body);
	ck_assert(api_reader_keeps_alive(&reader));
}
END_TEST

START_TEST(what_follows_the_answer_ends_the_connection)
{
	ck_assert_int_eq(feed("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n"), 1);
	ck_assert_uint_eq(answer.status, 204);
	ck_assert(!api_reader_keeps_alive(&reader));
}
END_TEST

START_TEST(server_may_close_after_the_answer)
{
	ck_assert_int_eq(
		feed("HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx"), 1);
	ck_assert(!api_reader_keeps_alive(&reader));
}
END_TEST

START_TEST(answer_may_end_with_the_connection)
{
	ck_assert_int_eq(feed("HTTP/1.0 200 OK\r\n\r\nall there is"), 0);
	ck_assert_int_eq(api_reader_end(&reader, &err), 1);
	assert_body("all there is");
	ck_assert(!api_reader_keeps_alive(&reader));
}
END_TEST

START_TEST(stream_goes_to_the_sink_as_it_comes)
{
	start(sink);
	ck_assert_int_eq(feed(CHUNKED "Content-Type: application/x-ndjson\r\n\r\n2\r\nab\r\n"), 0);
	ck_assert(answer.streamed && sunk_len == 2);
	ck_assert_int_eq(feed("3\r\ncde\r\n"), 0);
	ck_assert_uint_eq(sunk_len, 5);
	ck_assert_int_eq(feed("0\r\n\r\n"), 1);
	ck_assert_mem_eq(sunk, "abcde", 5);
	ck_assert_ptr_null(answer.body);
}
END_TEST

START_TEST(refusal_is_no_stream)
{
	start(sink);
	ck_assert_int_eq(feed("HTTP/1.1 400 No\r\nContent-Type: text/plain\r\n"
			      "Content-Length: 2\r\n\r\nno"),
			 1);
	ck_assert(!answer.streamed && sunk_len == 0);
	assert_body("no");
}
END_TEST

START_TEST(sink_that_fails_ends_it)
{
	start(sink);
	sink_rc = -ENOSPC;
	ck_assert_int_eq(feed("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"), -ENOSPC);
	ck_assert_str_eq(err.text, "the sink is full");
	sink_rc = 0;
	ck_assert_int_eq(feed("cd"), -ENOSPC);
	ck_assert_int_eq(api_reader_end(&reader, &err), -ENOSPC);
}
END_TEST

static const char *const junk[] = {
	"\x16\x03\x01\x02",
	"SSH-2.0-OpenSSH_9.2\r\n",
	"GET / HTTP/1.1\r\n\r\n",
	"HTTP/2.0 200 OK\r\n\r\n",
	"HTTP/1.1 20x OK\r\n\r\n",
	"HTTP/1.1 99999 OK\r\n\r\n",
	"HTTP/1.1 099 OK\r\n\r\n",
	"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
	"HTTP/1.1 101 Switching Protocols\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
	CHUNKED "\r\nxyz\r\n",
	CHUNKED "\r\nffffffffffffffffff\r\n",
};

START_TEST(junk_is_an_error_that_stays)
{
	ck_assert_int_eq(feed(junk[_i]), -EPROTO);
	assert_contains(err.text, "no answer in HTTP/1.1");
	ck_assert_int_eq(feed("HTTP/1.1 204 No Content\r\n\r\n"), -EPROTO);
	ck_assert_int_eq(api_reader_end(&reader, &err), -EPROTO);
	ck_assert(!api_reader_keeps_alive(&reader));
}
END_TEST

static const struct {
	const char *text;
	const char *says;
} cut[] = {
	{ "", "ended without an answer" },
	{ "HTTP/1.1 2", "ended without an answer" },
	{ "HTTP/1.1 200 OK\r\nContent-Le", "ended without an answer" },
	{ "HTTP/1.1 100 Continue\r\n\r\n", "ended without an answer" },
	{ "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{", "in the middle" },
	{ CHUNKED "\r\n5\r\nab", "in the middle" },
	{ CHUNKED "\r\n2\r\nab\r\n", "in the middle" },
	{ CHUNKED "\r\n2\r\nab\r\n0\r\n", "in the middle" },
};

START_TEST(cut_answer_is_an_error)
{
	ck_assert_int_eq(feed(cut[_i].text), 0);
	ck_assert_int_eq(api_reader_end(&reader, &err), -EPROTO);
	assert_contains(err.text, cut[_i].says);
}
END_TEST

START_TEST(huge_body_is_refused_and_not_kept)
{
	static char part[1 << 20];
	int rc = feed("HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n");

	for (int i = 0; rc == 0; i++) {
		ck_assert_int_le(i, API_BODY_MAX / (int)sizeof(part));
		rc = api_reader_feed(&reader, part, sizeof(part), &err);
	}
	ck_assert_int_eq(rc, -EFBIG);
	ck_assert_uint_le(answer.body_len, API_BODY_MAX);
	assert_contains(err.text, "more than 16 MiB");
}
END_TEST

START_TEST(endless_header_is_refused)
{
	int rc = feed("HTTP/1.1 200 OK\r\n");

	for (int i = 0; rc == 0 && i < 100000; i++)
		rc = feed("X-Some-Field: with some value\r\n");
	ck_assert_int_eq(rc, -EPROTO);
}
END_TEST

START_TEST(long_names_and_types_are_cut)
{
	char text[1024];

	snprintf(text, sizeof(text),
		 "HTTP/1.1 200 OK\r\nContent-Types: no\r\nContent-Typ: no\r\n"
		 "Content-Type: %0200d\r\nContent-Length: 0\r\n\r\n",
		 0);
	ck_assert_int_eq(feed(text), 1);
	ck_assert_uint_eq(strlen(answer.type), API_TYPE_SIZE - 1);
}
END_TEST

static const struct {
	const char *type;
	bool json;
} types[] = {
	{ "application/json", true },
	{ "Application/JSON; charset=utf-8", true },
	{ "application/json-lines", false },
	{ "application/x-ndjson", false },
	{ "", false },
};

START_TEST(type_of_json)
{
	strcpy(answer.type, types[_i].type);
	ck_assert_int_eq(api_answer_is_json(&answer), types[_i].json);
}
END_TEST

static const struct {
	unsigned int status;
	const char *body;
	const char *says; /* NULL: nothing */
} checks[] = {
	{ 200, NULL, NULL },
	{ 204, NULL, NULL },
	{ 400, "{\"fault_message\": \"drive a: gone\"}", "PUT /drives/a: drive a: gone" },
	{ 400, "{\"fault_message\": \"PUT /drives/a: gone\"}", "PUT /drives/a: gone" },
	{ 413, "{\"error\": \"the body is too large\"}", "PUT /drives/a: the body is too large" },
	{ 400, "{\"fault_message\": \"a\\u001b[1m\\nb\\u0000\"}",
	  "PUT /drives/a: status 400, without a reason" },
	{ 400, "{\"fault_message\": \"a\\u001b[1m\\nb\"}", "PUT /drives/a: a?[1m?b" },
	{ 500, NULL, "PUT /drives/a: status 500, without a reason" },
	{ 302, "{", "PUT /drives/a: status 302, without a reason" },
	{ 400, "{\"fault_message\": 1}", "PUT /drives/a: status 400, without a reason" },
	{ 400, "[]", "PUT /drives/a: status 400, without a reason" },
};

START_TEST(refusal_is_one_sentence)
{
	int rc;

	answer.status = checks[_i].status;
	answer.body = checks[_i].body ? strdup(checks[_i].body) : NULL;
	answer.body_len = checks[_i].body ? strlen(checks[_i].body) : 0;
	rc = api_answer_check(&answer, "PUT", "/drives/a", &err);
	ck_assert_int_eq(rc, checks[_i].says ? -EINVAL : 0);
	if (checks[_i].says)
		ck_assert_str_eq(err.text, checks[_i].says);
}
END_TEST

START_TEST(long_refusal_is_cut)
{
	static char body[4000], path[2000];

	answer.status = 400;
	memset(path, 'p', sizeof(path) - 1);
	snprintf(body, sizeof(body), "{\"fault_message\": \"%03000d\"}", 0);
	answer.body = strdup(body);
	answer.body_len = strlen(body);
	ck_assert_int_eq(api_answer_check(&answer, "PUT", path, &err), -EINVAL);
	ck_assert_uint_eq(strlen(err.text), ERR_TEXT_SIZE - 1);
}
END_TEST

Suite *api_reader_suite(void)
{
	Suite *suite = SUITE(
		"api_reader", set_up, tear_down, answer_may_be_split_at_every_byte,
		answer_may_come_byte_by_byte, answer_without_a_body,
		what_follows_the_answer_ends_the_connection, server_may_close_after_the_answer,
		answer_may_end_with_the_connection, stream_goes_to_the_sink_as_it_comes,
		refusal_is_no_stream, sink_that_fails_ends_it, huge_body_is_refused_and_not_kept,
		endless_header_is_refused, long_names_and_types_are_cut, long_refusal_is_cut);

	add_table_test(suite, set_up, tear_down, junk_is_an_error_that_stays, ARRAY_SIZE(junk));
	add_table_test(suite, set_up, tear_down, cut_answer_is_an_error, ARRAY_SIZE(cut));
	add_table_test(suite, set_up, tear_down, type_of_json, ARRAY_SIZE(types));
	add_table_test(suite, set_up, tear_down, refusal_is_one_sentence, ARRAY_SIZE(checks));
	return suite;
}

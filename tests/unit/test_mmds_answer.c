/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "mmds/answer.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "mmds/mmds.h"
#include "mmds/store.h"
#include "mmds/token.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define SECOND INT64_C(1000000000)
#define TTL "X-metadata-token-ttl-seconds: "
#define EC2_TTL "X-aws-ec2-metadata-token-ttl-seconds: "

static struct mmds *mmds;
static struct answer answer;
static struct err err;
static int64_t now = 1000 * SECOND;

static void set_up(void)
{
	json_t *data = json_loads("{\"a\": {\"b\": \"text\", \"n\": 7}, \"l\": [\"x\"]}", 0, NULL);

	ck_assert_int_eq(mmds_open(&mmds, MMDS_SIZE_LIMIT, &err), 0);
	ck_assert_int_eq(mmds_put(mmds, data, &err), 0);
	json_decref(data);
}

static void tear_down(void)
{
	answer_free(mmds, &answer);
	mmds_close(mmds);
}

/* The status; the whole answer is in `answer`, with a zero behind it. */
static unsigned int ask(const char *request)
{
	unsigned int status;
	size_t size = strlen(request);
	char *copy = malloc(size); /* the bytes end where the request does */

	answer_free(mmds, &answer);
	memcpy(copy, request, size);
	ck_assert_uint_eq(answer_request_size(copy, size), size);
	ck_assert_int_eq(answer_make(mmds, copy, size, now, &answer), 0);
	free(copy);
	answer.text = realloc(answer.text, answer.size + 1);
	answer.text[answer.size] = '\0';
	ck_assert_int_eq(sscanf(answer.text, "HTTP/1.%*u %u ", &status), 1);
	return status;
}

static const char *body(void)
{
	return strstr(answer.text, "\r\n\r\n") + 4;
}

/* A GET's end, with one more field. */
#define END "\r\n\r\n"
#define PUT_TOKEN "PUT /latest/api/token HTTP/1.1\r\n"

static const struct {
	const char *request;
	unsigned int status;
	const char *says[3]; /* parts of the answer */
} requests[] = {
	{ "GET / HTTP/1.1" END, 200, { "Content-Type: text/plain\r\n", "keep-alive", "\na/\nl" } },
	{ "GET / HTTP/1.0" END, 200, { "HTTP/1.0 200 OK", "Connection: close", "a/\nl" } },
	{ "GET / HTTP/1.1\n\n", 200, { "a/\nl" } },
	{ "GET /a/b HTTP/1.1" END, 200, { "Content-Length: 4\r\n\r\ntext" } },
	{ "GET //a//b/ HTTP/1.1" END, 200, { "text" } },
	{ "GET /a/b?x=y HTTP/1.1" END, 200, { "text" } },
	{ "GET http://169.254.169.254/a/b HTTP/1.1" END, 200, { "text" } },
	{ "GET /a HTTP/1.1\r\nAccept: application/json" END,
	  200,
	  { "Content-Type: application/json\r\n", "{\"b\":\"text\",\"n\":7}" } },
	{ "GET /a/b HTTP/1.1\r\nACCEPT: application/JSON" END, 200, { "\"text\"" } },
	{ "GET /a/n HTTP/1.1\r\nAccept: */*, application/json;q=0.5" END, 200, { "\n7" } },
	{ "GET /a/b HTTP/1.1\r\nAccept: text/plain, application/json" END, 200, { "\ntext" } },
	{ "GET /a/b HTTP/1.1\r\nAccept: */*" END, 200, { "\ntext" } },
	{ "GET /l/0 HTTP/1.1" END, 200, { "\nx" } },
	{ "GET /a/n HTTP/1.1" END, 501, { "text/plain", "strings and objects" } },
	{ "GET /l HTTP/1.1" END, 501 },
	{ "GET /b HTTP/1.1" END, 404, { "no metadata at this path" } },
	{ "GET /a/b HTTP/1.1\r\nX-metadata-token: none" END, 200, { "text" } },
	{ "GET /a/b HTTP/1.1\r\nX-Forwarded-For: a" END, 200, { "text" } },
	{ "GET /a/b HTTP/1.1\r\nConnection: close" END, 200, { "Connection: close", "text" } },
	{ "GET /a/b HTTP/1.1\r\nContent-Length: 0" END, 200, { "text" } },
	{ "HEAD / HTTP/1.1" END, 405, { "Allow: GET, PUT\r\n" } },
	{ "POST / HTTP/1.1" END, 405, { "Allow: GET, PUT\r\n", "Only GET and PUT" } },
	{ "PATCH / HTTP/1.1" END, 405 },
	{ "DELETE / HTTP/1.1" END, 405 },
	{ "OPTIONS * HTTP/1.1" END, 405 },
	{ "BREW / HTTP/1.1" END, 501, { "Connection: close" } },
	{ "GET / HTTP/2.0" END, 501 },
	{ "GET / FTP/1.1" END, 400, { "not understood" } },
	{ "GET  HTTP/1.1" END, 400 },
	{ "GET http://169.254.169.254 HTTP/1.1" END, 400 },
	{ "CONNECT a:1 HTTP/1.1" END, 400 },
	{ "GET /a/b HTTP/1.1\r\nUpgrade: h2c\r\nConnection: upgrade" END, 200, { "text" } },
	{ "GET / HTTP/1.1\r\nContent-Length: 100" END, 400, { "Connection: close" } },
	{ "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked" END, 400 },
	{ "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2" END, 400 },
	{ "\r\n\r\n", 400 },
	{ "GET / HTTP/1.1\r\n no field" END, 400 },
	{ "PUT / HTTP/1.1" END, 404, { "/latest/api/token" } },
	{ "PUT / HTTP/1.1\r\nX-Forwarded-For: a" END, 400, { "X-Forwarded-For" } },
	{ PUT_TOKEN TTL "60\r\nx-forwarded-for: a" END, 400, { "X-Forwarded-For" } },
	{ "PUT /latest/api/toke HTTP/1.1\r\n" TTL "60" END, 404 },
	{ "PUT /latest/api/token2 HTTP/1.1\r\n" TTL "60" END, 404 },
	{ "PUT //latest/api///token HTTP/1.1\r\n" TTL "60" END, 200 },
	{ PUT_TOKEN "A: b" END, 400, { "is missing" } },
	{ PUT_TOKEN TTL "0" END, 400, { "1 to 21600" } },
	{ PUT_TOKEN TTL "21601" END, 400, { "1 to 21600" } },
	{ PUT_TOKEN TTL "-1" END, 400, { "1 to 21600" } },
	{ PUT_TOKEN TTL END, 400, { "1 to 21600" } },
	{ PUT_TOKEN TTL "60x" END, 400, { "1 to 21600" } },
	{ PUT_TOKEN TTL "4294967356" END, 400, { "1 to 21600" } },
	{ PUT_TOKEN TTL "18446744073709551676" END, 400, { "1 to 21600" } },
	{ PUT_TOKEN TTL "1" END, 200, { TTL "1\r\n", "Content-Length: 48\r\n" } },
	{ PUT_TOKEN EC2_TTL "21600" END, 200, { EC2_TTL "21600\r\n" } },
};

START_TEST(request_and_answer)
{
	ck_assert_uint_eq(ask(requests[_i].request), requests[_i].status);
	for (size_t i = 0; i < ARRAY_SIZE(requests[_i].says) && requests[_i].says[i]; i++)
		assert_contains(answer.text, requests[_i].says[i]);
}
END_TEST

START_TEST(answer_to_head_has_no_body)
{
	ck_assert_uint_eq(ask("HEAD / HTTP/1.1" END), 405);
	ck_assert_str_eq(body(), "");
	ck_assert_ptr_null(strstr(answer.text, "Content-Length: 0\r\n"));
}
END_TEST

START_TEST(ec2_format_whatever_is_accepted)
{
	mmds_configure(mmds, MMDS_V1, true);
	ck_assert_uint_eq(ask("GET /a HTTP/1.1\r\nAccept: application/json" END), 200);
	ck_assert_str_eq(body(), "b\nn");
	ck_assert_uint_eq(ask("GET /a/n HTTP/1.1\r\nAccept: application/json" END), 501);
}
END_TEST

static unsigned int get_with(const char *field, const char *token)
{
	char request[512];

	snprintf(request, sizeof(request), "GET /a/b HTTP/1.1\r\n%s: %s\r\n\r\n", field, token);
	return ask(request);
}

static void fetch_token(const char *ttl_field, unsigned int ttl, char token[TOKEN_LENGTH + 1])
{
	char request[256];

	snprintf(request, sizeof(request), PUT_TOKEN "%s%u\r\n\r\n", ttl_field, ttl);
	ck_assert_uint_eq(ask(request), 200);
	ck_assert_uint_eq(strlen(body()), TOKEN_LENGTH);
	memcpy(token, body(), TOKEN_LENGTH + 1);
}

START_TEST(second_version_needs_a_token)
{
	static const char *const fields[] = { "X-metadata-token", "x-AWS-ec2-metadata-token" };
	char token[TOKEN_LENGTH + 1], other[TOKEN_LENGTH + 2];

	mmds_configure(mmds, MMDS_V2, false);
	ck_assert_uint_eq(ask("GET /a/b HTTP/1.1" END), 401);
	assert_contains(body(), "PUT /latest/api/token");
	ck_assert_uint_eq(mmds_metrics(mmds)->rx_no_token, 1);
	ck_assert_uint_eq(get_with(fields[0], "guessed"), 401);
	ck_assert_uint_eq(mmds_metrics(mmds)->rx_invalid_token, 1);
	fetch_token(_i ? EC2_TTL : TTL, 60, token);
	ck_assert_uint_eq(get_with(fields[_i], token), 200);
	ck_assert_str_eq(body(), "text");
	ck_assert_uint_eq(get_with(fields[!_i], token), 200);
	/* One character off, at the beginning or the end; too short, too long. */
	memcpy(other, token, sizeof(token));
	other[0] ^= 1;
	ck_assert_uint_eq(get_with(fields[0], other), 401);
	memcpy(other, token, sizeof(token));
	other[TOKEN_LENGTH - 1] ^= 1;
	ck_assert_uint_eq(get_with(fields[0], other), 401);
	other[TOKEN_LENGTH - 1] = '\0';
	ck_assert_uint_eq(get_with(fields[0], other), 401);
	snprintf(other, sizeof(other), "%s0", token);
	ck_assert_uint_eq(get_with(fields[0], other), 401);
	now += 60 * SECOND - 1;
	ck_assert_uint_eq(get_with(fields[0], token), 200);
	now += 1;
	ck_assert_uint_eq(get_with(fields[0], token), 401);
}
END_TEST

/* An empty place is no token. */
START_TEST(zeros_are_no_token)
{
	struct tokens tokens = { 0 };

	ck_assert(!token_valid(&tokens, "", 0));
	ck_assert(!token_valid(&tokens, "000000000000000000000000000000000000000000000000", -1));
}
END_TEST

START_TEST(first_version_counts_tokens_only)
{
	char token[TOKEN_LENGTH + 1];

	ck_assert_uint_eq(get_with("A", "b"), 200);
	ck_assert_uint_eq(get_with("X-metadata-token", "x"), 200);
	fetch_token(TTL, 60, token);
	ck_assert_uint_eq(get_with("X-metadata-token", token), 200);
	ck_assert_uint_eq(mmds_metrics(mmds)->rx_no_token, 1);
	ck_assert_uint_eq(mmds_metrics(mmds)->rx_invalid_token, 1);
}
END_TEST

/* One too many takes the place of the one that expires first. */
START_TEST(tokens_are_limited)
{
	char first[TOKEN_LENGTH + 1], next[TOKEN_LENGTH + 1], last[TOKEN_LENGTH + 1];
	struct tokens tokens = { 0 };

	ck_assert_int_eq(token_make(&tokens, 100, now, next), 0);
	ck_assert_int_eq(token_make(&tokens, 50, now, first), 0);
	for (unsigned int i = 2; i < TOKENS_MAX; i++)
		ck_assert_int_eq(token_make(&tokens, 200, now, last), 0);
	ck_assert(token_valid(&tokens, first, now));
	ck_assert_int_eq(token_make(&tokens, 200, now, last), 0);
	ck_assert(!token_valid(&tokens, first, now));
	ck_assert(token_valid(&tokens, next, now));
	ck_assert(token_valid(&tokens, last, now));
	ck_assert_str_ne(next, last);
}
END_TEST

/* Of large answers only so many wait; small ones always find room. */
START_TEST(memory_of_answers_is_limited)
{
	static char large[40001];
	struct answer held[30] = { 0 };
	unsigned int given = 0;
	json_t *data = json_object();

	memset(large, 'x', sizeof(large) - 1);
	json_object_set_new(data, "k", json_string(large));
	ck_assert_int_eq(mmds_put(mmds, data, &err), 0);
	json_decref(data);
	for (size_t i = 0; i < ARRAY_SIZE(held); i++) {
		if (ask("GET /k HTTP/1.1" END) == 200)
			given++;
		held[i] = answer;
		answer = (struct answer){ 0 };
	}
	ck_assert_uint_ge(given, 4);
	ck_assert_uint_le(given, 6);
	ck_assert_uint_eq(ask("GET /none HTTP/1.1" END), 404);
	ck_assert_uint_eq(ask("GET /k HTTP/1.1" END), 503);
	for (size_t i = 0; i < ARRAY_SIZE(held); i++)
		answer_free(mmds, &held[i]);
	ck_assert_uint_eq(ask("GET /k HTTP/1.1" END), 200);
}
END_TEST

START_TEST(requests_end_with_an_empty_line)
{
	static const char bytes[] = "GET / HTTP/1.1\r\nA: b\r\n\r\nGET";

	for (size_t size = 0; size <= 24; size++)
		ck_assert_uint_eq(answer_request_size(bytes, size), size < 24 ? 0 : 24);
	ck_assert_uint_eq(answer_request_size(bytes, sizeof(bytes)), 24);
	ck_assert_uint_eq(answer_request_size("a\n\nb", 4), 3);
	ck_assert_uint_eq(answer_request_size("\n\r", 2), 0);
}
END_TEST

/* Longer than what is kept of it: a path is not there, a token is none, all else is passed over. */
START_TEST(long_parts_are_harmless)
{
	char request[4000], part[3001];

	memset(part, 'y', sizeof(part) - 1);
	part[sizeof(part) - 1] = '\0';
	snprintf(request, sizeof(request), "GET /%s HTTP/1.1\r\n\r\n", part);
	ck_assert_uint_eq(ask(request), 404);
	snprintf(request, sizeof(request), "GET /a/b HTTP/1.1\r\n%s: c\r\n\r\n", part);
	ck_assert_uint_eq(ask(request), 200);
	snprintf(request, sizeof(request), PUT_TOKEN TTL "%s\r\n\r\n", part);
	ck_assert_uint_eq(ask(request), 400);
	mmds_configure(mmds, MMDS_V2, false);
	snprintf(request, sizeof(request), "GET /a/b HTTP/1.1\r\nX-metadata-token: %s\r\n\r\n",
		 part);
	ck_assert_uint_eq(ask(request), 401);
}
END_TEST

Suite *mmds_answer_suite(void)
{
	Suite *suite = SUITE("mmds_answer", set_up, tear_down, answer_to_head_has_no_body,
			     ec2_format_whatever_is_accepted, zeros_are_no_token,
			     first_version_counts_tokens_only, tokens_are_limited,
			     memory_of_answers_is_limited, requests_end_with_an_empty_line,
			     long_parts_are_harmless);

	add_table_test(suite, set_up, tear_down, request_and_answer, ARRAY_SIZE(requests));
	add_table_test(suite, set_up, tear_down, second_version_needs_a_token, 2);
	return suite;
}

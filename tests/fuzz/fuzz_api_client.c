/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an API's server answers. The first byte says how many bytes come at a time, and whether a
 * stream is taken; the answer may not depend on the former.
 */
#include <string.h>

#include "base/err.h"
#include "host/api_reader.h"
#include "tests/fuzz/fuzz.h"

#define INPUT_MAX 32768

struct outcome {
	struct api_answer answer;
	uint64_t hash; /* of the stream */
	size_t streamed;
	bool keeps_alive;
	int rc;
};

static int add(void *opaque, const char *data, size_t len, struct err *err)
{
	struct outcome *outcome = opaque;

	(void)err;
	for (size_t i = 0; i < len; i++)
		outcome->hash = (outcome->hash ^ (uint8_t)data[i]) * UINT64_C(0x100000001b3);
	outcome->streamed += len;
	return 0;
}

static void check(const struct outcome *outcome, const struct err *err, size_t size)
{
	const struct api_answer *answer = &outcome->answer;
	struct err refusal;

	REQUIRE(outcome->rc == 1 || (outcome->rc < 0 && memchr(err->text, '\0', ERR_TEXT_SIZE)));
	REQUIRE(memchr(answer->type, '\0', sizeof(answer->type)));
	REQUIRE(answer->body_len + outcome->streamed <= size);
	REQUIRE(!answer->body || answer->body[answer->body_len] == '\0');
	if (outcome->rc < 0)
		return;
	REQUIRE(answer->status >= 200);
	if (api_answer_check(answer, "GET", "/", &refusal) == 0)
		return;
	for (const char *at = refusal.text; *at; at++)
		REQUIRE((uint8_t)*at >= ' ' && *at != 0x7f);
}

static void feed(const uint8_t *data, size_t size, size_t part, bool stream,
		 struct outcome *outcome)
{
	const size_t all = size;
	struct api_reader reader;
	struct err err = { "" };

	memset(outcome, 0, sizeof(*outcome));
	api_reader_start(&reader, &outcome->answer, stream ? add : NULL, outcome);
	while (size > 0 && outcome->rc == 0) {
		size_t n = size < part ? size : part;

		outcome->rc = api_reader_feed(&reader, (const char *)data, n, &err);
		data += n;
		size -= n;
	}
	/* Whether more has come by then is the network's affair. */
	outcome->keeps_alive = size == 0 && api_reader_keeps_alive(&reader);
	if (outcome->rc == 0)
		outcome->rc = api_reader_end(&reader, &err);
	check(outcome, &err, all);
}

static void compare(const struct outcome *whole, const struct outcome *parts)
{
	REQUIRE(whole->answer.status == parts->answer.status);
	REQUIRE(whole->answer.streamed == parts->answer.streamed);
	REQUIRE(whole->keeps_alive == parts->keeps_alive);
	REQUIRE(strcmp(whole->answer.type, parts->answer.type) == 0);
	REQUIRE(whole->streamed == parts->streamed && whole->hash == parts->hash);
	REQUIRE(whole->answer.body_len == parts->answer.body_len);
	REQUIRE(whole->answer.body_len == 0 ||
		memcmp(whole->answer.body, parts->answer.body, whole->answer.body_len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct outcome whole, parts;
	bool stream;

	if (size < 1 || size > INPUT_MAX)
		return 0;
	stream = data[0] & 1;
	feed(data + 1, size - 1, SIZE_MAX, stream, &whole);
	feed(data + 1, size - 1, (size_t)(data[0] >> 1) + 1, stream, &parts);
	REQUIRE(whole.rc == parts.rc);
	/* How much of an answer was seen before it turned out to be none does not matter. */
	if (whole.rc == 1)
		compare(&whole, &parts);
	api_answer_free(&whole.answer);
	api_answer_free(&parts.answer);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client sends to the agent in the guest: the first byte says how many bytes come at a time;
 * the frames may not depend on it, and their payloads are taken for exec requests.
 */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest/failure.h"
#include "guest/program.h"
#include "guest/stream.h"
#include "tests/fuzz/fuzz.h"

#define INPUT_MAX (256 << 10)

struct outcome {
	uint64_t hash; /* of all frames */
	unsigned int frames;
	bool refused;
};

static void parse(const uint8_t *payload, size_t size)
{
	json_t *json = json_loadb((const char *)payload, size, JSON_REJECT_DUPLICATES, NULL);
	struct failure failure = { .text = "" };
	struct program program;

	if (json && program_parse(&program, json, &failure) < 0)
		REQUIRE(failure.text[0] && failure.status > 0);
	else if (json)
		REQUIRE(json_array_size(program.argv) > 0 && program.timeout_ms >= 0);
	json_decref(json);
}

static void take_frames(struct stream *stream, struct outcome *outcome)
{
	ssize_t size;

	while ((size = stream_frame(stream)) > 0) {
		REQUIRE((size_t)size <= stream->in_used);
		for (ssize_t i = 0; i < size; i++)
			outcome->hash = (outcome->hash ^ stream->in[i]) * UINT64_C(0x100000001b3);
		outcome->frames++;
		if (stream->in[0] == PROTOCOL_REQUEST)
			parse(stream->in + PROTOCOL_HEADER_SIZE,
			      (size_t)size - PROTOCOL_HEADER_SIZE);
		stream_drop(stream, (size_t)size);
	}
	outcome->refused = size < 0;
}

static struct outcome feed(const uint8_t *data, size_t size, size_t chunk)
{
	static struct stream stream;
	struct outcome outcome = { 0 };
	int ends[2];

	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
	stream_open(&stream, ends[0]);
	while (size > 0 && !outcome.refused) {
		ssize_t n = write(ends[1], data, size < chunk ? size : chunk);

		REQUIRE(n > 0);
		data += n;
		size -= (size_t)n;
		for (size_t before = SIZE_MAX; before != stream.in_used && !outcome.refused;) {
			before = stream.in_used;
			REQUIRE(stream_receive(&stream));
			take_frames(&stream, &outcome);
			/* A frame's end frees room for more of what waits. */
			if (stream.in_used < before)
				before = SIZE_MAX;
		}
	}
	stream_close(&stream);
	close(ends[1]);
	return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct outcome whole, parts;

	if (size < 1 || size > INPUT_MAX)
		return 0;
	whole = feed(data + 1, size - 1, 4096);
	parts = feed(data + 1, size - 1, (size_t)data[0] + 1);
	REQUIRE(whole.frames == parts.frames);
	REQUIRE(whole.hash == parts.hash);
	REQUIRE(whole.refused == parts.refused);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest's agent sends. The first byte says how many bytes come at a time; the
 * frames may not depend on it.
 */
#include <string.h>

#include "base/err.h"
#include "host/agent_client.h"
#include "tests/fuzz/fuzz.h"

struct outcome {
	uint64_t hash; /* of all frames */
	unsigned int frames;
	int rc;
};

static void add(struct outcome *outcome, const uint8_t *data, size_t size)
{
	for (size_t i = 0; i < size; i++)
		outcome->hash = (outcome->hash ^ data[i]) * UINT64_C(0x100000001b3);
}

static void take_frames(struct agent_reader *reader, struct outcome *outcome)
{
	struct agent_frame frame;
	struct err err;

	while ((outcome->rc = agent_reader_next(reader, &frame, &err)) > 0) {
		REQUIRE(frame.size <= PROTOCOL_PAYLOAD_MAX);
		REQUIRE(frame.type >= PROTOCOL_STDOUT && frame.type <= PROTOCOL_STARTED);
		add(outcome, &frame.type, 1);
		add(outcome, (const uint8_t *)&frame.size, sizeof(frame.size));
		add(outcome, frame.payload, frame.size);
		outcome->frames++;
	}
}

static struct outcome feed(const uint8_t *data, size_t size, size_t chunk)
{
	static struct agent_reader reader;
	struct outcome outcome = { 0 };

	memset(&reader, 0, sizeof(reader));
	while (size > 0 && outcome.rc == 0) {
		size_t room, n = size < chunk ? size : chunk;
		uint8_t *at = agent_reader_room(&reader, &room);

		REQUIRE(room > 0);
		if (n > room)
			n = room;
		memcpy(at, data, n);
		agent_reader_added(&reader, n);
		data += n;
		size -= n;
		take_frames(&reader, &outcome);
	}
	return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct outcome whole, parts;

	if (size < 1)
		return 0;
	whole = feed(data + 1, size - 1, SIZE_MAX);
	parts = feed(data + 1, size - 1, (size_t)data[0] + 1);
	REQUIRE(whole.frames == parts.frames);
	REQUIRE(whole.hash == parts.hash);
	REQUIRE(whole.rc == parts.rc);
	return 0;
}

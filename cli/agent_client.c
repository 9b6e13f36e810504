/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/agent_client.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"

uint8_t *agent_reader_room(struct agent_reader *reader, size_t *room)
{
	if (reader->taken > 0) {
		reader->used -= reader->taken;
		memmove(reader->buffer, reader->buffer + reader->taken, reader->used);
		reader->taken = 0;
	}
	*room = sizeof(reader->buffer) - reader->used;
	return reader->buffer + reader->used;
}

/* Drops what comes before the sync; it begins with a byte that it does not repeat. */
static void skip_to_sync(struct agent_reader *reader)
{
	static const char sync[] = PROTOCOL_SYNC;
	size_t at = 0;

	while (at < reader->used && !reader->in_sync) {
		uint8_t byte = reader->buffer[at++];

		if (byte == (uint8_t)sync[reader->matched])
			reader->matched++;
		else
			reader->matched = byte == (uint8_t)sync[0] ? 1 : 0;
		reader->in_sync = reader->matched == PROTOCOL_SYNC_SIZE;
	}
	reader->used -= at;
	memmove(reader->buffer, reader->buffer + at, reader->used);
}

void agent_reader_added(struct agent_reader *reader, size_t size)
{
	reader->used += size;
	if (!reader->in_sync)
		skip_to_sync(reader);
}

int agent_reader_next(struct agent_reader *reader, struct agent_frame *frame, struct err *err)
{
	const uint8_t *at = reader->buffer + reader->taken;
	size_t left = reader->used - reader->taken;
	uint32_t size;

	if (!reader->in_sync || left < PROTOCOL_HEADER_SIZE)
		return 0;
	memcpy(&size, at + 1, sizeof(size));
	size = le32toh(size);
	if (at[0] < PROTOCOL_READY || at[0] > PROTOCOL_ERROR || size > PROTOCOL_PAYLOAD_MAX)
		return err_set(
			err, EPROTO,
			"the guest's serial line carries something else than the agent's frames");
	if (left - PROTOCOL_HEADER_SIZE < size)
		return 0;
	frame->type = at[0];
	frame->size = size;
	frame->payload = at + PROTOCOL_HEADER_SIZE;
	reader->taken += PROTOCOL_HEADER_SIZE + size;
	return 1;
}

void agent_frame_header(uint8_t header[PROTOCOL_HEADER_SIZE], uint8_t type, uint32_t size)
{
	uint32_t le = htole32(size);

	header[0] = type;
	memcpy(header + 1, &le, sizeof(le));
}

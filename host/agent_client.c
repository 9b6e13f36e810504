/* SPDX-License-Identifier: Apache-2.0 */
#include "host/agent_client.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/printable.h"

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

void agent_reader_added(struct agent_reader *reader, size_t size)
{
	reader->used += size;
}

int agent_reader_next(struct agent_reader *reader, struct agent_frame *frame, struct err *err)
{
	const uint8_t *at = reader->buffer + reader->taken;
	size_t left = reader->used - reader->taken;
	uint32_t size;

	if (left < PROTOCOL_HEADER_SIZE)
		return 0;
	memcpy(&size, at + 1, sizeof(size));
	size = le32toh(size);
	if (at[0] < PROTOCOL_STDOUT || at[0] > PROTOCOL_STARTED || size > PROTOCOL_PAYLOAD_MAX)
		return err_set(err, EPROTO,
			       "the guest's agent sent something else than its protocol's frames");
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

void agent_error_text(const json_t *json, struct err *err)
{
	const char *given = json_string_value(json_object_get(json, "error"));

	err_set(err, EPROTO, "%s",
		given ? given : "the guest's agent refused the request without a reason");
	printable_line(err->text, strlen(err->text));
}

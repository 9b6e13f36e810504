/* SPDX-License-Identifier: Apache-2.0 */
/* The client's side of the agent's protocol (agent-protocol/protocol.h), without any I/O. */
#ifndef MOTE_HOST_AGENT_CLIENT_H
#define MOTE_HOST_AGENT_CLIENT_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "agent-protocol/protocol.h"

struct err;

struct agent_frame {
	uint8_t type; /* enum protocol_frame */
	uint32_t size;
	const uint8_t *payload; /* in the reader, until the next call */
};

/* Takes bytes from the guest, which may send anything, and gives frames. Zero-initialise. */
struct agent_reader {
	size_t used;
	size_t taken; /* of `used`: the frames that were given */
	uint8_t buffer[PROTOCOL_HEADER_SIZE + PROTOCOL_PAYLOAD_MAX];
};

/* Where to put new bytes, and how many; then agent_reader_added says how many there were. */
uint8_t *agent_reader_room(struct agent_reader *reader, size_t *room);
void agent_reader_added(struct agent_reader *reader, size_t size);

/*
 * 1 with *frame filled, 0 if more bytes are needed, -EPROTO with err set if the guest does not keep
 * to the protocol.
 */
int agent_reader_next(struct agent_reader *reader, struct agent_frame *frame, struct err *err);

/*
 * The sentence of an error frame's JSON, or another one if it has none. Like all that a guest says
 * it may be meant for the terminal: it is one line without control characters.
 */
void agent_error_text(const json_t *json, struct err *err);

/* Writes a header; the payload (at most PROTOCOL_PAYLOAD_MAX) follows it. */
void agent_frame_header(uint8_t header[PROTOCOL_HEADER_SIZE], uint8_t type, uint32_t size);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One vsock stream and the frames on it (protocol.h), with bounded buffers both ways. Nothing here
 * waits, if the descriptor does not.
 */
#ifndef MOTE_GUEST_STREAM_H
#define MOTE_GUEST_STREAM_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent-protocol/protocol.h"

#define STREAM_FRAME_MAX (PROTOCOL_HEADER_SIZE + PROTOCOL_PAYLOAD_MAX)
/* Of the buffer for output so much is kept for frames that carry no data. */
#define STREAM_RESERVE 8192

struct failure;

struct stream {
	int fd; /* owned; -1: none */
	size_t in_used;
	size_t out_at;
	size_t out_used;
	uint8_t in[STREAM_FRAME_MAX];
	uint8_t out[STREAM_FRAME_MAX + STREAM_RESERVE];
};

/* In an empty stream, which takes the descriptor. */
void stream_open(struct stream *stream, int fd);
/* Safe on one whose descriptor is -1. */
void stream_close(struct stream *stream);

/* Reads what has come; false if the other side has left. */
bool stream_receive(struct stream *stream);
/*
 * The length of the first whole frame in the buffer with its header; 0 if there is none yet;
 * -EPROTO if this is not a client of ours.
 */
ssize_t stream_frame(const struct stream *stream);
void stream_drop(struct stream *stream, size_t size);

/* Where the payload of a frame of data may be put, and how much of it; NULL if there is no room. */
uint8_t *stream_room(struct stream *stream, size_t *room);
/* The payload is there. */
void stream_add(struct stream *stream, uint8_t type, size_t size);
/* A frame without data; false if there is no room, which many in a row can bring about. */
bool stream_send(struct stream *stream, uint8_t type, const void *payload, size_t size);

/* The two answers that are JSON; of json, which may be NULL, the reference is taken. */
bool stream_send_failure(struct stream *stream, const struct failure *failure);
bool stream_send_result(struct stream *stream, json_t *json);

bool stream_pending(const struct stream *stream);
/* Writes what is taken without waiting; false if the other side has left. */
bool stream_flush(struct stream *stream);

#endif

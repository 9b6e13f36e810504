/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest/failure.h"

void stream_open(struct stream *stream, int fd)
{
	stream->fd = fd;
	stream->in_used = stream->out_at = stream->out_used = 0;
}

void stream_close(struct stream *stream)
{
	if (stream->fd >= 0)
		close(stream->fd);
	stream->fd = -1;
}

bool stream_receive(struct stream *stream)
{
	ssize_t n = read(stream->fd, stream->in + stream->in_used,
			 sizeof(stream->in) - stream->in_used);

	if (n > 0)
		stream->in_used += (size_t)n;
	return n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN));
}

ssize_t stream_frame(const struct stream *stream)
{
	uint32_t size;

	if (stream->in_used < PROTOCOL_HEADER_SIZE)
		return 0;
	memcpy(&size, stream->in + 1, sizeof(size));
	if (size > PROTOCOL_PAYLOAD_MAX)
		return -EPROTO;
	return stream->in_used < PROTOCOL_HEADER_SIZE + size ? 0
							     : PROTOCOL_HEADER_SIZE + (ssize_t)size;
}

void stream_drop(struct stream *stream, size_t size)
{
	stream->in_used -= size;
	memmove(stream->in, stream->in + size, stream->in_used);
}

static size_t make_room(struct stream *stream)
{
	if (stream->out_at > 0) {
		stream->out_used -= stream->out_at;
		memmove(stream->out, stream->out + stream->out_at, stream->out_used);
		stream->out_at = 0;
	}
	return sizeof(stream->out) - stream->out_used;
}

uint8_t *stream_room(struct stream *stream, size_t *room)
{
	const size_t kept = STREAM_RESERVE + PROTOCOL_HEADER_SIZE;
	size_t left = sizeof(stream->out) - stream->out_used + stream->out_at;

	/* Moving what waits is worth it for much of new data only. */
	if (left < sizeof(stream->out) / 2)
		return NULL;
	*room = make_room(stream) - kept;
	return stream->out + stream->out_used + PROTOCOL_HEADER_SIZE;
}

void stream_add(struct stream *stream, uint8_t type, size_t size)
{
	uint8_t *at = stream->out + stream->out_used;

	at[0] = type;
	at[1] = (uint8_t)size;
	at[2] = (uint8_t)(size >> 8);
	at[3] = (uint8_t)(size >> 16);
	at[4] = 0;
	stream->out_used += PROTOCOL_HEADER_SIZE + size;
}

bool stream_send(struct stream *stream, uint8_t type, const void *payload, size_t size)
{
	if (make_room(stream) < PROTOCOL_HEADER_SIZE + size)
		return false;
	memcpy(stream->out + stream->out_used + PROTOCOL_HEADER_SIZE, payload, size);
	stream_add(stream, type, size);
	return true;
}

static bool send_json(struct stream *stream, uint8_t type, json_t *json)
{
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	bool sent = text && strlen(text) <= PROTOCOL_PAYLOAD_MAX &&
		    stream_send(stream, type, text, strlen(text));

	free(text);
	json_decref(json);
	return sent;
}

bool stream_send_failure(struct stream *stream, const struct failure *failure)
{
	json_t *text = json_string(failure->text);

	/* A name that is not UTF-8 may be in it, or the half of a letter at its end. */
	if (!text) {
		char readable[sizeof(failure->text)];

		for (size_t i = 0; i < sizeof(readable); i++)
			readable[i] = (char)(failure->text[i] & 0x80 ? '?' : failure->text[i]);
		text = json_string(readable);
	}
	return send_json(stream, PROTOCOL_ERROR,
			 json_pack("{s:o, s:i}", "error", text, "status", failure->status));
}

bool stream_send_result(struct stream *stream, json_t *json)
{
	return send_json(stream, PROTOCOL_RESULT, json);
}

bool stream_pending(const struct stream *stream)
{
	return stream->out_at < stream->out_used;
}

bool stream_flush(struct stream *stream)
{
	while (stream_pending(stream)) {
		ssize_t n = send(stream->fd, stream->out + stream->out_at,
				 stream->out_used - stream->out_at, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN;
		stream->out_at += (size_t)n;
	}
	stream->out_at = stream->out_used = 0;
	return true;
}

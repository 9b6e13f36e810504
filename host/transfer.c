/* SPDX-License-Identifier: Apache-2.0 */
#include "host/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "host/agent_client.h"
#include "host/agent_connect.h"
#include "tree/tar.h"
#include "tree/tree.h"

/* Behind the end of a tar stream come zeroes at most. */
#define REST_MAX (64 << 10)
/* An agent that is at it does something in that time. */
#define STALL_TIMEOUT_MS 30000
#define INTERRUPT_LOOK_MS 100

struct transfer {
	int fd; /* owned; non-blocking */
	const struct transfer_bounds *bounds;
	int64_t end_ms;	   /* of clock_ms(); INT64_MAX: never */
	int64_t looked_ms; /* of clock_ms(), when what interrupts was looked at */
	uint64_t received; /* bytes of data */
	struct agent_reader reader;
	struct agent_frame frame; /* of data: what has not been taken of it */
	json_t *result;		  /* owned; the agent's last word */
	bool over;
	bool refused; /* it took no more of what is put */
	struct err err;
	bool failed; /* err is set */
	size_t out_used;
	uint8_t out[PROTOCOL_HEADER_SIZE + PROTOCOL_PAYLOAD_MAX];
};

static void lose(struct transfer *transfer, const char *why)
{
	transfer->over = true;
	if (!transfer->failed)
		err_set(&transfer->err, EIO, "%s", why);
	transfer->failed = true;
}

static void check_interrupt(struct transfer *transfer)
{
	const struct transfer_bounds *bounds = transfer->bounds;

	if (bounds->interrupted && bounds->interrupted(bounds->opaque))
		lose(transfer, "a transfer was interrupted");
}

/* Asked at every step. While data flow nobody waits, so this also looks at what interrupts. */
static bool in_time(struct transfer *transfer)
{
	const struct transfer_bounds *bounds = transfer->bounds;
	const int64_t now_ms = clock_ms();
	struct pollfd interrupt = { .fd = bounds->interrupt_fd, .events = POLLIN };

	if (now_ms >= transfer->end_ms) {
		lose(transfer, "the guest's agent took too long for a transfer");
	} else if (bounds->interrupted && now_ms - transfer->looked_ms >= INTERRUPT_LOOK_MS) {
		transfer->looked_ms = now_ms;
		if (poll(&interrupt, 1, 0) > 0)
			check_interrupt(transfer);
	}
	return !transfer->over;
}

/* Until the stream is ready; false if the transfer is lost. */
static bool wait_for(struct transfer *transfer, short events)
{
	const struct transfer_bounds *bounds = transfer->bounds;

	for (;;) {
		const int64_t left_ms = transfer->end_ms - clock_ms();
		const bool last = left_ms < STALL_TIMEOUT_MS;
		struct pollfd fds[] = {
			{ .fd = transfer->fd, .events = events },
			{ .fd = bounds->interrupted ? bounds->interrupt_fd : -1, .events = POLLIN },
		};
		int rc = poll(fds, 2, !last ? STALL_TIMEOUT_MS : left_ms > 0 ? (int)left_ms : 0);

		if (!in_time(transfer))
			return false;
		if (rc == 0 && !last)
			lose(transfer, "the guest's agent does not go on with a transfer");
		else if (rc > 0 && fds[1].revents)
			check_interrupt(transfer);
		if (transfer->over)
			return false;
		if (rc > 0 && fds[0].revents)
			return true;
	}
}

/* 0, or -1 when the agent takes no more. */
static int send_bytes(struct transfer *transfer, const uint8_t *data, size_t size)
{
	while (size > 0 && in_time(transfer)) {
		ssize_t n = send(transfer->fd, data, size, MSG_NOSIGNAL);

		if (n > 0) {
			data += n;
			size -= (size_t)n;
		} else if (n < 0 && errno == EAGAIN) {
			if (!wait_for(transfer, POLLOUT))
				return -1;
		} else if (errno != EINTR) {
			return -1;
		}
	}
	return transfer->over ? -1 : 0;
}

static int send_frame(struct transfer *transfer, uint8_t type, const void *payload, size_t size)
{
	uint8_t header[PROTOCOL_HEADER_SIZE];

	agent_frame_header(header, type, (uint32_t)size);
	return send_bytes(transfer, header, sizeof(header)) < 0
		       ? -1
		       : send_bytes(transfer, payload, size);
}

static int lost(struct transfer *transfer, struct err *err)
{
	*err = transfer->err;
	return -EIO;
}

static struct transfer *transfer_open(const char *vsock, const char *request,
				      const struct transfer_bounds *bounds, struct err *err)
{
	static const struct transfer_bounds none;
	struct transfer *transfer = calloc(1, sizeof(*transfer));

	if (!transfer) {
		err_sys(err, ENOMEM, "a stream to the agent");
		return NULL;
	}
	transfer->fd = agent_connect(vsock, NULL, NULL, err);
	if (transfer->fd < 0) {
		free(transfer);
		return NULL;
	}
	transfer->bounds = bounds ? bounds : &none;
	transfer->end_ms = bounds && bounds->time_ms ? clock_ms() + bounds->time_ms : INT64_MAX;
	/* If it does not take the request its last word says why. */
	(void)send_frame(transfer, PROTOCOL_REQUEST, request, strlen(request));
	return transfer;
}

static void transfer_close(struct transfer *transfer)
{
	fd_close(&transfer->fd);
	json_decref(transfer->result);
	free(transfer);
}

static void take_last(struct transfer *transfer, const struct agent_frame *frame)
{
	struct err err;

	transfer->over = true;
	transfer->result = json_loadb((const char *)frame->payload, frame->size, 0, NULL);
	if (frame->type == PROTOCOL_RESULT && json_is_object(transfer->result))
		return;
	agent_error_text(transfer->result, &err);
	lose(transfer, err.text);
}

/* Waits for the next frame of data; false when there is none any more. */
static bool next_data(struct transfer *transfer)
{
	const uint64_t bytes_max = transfer->bounds->bytes_max;

	while (!transfer->over && in_time(transfer)) {
		int rc = agent_reader_next(&transfer->reader, &transfer->frame, &transfer->err);
		size_t room;
		uint8_t *to;
		ssize_t n;

		if (rc < 0) {
			transfer->failed = transfer->over = true;
		} else if (rc > 0 && transfer->frame.type == PROTOCOL_STDOUT) {
			transfer->received += transfer->frame.size;
			if (bytes_max > 0 && transfer->received > bytes_max)
				lose(transfer, "the guest sends more than can be taken");
			else if (transfer->frame.size > 0)
				return true;
		} else if (rc > 0) {
			take_last(transfer, &transfer->frame);
		} else {
			to = agent_reader_room(&transfer->reader, &room);
			n = read(transfer->fd, to, room);
			if (n > 0)
				agent_reader_added(&transfer->reader, (size_t)n);
			else if (n < 0 && errno == EAGAIN)
				(void)wait_for(transfer, POLLIN);
			else if (n == 0 || errno != EINTR)
				lose(transfer, "the guest has gone in the middle of a transfer");
		}
	}
	transfer->frame.size = 0;
	return false;
}

static ssize_t read_data(void *opaque, void *data, size_t size)
{
	struct transfer *transfer = opaque;
	struct agent_frame *frame = &transfer->frame;
	size_t part;

	if (frame->size == 0 && !next_data(transfer))
		return 0;
	part = frame->size < size ? frame->size : size;
	memcpy(data, frame->payload, part);
	frame->payload += part;
	frame->size -= (uint32_t)part;
	return (ssize_t)part;
}

/* Reads what is left, up to the agent's last word. 0 or -errno with err set. */
static int finish(struct transfer *transfer, struct err *err)
{
	size_t left = REST_MAX;

	while (next_data(transfer)) {
		if (transfer->frame.size > left)
			return err_set(err, EPROTO, "the guest's agent sends on behind the end");
		left -= transfer->frame.size;
	}
	return transfer->failed ? lost(transfer, err) : 0;
}

static int flush(struct transfer *transfer)
{
	int rc = transfer->out_used > 0
			 ? send_frame(transfer, PROTOCOL_STDIN, transfer->out, transfer->out_used)
			 : 0;

	transfer->out_used = 0;
	return rc;
}

static int write_data(void *opaque, const void *data, size_t size)
{
	struct transfer *transfer = opaque;
	const char *at = data;

	while (size > 0) {
		size_t part = PROTOCOL_PAYLOAD_MAX - transfer->out_used;

		if (part > size)
			part = size;
		memcpy(transfer->out + transfer->out_used, at, part);
		transfer->out_used += part;
		at += part;
		size -= part;
		if (transfer->out_used == PROTOCOL_PAYLOAD_MAX && flush(transfer) < 0) {
			transfer->refused = true;
			return -1;
		}
	}
	return 0;
}

static int pack_stdin(struct transfer *transfer, struct err *err)
{
	static char data[PROTOCOL_PAYLOAD_MAX];
	ssize_t n;

	while ((n = read(STDIN_FILENO, data, sizeof(data))) != 0) {
		if (n < 0 && errno != EINTR)
			return err_sys(err, errno, "standard input");
		if (n > 0 && write_data(transfer, data, (size_t)n) < 0)
			break;
	}
	return 0;
}

/* 0 or -errno with err set; why the agent takes no more it says in its last word. */
static int pack(struct transfer *transfer, const struct transfer_end *here, struct err *err)
{
	struct tar_writer writer = { write_data, transfer };
	struct tree_counts counts = { 0 };
	int packed = 0, rc = 0;

	if (here->fd < 0)
		rc = pack_stdin(transfer, err);
	else
		packed = tree_pack(here->fd, here->name, &writer, &counts, err);
	if (packed < 0)
		rc = transfer->refused ? finish(transfer, err) : 0;
	if (rc == 0 && packed < 0)
		rc = -EIO;
	if (rc == 0 && flush(transfer) == 0)
		(void)send_frame(transfer, PROTOCOL_STDIN_END, "", 0);
	return rc;
}

static void take_counts(const struct transfer *transfer, struct tree_counts *counts)
{
	if (!counts)
		return;
	counts->files = (uint64_t)json_integer_value(json_object_get(transfer->result, "files"));
	counts->bytes = (uint64_t)json_integer_value(json_object_get(transfer->result, "bytes"));
}

int transfer_put(const char *vsock, const struct transfer_end *here, const char *remote,
		 const char *owner, bool volume, const struct transfer_bounds *bounds,
		 struct tree_counts *counts, struct err *err)
{
	struct transfer *transfer;
	json_t *json;
	char *text;
	bool into;
	int rc;

	/* What is in a directory goes into one. */
	into = here->fd >= 0 && strcmp(here->name, ".") == 0;
	json = json_pack("{s:{s:s, s:s*, s:b, s:b}}", "put", "path", remote, "owner", owner, "into",
			 into, "volume", volume);
	text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	if (!text)
		return err_set(err, EINVAL, "%s: the path is not UTF-8", remote);
	transfer = transfer_open(vsock, text, bounds, err);
	free(text);
	if (!transfer)
		return -EIO;
	rc = pack(transfer, here, err);
	if (rc == 0)
		rc = finish(transfer, err);
	take_counts(transfer, counts);
	transfer_close(transfer);
	return rc;
}

static int unpack(struct transfer *transfer, const struct transfer_end *here,
		  struct tree_counts *counts, struct err *err)
{
	struct tar_reader reader = { .read = read_data, .opaque = transfer };
	const struct tree_options options = { .plain = true,
					      .files_max = transfer->bounds->files_max,
					      .update = transfer->bounds->update };
	struct tree_counts own = { 0 };
	int rc = tree_unpack_as(here->fd, here->name, &reader, &options, &own, err);

	tar_reader_free(&reader);
	if (counts)
		*counts = own;
	if (rc == 0)
		return finish(transfer, err);
	/* What the agent says about it is nearer to the cause. */
	return transfer->failed ? lost(transfer, err) : -EIO;
}

static int unpack_stdout(struct transfer *transfer, struct err *err)
{
	while (next_data(transfer)) {
		int rc = fd_write_all(STDOUT_FILENO, transfer->frame.payload, transfer->frame.size);

		if (rc < 0)
			return err_sys(err, -rc, "standard output");
	}
	return finish(transfer, err);
}

int transfer_get(const char *vsock, const char *remote, bool follow,
		 const struct transfer_end *here, const struct transfer_bounds *bounds,
		 struct tree_counts *counts, struct err *err)
{
	struct transfer *transfer;
	json_t *json;
	char *text;
	int rc;

	json = json_pack("{s:{s:s, s:b}}", "get", "path", remote, "follow", follow);
	text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	if (!text)
		return err_set(err, EINVAL, "%s: the path is not UTF-8", remote);
	transfer = transfer_open(vsock, text, bounds, err);
	free(text);
	if (!transfer)
		return -EIO;
	if (here->fd < 0) {
		rc = unpack_stdout(transfer, err);
		take_counts(transfer, counts);
	} else {
		rc = unpack(transfer, here, counts, err);
	}
	transfer_close(transfer);
	return rc;
}

json_t *transfer_ask(const char *vsock, const char *request, const struct transfer_bounds *bounds,
		     struct err *err)
{
	struct transfer *transfer = transfer_open(vsock, request, bounds, err);
	json_t *result = NULL;

	if (!transfer)
		return NULL;
	if (finish(transfer, err) == 0)
		result = json_incref(transfer->result);
	transfer_close(transfer);
	return result;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The serial line to the host, and the frames on it (protocol.h). */
#ifndef MOTE_INIT_LINE_H
#define MOTE_INIT_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "protocol.h"

struct line {
	int fd;
	uint8_t buffer[PROTOCOL_HEADER_SIZE + PROTOCOL_PAYLOAD_MAX];
	size_t used;
};

/* The descriptor, or -1. */
int line_open(void);

/* All of these wait while the host does not read. */
void line_send_sync(void); /* what the frames begin behind */
void line_send(uint8_t type, const void *payload, size_t size);
void line_send_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Reads what has come; false at the end of the line. */
bool line_receive(struct line *line);
/*
 * The length of the first whole frame in the buffer with its header; 0 if there is none yet;
 * -EPROTO if this is not a client of ours.
 */
ssize_t line_frame(const struct line *line);
void line_drop(struct line *line, size_t size);

#endif

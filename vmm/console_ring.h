/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last bytes that a serial port has transmitted, for who looks later. One thread writes (with
 * whatever lock it holds), the main thread reads.
 */
#ifndef MOTE_VMM_CONSOLE_RING_H
#define MOTE_VMM_CONSOLE_RING_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct state_reader;
struct state_writer;

#define CONSOLE_RING_DEFAULT (64 << 10)
#define CONSOLE_RING_MAX (1 << 20)

struct console_ring {
	pthread_mutex_t lock;
	uint8_t *bytes; /* owned */
	size_t size;
	uint64_t written; /* bytes, ever */
	bool watched;	  /* notify_fd is to be written at the next byte */
	int notify_fd;	  /* owned eventfd */
};

/* 0 or -errno with err set. */
int console_ring_open(struct console_ring *ring, size_t size, struct err *err);
/* Safe on a zeroed object. */
void console_ring_close(struct console_ring *ring);

/* Empties it. 0, or -ENOMEM with err set and nothing changed. Before anybody writes. */
int console_ring_resize(struct console_ring *ring, size_t size, struct err *err);

void console_ring_put(struct console_ring *ring, uint8_t byte);

/*
 * Copies what is behind the byte *seen, as far as it is still there, and advances *seen; to be
 * freed; NULL if there is nothing, or no memory. The next byte that comes is notified.
 */
char *console_ring_read(struct console_ring *ring, uint64_t *seen, size_t *len);

/*
 * What is kept, into a ring of the same size or a larger one. The version is from 1 to
 * CONSOLE_RING_STATE_VERSION. 0, or -errno with err set and nothing changed.
 */
#define CONSOLE_RING_STATE_VERSION 1
void console_ring_save(struct console_ring *ring, struct state_writer *out);
int console_ring_restore(struct console_ring *ring, struct state_reader *in, uint32_t version,
			 struct err *err);

#endif

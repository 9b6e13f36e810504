/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A 16550A UART (National Semiconductor's PC16550D data sheet). When the output's reader is slow
 * the transmitter stays busy, and nothing gets lost; a reader that takes nothing for a while is
 * given up, so that the guest does not wait for it, and what it would have got is counted. When the
 * guest is slow (or drops RTS) input waits. Registers are accessed by vCPU threads, the rest is
 * called by the main loop.
 */
#ifndef MOTE_VMM_PLATFORM_SERIAL_H
#define MOTE_VMM_PLATFORM_SERIAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/io_bus.h"
#include "base/metrics.h"

struct err;
struct state_reader;
struct state_writer;

#define SERIAL_PORTS 8
#define SERIAL_BUFFER 4096 /* bytes, a power of two */
/* So many bytes are written out together; the transmitter counts as empty when they have room. */
#define SERIAL_BURST 1024

struct serial_fifo {
	uint8_t bytes[SERIAL_BUFFER];
	unsigned int head; /* free-running: next to take out */
	unsigned int tail; /* free-running: next to put in */
};

struct serial_metrics {
	uint64_t error_count;	     /* the output could not be written */
	uint64_t flush_count;	     /* writes to the output */
	uint64_t missed_write_count; /* bytes that were lost: the transmitter was full */
	uint64_t read_count;	     /* of registers */
	uint64_t write_count;	     /* to registers */
};

extern const struct metric serial_metric_table[];

struct serial {
	pthread_mutex_t lock;
	int irq_fd;    /* owned; an interrupt for every 1 written, through irqfd */
	int notify_fd; /* owned; readable when serial_service has something to do */
	int out_fd;    /* not owned; -1 once writing to it has failed */
	/* Sees every transmitted byte, on the vCPU's thread; may be NULL. */
	void (*tap)(void *opaque, uint8_t byte);
	void *tap_opaque;

	struct serial_fifo in;
	struct serial_fifo out;
	bool in_was_full;
	bool out_blocked;     /* out_fd takes nothing now */
	bool out_given_up;    /* its reader is not waited for until it takes something */
	bool flush_scheduled; /* the main loop has been asked for serial_flush */

	uint8_t interrupt_enable;
	uint8_t line_control;
	uint8_t modem_control;
	uint8_t scratch;
	uint8_t divisor[2];
	bool fifo_enabled;
	bool loop_full; /* in loopback: one byte, apart from the input that waits outside */
	uint8_t loop_byte;
	bool thr_interrupt; /* transmitter became empty since the guest last looked */
	struct serial_metrics metrics;
};

/* 0 or -errno with err set. */
int serial_open(struct serial *serial, int out_fd, struct err *err);
/* Safe on a zeroed object. */
void serial_close(struct serial *serial);

extern const struct io_ops serial_ops;

/* Takes what there is room for and returns how many bytes that was. */
size_t serial_receive(struct serial *serial, const uint8_t *data, size_t len);

struct serial_wants {
	bool flush;	   /* call serial_flush SERIAL_FLUSH_US from now */
	bool output;	   /* call serial_flush when out_fd is writable */
	bool given_up;	   /* if not, serial_give_up after SERIAL_PATIENCE_MS without that */
	size_t input_room; /* bytes that serial_receive will take */
};

/*
 * A byte is written out when the guest looks at a status register, when a burst is together, or
 * after this time, so that a burst costs one write instead of one a byte.
 */
#define SERIAL_FLUSH_US 1000

/* How long the guest may wait for a reader that takes nothing. */
#define SERIAL_PATIENCE_MS 1000

/* Acknowledges notify_fd and says what to wait for. */
struct serial_wants serial_service(struct serial *serial);
/* Writes out what waits, as far as out_fd takes it. */
struct serial_wants serial_flush(struct serial *serial);

/* From now on the transmitter is empty, and what has no room lost, until out_fd takes something. */
struct serial_wants serial_give_up(struct serial *serial);

/*
 * Writes out what is left, waiting at most timeout_ms for a reader that was not given up. Call once
 * no vCPU runs.
 */
void serial_drain(struct serial *serial, int timeout_ms);

/*
 * The registers, the input that the guest has not read and the output that is not written yet,
 * while no vCPU runs. A restored port has a transmitter that is empty or will be, and says so by an
 * interrupt, whatever the guest was waiting for; its main loop is notified. The version is from 1
 * to SERIAL_STATE_VERSION. 0, or -errno with err set and nothing changed.
 */
#define SERIAL_STATE_VERSION 1
void serial_save(const struct serial *serial, struct state_writer *out);
int serial_restore(struct serial *serial, struct state_reader *in, uint32_t version,
		   struct err *err);

#endif

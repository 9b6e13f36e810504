/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As much of an i8042 keyboard controller as a kernel needs to reset the machine (command 0xFE
 * pulses the processor's reset line) and to be asked to shut down: a keyboard whose only keys are
 * Ctrl, Alt and Del. Registers are accessed by vCPU threads.
 */
#ifndef MOTE_VMM_PLATFORM_I8042_H
#define MOTE_VMM_PLATFORM_I8042_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/io_bus.h"
#include "base/metrics.h"

struct err;
struct state_reader;
struct state_writer;

#define I8042_PORTS 5	/* 0x60 data to 0x64 command */
#define I8042_OUTPUT 16 /* bytes that wait to be read, a power of two */

struct i8042_metrics {
	uint64_t missed_write_count; /* of another size than a byte */
	uint64_t read_count;
	uint64_t reset_count;
	uint64_t write_count;
};

extern const struct metric i8042_metric_table[];

struct i8042 {
	/* Called on the vCPU thread that wrote. */
	void (*reset)(void *opaque);
	void *opaque;
	int irq_fd; /* owned; an interrupt for every 1 written, through irqfd */

	pthread_mutex_t lock;
	uint8_t config;
	uint8_t command; /* waits for its data byte; 0 none */
	uint8_t last;	 /* what an empty output reads as */
	uint8_t output[I8042_OUTPUT];
	unsigned int head; /* free-running: next to take out */
	unsigned int tail; /* free-running: next to put in */
	struct i8042_metrics metrics;
};

/* Into a zeroed object. 0 or -errno with err set. */
int i8042_open(struct i8042 *i8042, struct err *err);
/* Safe on a zeroed object. */
void i8042_close(struct i8042 *i8042);

extern const struct io_ops i8042_ops;

/*
 * Presses Ctrl, Alt and Del. 0; -ENXIO if no driver has enabled the keyboard's interrupt, so that
 * nobody would see it; -ENOBUFS if the driver has not yet read the keys before. From any thread.
 */
int i8042_ctrl_alt_del(struct i8042 *i8042);

/*
 * While no vCPU runs. Where bytes wait to be read, their interrupt comes again. The version is from
 * 1 to I8042_STATE_VERSION. 0, or -errno with err set and nothing changed.
 */
#define I8042_STATE_VERSION 1
void i8042_save(const struct i8042 *i8042, struct state_writer *out);
int i8042_restore(struct i8042 *i8042, struct state_reader *in, uint32_t version, struct err *err);

#endif

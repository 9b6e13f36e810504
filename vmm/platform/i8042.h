/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As much of an i8042 keyboard controller as a kernel needs to reset the machine: status,
 * configuration byte, self test, and command 0xFE, which pulses the processor's reset line.
 */
#ifndef MOTE_VMM_PLATFORM_I8042_H
#define MOTE_VMM_PLATFORM_I8042_H

#include <stdbool.h>
#include <stdint.h>

#include "base/io_bus.h"

#define I8042_PORTS 5 /* 0x60 data to 0x64 command */

/* A race between vCPUs on these registers only confuses the guest that causes it. */
struct i8042 {
	/* Called on the vCPU thread that wrote. */
	void (*reset)(void *opaque);
	void *opaque;
	_Atomic uint8_t config;
	_Atomic uint8_t output;
	_Atomic bool output_full;
	_Atomic uint8_t command; /* waits for its data byte; 0 none */
};

extern const struct io_ops i8042_ops;

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sleep control and status registers of hardware-reduced ACPI (ACPI 6.5, 4.8.3.7): two bytes of
 * I/O ports. Entering S5 is the guest's power-off; no other state exists.
 */
#ifndef MOTE_VMM_PLATFORM_SLEEP_H
#define MOTE_VMM_PLATFORM_SLEEP_H

#include "base/io_bus.h"

#define SLEEP_TYPE_S5 5
#define SLEEP_SIZE 2

struct sleep_registers {
	/* Called on the vCPU thread that wrote. */
	void (*power_off)(void *opaque);
	void *opaque;
};

extern const struct io_ops sleep_registers_ops;

#endif

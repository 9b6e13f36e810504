/* SPDX-License-Identifier: Apache-2.0 */
/* The boot timer: the guest's init writes the byte 123 here to say that it has been reached. */
#ifndef MOTE_VMM_PLATFORM_BOOT_TIMER_H
#define MOTE_VMM_PLATFORM_BOOT_TIMER_H

#include "base/io_bus.h"

#define BOOT_TIMER_SIZE 4096
#define BOOT_TIMER_VALUE 123

struct boot_timer {
	/* Called on the vCPU thread that wrote, each time. */
	void (*reached)(void *opaque);
	void *opaque;
};

extern const struct io_ops boot_timer_ops;

#endif

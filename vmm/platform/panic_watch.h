/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads along on the console for Linux's "Kernel panic - not syncing: CAUSE" line: without a panic
 * device a reset that follows a panic looks like any other. A guest can print the line without
 * panicking; that changes nothing but the sentence about its own end.
 */
#ifndef MOTE_VMM_PLATFORM_PANIC_WATCH_H
#define MOTE_VMM_PLATFORM_PANIC_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#define PANIC_CAUSE_SIZE 128

struct panic_watch {
	unsigned int matched; /* bytes of the prefix seen in a row */
	bool in_cause;
	bool seen;
	unsigned int cause_length;
	char cause[PANIC_CAUSE_SIZE]; /* printable ASCII, zero-terminated once `seen` */
};

/* opaque is a struct panic_watch; not thread-safe. */
void panic_watch_byte(void *opaque, uint8_t byte);

#endif

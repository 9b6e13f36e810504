/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text put together in a buffer of fixed size, without stdio, memory or locks: also for signal
 * handlers (signal-safety(7)).
 */
#ifndef MOTE_BASE_TEXT_H
#define MOTE_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* There is always a terminating zero behind what is used. What does not fit is left out. */
struct text {
	char *buffer; /* not owned */
	size_t size;  /* at least 1 */
	size_t used;
	bool cut; /* something was left out */
};

struct text text_in(char *buffer, size_t size);
void text_add(struct text *text, const char *string);
void text_add_number(struct text *text, uint64_t number);
/* With zeroes in front up to so many digits. */
void text_add_digits(struct text *text, uint64_t number, unsigned int digits);
void text_add_hex(struct text *text, uint64_t number);

#endif

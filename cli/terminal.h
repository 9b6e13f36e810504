/* SPDX-License-Identifier: Apache-2.0 */
/* The terminal that mote was started from. */
#ifndef MOTE_CLI_TERMINAL_H
#define MOTE_CLI_TERMINAL_H

#include <stdbool.h>
#include <stdint.h>
#include <termios.h>

struct terminal {
	bool raw;
	struct termios settings; /* as they were */
};

/* Passes every key on as it is, if standard input is a terminal. */
void terminal_make_raw(struct terminal *terminal);
/* Safe on a zeroed object, and twice. */
void terminal_restore(struct terminal *terminal);

/* False, with the usual 24 lines of 80, if there is no terminal. */
bool terminal_size(uint16_t *rows, uint16_t *columns);

#endif

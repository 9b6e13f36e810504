/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MOTE_HOST_SIGNALS_H
#define MOTE_HOST_SIGNALS_H

#include <stdbool.h>

/* SIGINT, INT, 2, RTMIN+3 or RTMAX-1 in any case; -1 if it is none. */
int signal_number(const char *text);

/*
 * Whether mote gives it to the command when it gets it itself. It keeps those that are about its
 * own faults, its children and its pipes, its terminal's when it is in the background, and what
 * cannot be caught.
 */
bool signal_is_passed_on(int number);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* More processors than the first, in long mode with its page tables. */
#ifndef MOTE_TESTS_GUESTS_CPUS_H
#define MOTE_TESTS_GUESTS_CPUS_H

#define CPUS_MAX 8

/*
 * Starts all other processors, which are `count`; each calls run with its index, from 1. They halt
 * when it returns. Returns when all are there.
 */
void cpus_start(unsigned int count, void (*run)(unsigned int index));

#endif

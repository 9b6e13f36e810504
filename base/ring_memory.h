/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What io_uring takes for a VM's drives. Linux 6.14 and later count it as locked memory of the user
 * who makes the rings, so that whoever limits that memory has to leave as much.
 */
#ifndef MOTE_BASE_RING_MEMORY_H
#define MOTE_BASE_RING_MEMORY_H

#define RING_ENTRIES 256
/* 64 bytes for each entry, 16 for each of twice as many completions, and an index; whole pages. */
#define RING_SIZE (7 * 4096)
#define RINGS_MAX 19 /* a drive each */
/* Twice: the kernel gives back the rings of a VM that has ended in its own time. */
#define RING_MEMORY (2 * RINGS_MAX * RING_SIZE)

#endif

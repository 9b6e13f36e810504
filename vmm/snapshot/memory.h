/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory as a file: each byte at the offset that is its guest physical address; pages of
 * zeros, and the gap below 4 GiB, are holes.
 */
#ifndef MOTE_VMM_SNAPSHOT_MEMORY_H
#define MOTE_VMM_SNAPSHOT_MEMORY_H

#include <stdint.h>

struct err;
struct guest_memory;

/* The size of the file: the end of the guest's last region. */
uint64_t memory_file_size(const struct guest_memory *memory);

/*
 * Writes it to an empty file of that size, while nothing writes guest memory. 0 or -errno with err
 * set.
 */
int memory_file_write(const struct guest_memory *memory, int fd, struct err *err);

/*
 * Maps the file's data privately where the memory is, which is new: what the guest writes is its
 * own. Holes stay memory that nobody has touched. 0 or -errno with err set.
 */
int memory_file_map(const struct guest_memory *memory, int fd, struct err *err);

#endif

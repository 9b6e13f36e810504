/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory as a file: each byte at the offset that is its guest physical address; pages of
 * zeros, and the gap below 4 GiB, are holes.
 */
#ifndef MOTE_VMM_SNAPSHOT_MEMORY_H
#define MOTE_VMM_SNAPSHOT_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "base/state.h"

struct err;
struct guest_memory;

/* The size of the file: the end of the guest's last region. */
uint64_t memory_file_size(const struct guest_memory *memory);

/*
 * Where the file has data, in the order of addresses: multiples of the page size. Small holes may
 * be in it.
 */
struct memory_piece {
	uint64_t start;
	uint64_t end;
};

struct memory_pieces {
	struct memory_piece *list; /* owned */
	size_t count;
	size_t room;
};

/* Safe on a zeroed object. */
void memory_pieces_free(struct memory_pieces *pieces);
#define CLEANUP_MEMORY_PIECES __attribute__((cleanup(memory_pieces_free)))
/* Adds the body of their section. */
void memory_pieces_save(const struct memory_pieces *pieces, struct state_writer *out);

/*
 * Writes it to an empty file of that size, while nothing writes guest memory, and adds where there
 * is something. 0 or -errno with err set.
 */
int memory_file_write(const struct guest_memory *memory, int fd, struct memory_pieces *pieces,
		      struct err *err);

/*
 * Maps the pieces of the file that the section says privately where the memory is, which is new:
 * what the guest writes is its own. The rest stays memory that nobody has touched. File and section
 * may be hostile. 0 or -errno with err set.
 */
int memory_file_map(const struct guest_memory *memory, int fd, struct state_reader *pieces,
		    struct err *err);

#endif

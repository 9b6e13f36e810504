/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest physical memory: one host mapping, split around the MMIO gap below 4 GiB. The only place
 * that turns guest addresses into pointers. The memory behind a pointer is shared with a running,
 * hostile guest: read each field once into a local.
 */
#ifndef MOTE_BASE_GUEST_MEMORY_H
#define MOTE_BASE_GUEST_MEMORY_H

#include <stddef.h>
#include <stdint.h>

struct err;

#define GUEST_PAGE_SIZE UINT64_C(4096)
#define GUEST_MEMORY_REGIONS 2

enum huge_pages {
	HUGE_PAGES_NONE,	/* what the host's policy for transparent ones gives */
	HUGE_PAGES_TRANSPARENT, /* madvise(MADV_HUGEPAGE) */
	HUGE_PAGES_2M,		/* hugetlbfs pages, which the host must have reserved */
};

struct guest_memory_region {
	uint64_t base; /* guest physical address, page-aligned */
	uint64_t size; /* bytes, a multiple of the page size */
	uint8_t *host;
};

struct guest_memory {
	struct guest_memory_region regions[GUEST_MEMORY_REGIONS];
	unsigned int region_count;
	void *mapping; /* owned; inaccessible before and behind the guest's memory */
	size_t mapping_size;
};

/*
 * Maps size bytes (a multiple of 2 MiB or at least of the page size) of zeroed memory that the host
 * provides as the guest touches it. What does not fit below gap_start goes to gap_end and above.
 * 0 or -errno with err set; on failure there is nothing to close.
 */
int guest_memory_open(struct guest_memory *memory, uint64_t size, uint64_t gap_start,
		      uint64_t gap_end, enum huge_pages huge_pages, struct err *err);
/* Safe on a zeroed or already closed object. */
void guest_memory_close(struct guest_memory *memory);

uint64_t guest_memory_size(const struct guest_memory *memory);

/*
 * A pointer to the len bytes (len > 0) at guest address addr if all of them lie in one region, else
 * NULL.
 */
void *guest_memory_range(const struct guest_memory *memory, uint64_t addr, uint64_t len);

/* Copies into or out of guest memory: 0, or -EFAULT without having copied anything. */
int guest_memory_write(const struct guest_memory *memory, uint64_t addr, const void *data,
		       size_t len);
int guest_memory_read(const struct guest_memory *memory, uint64_t addr, void *data, size_t len);

/*
 * Copies len bytes at `offset` of fd to guest address addr: what happens to the file later is
 * nothing to the guest. 0, -EFAULT if the range is not in one region, -ENODATA if the file is too
 * short, or -errno; what was read before an error stays.
 */
int guest_memory_load(const struct guest_memory *memory, uint64_t addr, int fd, uint64_t offset,
		      uint64_t len);

#endif

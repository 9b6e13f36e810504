/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/snapshot/memory.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/err.h"
#include "base/guest_memory.h"

/* So much is looked at with the pages of memory that nobody has touched brought in by one call. */
#define STEP (UINT64_C(4) << 20)
/*
 * Each piece that is mapped is a call, and an area of the process: a hole that is smaller is mapped
 * with what is around it.
 */
#define HOLE_MIN (UINT64_C(256) << 10)

uint64_t memory_file_size(const struct guest_memory *memory)
{
	const struct guest_memory_region *last = &memory->regions[memory->region_count - 1];

	return last->base + last->size;
}

static int write_all(int fd, const uint8_t *from, uint64_t size, uint64_t offset)
{
	while (size > 0) {
		const struct iovec iov = { (void *)(uintptr_t)from, size };
		ssize_t n = pwritev2(fd, &iov, 1, (off_t)offset, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		from += n;
		size -= (uint64_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static bool is_zero(const uint8_t *page)
{
	static const uint8_t zeros[GUEST_PAGE_SIZE];

	return memcmp(page, zeros, sizeof(zeros)) == 0;
}

/* The pages from `from` that are zeros, or are not. */
static uint64_t run_of(const uint8_t *from, uint64_t size, bool zero)
{
	uint64_t at = 0;

	while (at < size && is_zero(from + at) == zero)
		at += GUEST_PAGE_SIZE;
	return at;
}

static int write_step(int fd, const uint8_t *from, uint64_t size, uint64_t offset)
{
	for (uint64_t at = 0; at < size;) {
		uint64_t used;
		int rc;

		at += run_of(from + at, size - at, true);
		used = run_of(from + at, size - at, false);
		rc = write_all(fd, from + at, used, offset + at);
		if (rc < 0)
			return rc;
		at += used;
	}
	return 0;
}

static int write_region(int fd, const struct guest_memory_region *region)
{
	for (uint64_t at = 0; at < region->size; at += STEP) {
		const uint64_t size = region->size - at < STEP ? region->size - at : STEP;
		int rc;

		/* A wish: without it each page is brought in when it is looked at. */
		(void)madvise(region->host + at, size, MADV_POPULATE_READ);
		rc = write_step(fd, region->host + at, size, region->base + at);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int memory_file_write(const struct guest_memory *memory, int fd, struct err *err)
{
	int rc = 0;

	for (unsigned int i = 0; i < memory->region_count && rc == 0; i++)
		rc = write_region(fd, &memory->regions[i]);
	return rc < 0 ? err_sys(err, -rc, "writing guest memory") : 0;
}

/* Guest physical addresses, and offsets in the file. */
struct piece {
	uint64_t start;
	uint64_t end;
};

static int map(const struct guest_memory_region *region, int fd, const struct piece *piece)
{
	uint8_t *host = region->host + (piece->start - region->base);
	const uint64_t size = piece->end - piece->start;

	if (size == 0)
		return 0;
	if (mmap(host, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd,
		 (off_t)piece->start) == MAP_FAILED ||
	    madvise(host, size, MADV_DONTDUMP) < 0)
		return -errno;
	return 0;
}

/* The next pages with data from `at`, up to `end`: 1; 0 if there are none; or -errno. */
static int next_data(int fd, uint64_t at, uint64_t end, struct piece *piece)
{
	off_t data = lseek(fd, (off_t)at, SEEK_DATA), hole;

	if (data < 0 && errno != ENXIO)
		return -errno;
	if (data < 0 || (uint64_t)data >= end)
		return 0;
	hole = lseek(fd, data, SEEK_HOLE);
	if (hole < 0)
		return -errno;
	piece->start = (uint64_t)data & ~(GUEST_PAGE_SIZE - 1);
	piece->end = ((uint64_t)hole + GUEST_PAGE_SIZE - 1) & ~(GUEST_PAGE_SIZE - 1);
	if (piece->end > end)
		piece->end = end;
	return 1;
}

static int map_region(const struct guest_memory_region *region, int fd)
{
	const uint64_t end = region->base + region->size;
	struct piece todo = { region->base, region->base }, next = todo;
	int rc;

	while ((rc = next_data(fd, next.end, end, &next)) > 0) {
		if (todo.end > todo.start && next.start - todo.end < HOLE_MIN) {
			todo.end = next.end;
			continue;
		}
		rc = map(region, fd, &todo);
		if (rc < 0)
			break;
		todo = next;
	}
	return rc < 0 ? rc : map(region, fd, &todo);
}

int memory_file_map(const struct guest_memory *memory, int fd, struct err *err)
{
	struct stat st;
	int rc = 0;

	if (fstat(fd, &st) < 0)
		return err_sys(err, errno, "guest memory");
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != memory_file_size(memory))
		return err_set(err, EINVAL,
			       "its memory file is not a regular file of %llu bytes, as the "
			       "guest's memory has",
			       (unsigned long long)memory_file_size(memory));
	for (unsigned int i = 0; i < memory->region_count && rc == 0; i++)
		rc = map_region(&memory->regions[i], fd);
	return rc < 0 ? err_sys(err, -rc, "mapping guest memory") : 0;
}

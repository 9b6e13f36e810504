/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/snapshot/memory.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
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
 * with what is around it, and all of them are once there are so many pieces.
 */
#define HOLE_MIN (UINT64_C(256) << 10)
#define PIECES_MAX 16384

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

/* Notes that there is something, where nothing was noted yet. */
static int add_piece(struct memory_pieces *pieces, uint64_t start, uint64_t end)
{
	struct memory_piece *last = pieces->count > 0 ? &pieces->list[pieces->count - 1] : NULL;
	struct memory_piece *list;

	if (last && (start - last->end < HOLE_MIN || pieces->count == PIECES_MAX)) {
		last->end = end;
		return 0;
	}
	if (!pieces->list || pieces->count == pieces->room) {
		size_t room = pieces->room ? 2 * pieces->room : 64;

		list = realloc(pieces->list, room * sizeof(*list));
		if (!list)
			return -ENOMEM;
		pieces->list = list;
		pieces->room = room;
	}
	pieces->list[pieces->count++] = (struct memory_piece){ start, end };
	return 0;
}

static int write_step(int fd, const uint8_t *from, uint64_t size, uint64_t offset,
		      struct memory_pieces *pieces)
{
	for (uint64_t at = 0; at < size;) {
		uint64_t used;
		int rc;

		at += run_of(from + at, size - at, true);
		used = run_of(from + at, size - at, false);
		if (used == 0)
			break;
		rc = write_all(fd, from + at, used, offset + at);
		if (rc == 0)
			rc = add_piece(pieces, offset + at, offset + at + used);
		if (rc < 0)
			return rc;
		at += used;
	}
	return 0;
}

static int write_region(int fd, const struct guest_memory_region *region,
			struct memory_pieces *pieces)
{
	for (uint64_t at = 0; at < region->size; at += STEP) {
		const uint64_t size = region->size - at < STEP ? region->size - at : STEP;
		int rc;

		/* A wish: without it each page is brought in when it is looked at. */
		(void)madvise(region->host + at, size, MADV_POPULATE_READ);
		rc = write_step(fd, region->host + at, size, region->base + at, pieces);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int memory_file_write(const struct guest_memory *memory, int fd, struct memory_pieces *pieces,
		      struct err *err)
{
	int rc = 0;

	for (unsigned int i = 0; i < memory->region_count && rc == 0; i++)
		rc = write_region(fd, &memory->regions[i], pieces);
	return rc < 0 ? err_sys(err, -rc, "writing guest memory") : 0;
}

void memory_pieces_free(struct memory_pieces *pieces)
{
	free(pieces->list);
	*pieces = (struct memory_pieces){ 0 };
}

void memory_pieces_save(const struct memory_pieces *pieces, struct state_writer *out)
{
	for (size_t i = 0; i < pieces->count; i++) {
		state_put_u64(out, pieces->list[i].start);
		state_put_u64(out, pieces->list[i].end);
	}
}

static int map(const struct guest_memory *memory, int fd, const struct memory_piece *piece)
{
	const uint64_t size = piece->end - piece->start;
	void *host = guest_memory_range(memory, piece->start, size);

	if (!host || piece->start % GUEST_PAGE_SIZE || piece->end % GUEST_PAGE_SIZE)
		return -EINVAL;
	return mmap(host, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd,
		    (off_t)piece->start) == MAP_FAILED
		       ? -errno
		       : 0;
}

/* All of it again, in one call, for the pieces that were mapped. */
static int keep_out_of_core_dumps(const struct guest_memory *memory)
{
	for (unsigned int i = 0; i < memory->region_count; i++) {
		if (madvise(memory->regions[i].host, memory->regions[i].size, MADV_DONTDUMP) < 0)
			return -errno;
	}
	return 0;
}

int memory_file_map(const struct guest_memory *memory, int fd, struct state_reader *pieces,
		    struct err *err)
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
	for (unsigned int i = 0; pieces->left > 0 && rc == 0; i++) {
		struct memory_piece piece = { .start = state_get_u64(pieces) };

		piece.end = state_get_u64(pieces);
		if (pieces->failed || i == PIECES_MAX)
			rc = -EINVAL;
		else
			rc = map(memory, fd, &piece);
	}
	if (rc == 0)
		rc = keep_out_of_core_dumps(memory);
	return rc < 0 ? err_sys(err, -rc, "mapping guest memory") : 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/snapshot/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/guest_memory.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define PAGE GUEST_PAGE_SIZE
#define LOW_END GIB(3)
#define HIGH_START GIB(4)

static struct guest_memory memory, other;
static struct err err;
static int fd;

/* In the memory of the machine, whatever is under the current folder: it is sparse, and SEEK_DATA
 * tells. */
static void set_up(void)
{
	memset(&memory, 0, sizeof(memory));
	memset(&other, 0, sizeof(other));
	fd = memfd_create("memory", MFD_CLOEXEC);
	ck_assert_int_ge(fd, 0);
}

static void tear_down(void)
{
	guest_memory_close(&memory);
	guest_memory_close(&other);
	close(fd);
}

static void set_size(uint64_t size)
{
	open_guest_memory(&memory, size);
	open_guest_memory(&other, size);
	ck_assert_int_eq(ftruncate(fd, (off_t)memory_file_size(&memory)), 0);
}

static uint8_t *at(const struct guest_memory *of, uint64_t addr)
{
	uint8_t *host = guest_memory_range(of, addr, PAGE);

	ck_assert_ptr_nonnull(host);
	return host;
}

static void save(void)
{
	ck_assert_msg(memory_file_write(&memory, fd, &err) == 0, "%s", err.text);
}

static void map(void)
{
	ck_assert_msg(memory_file_map(&other, fd, &err) == 0, "%s", err.text);
}

/* Where data begins from there on, or -1. */
static int64_t data_from(uint64_t offset)
{
	return lseek(fd, (off_t)offset, SEEK_DATA);
}

static uint64_t allocated(void)
{
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static bool is_touched(const struct guest_memory *of, uint64_t addr)
{
	unsigned char in_core;

	ck_assert_int_eq(mincore(at(of, addr), PAGE, &in_core), 0);
	return in_core & 1;
}

/* Of how many pieces the process has mapped the file. */
static unsigned int count_pieces(void)
{
	char *line = NULL;
	size_t room = 0;
	unsigned int count = 0;
	FILE *maps = fopen("/proc/self/maps", "r");

	ck_assert_ptr_nonnull(maps);
	while (getline(&line, &room, maps) > 0)
		count += strstr(line, "memfd:memory") != NULL;
	free(line);
	fclose(maps);
	return count;
}

START_TEST(file_has_bytes_at_guest_addresses)
{
	uint8_t bytes[2 * PAGE];

	set_size(MIB(16));
	ck_assert_uint_eq(memory_file_size(&memory), MIB(16));
	fill_pattern(at(&memory, 0), PAGE);
	fill_pattern(guest_memory_range(&memory, MIB(5) - PAGE, 2 * PAGE), 2 * PAGE);
	at(&memory, MIB(16) - PAGE)[PAGE - 1] = 7;
	save();
	ck_assert_int_eq(pread(fd, bytes, 2 * PAGE, MIB(5) - PAGE), 2 * PAGE);
	ck_assert_mem_eq(bytes, guest_memory_range(&memory, MIB(5) - PAGE, 2 * PAGE), 2 * PAGE);
	ck_assert_int_eq(pread(fd, bytes, PAGE, 0), PAGE);
	ck_assert_mem_eq(bytes, at(&memory, 0), PAGE);
	ck_assert_int_eq(pread(fd, bytes, PAGE, MIB(16) - PAGE), PAGE);
	ck_assert_uint_eq(bytes[PAGE - 1], 7);
}
END_TEST

/* Those that were written, and are zeros, as those that never were. */
START_TEST(zeros_are_holes)
{
	set_size(MIB(16));
	at(&memory, MIB(1))[5] = 1;
	memset(guest_memory_range(&memory, MIB(2), MIB(2)), 0, MIB(2));
	at(&memory, MIB(9))[0] = 1;
	save();
	ck_assert_int_eq(data_from(0), MIB(1));
	ck_assert_int_eq(data_from(MIB(1) + PAGE), MIB(9));
	ck_assert_int_eq(data_from(MIB(9) + PAGE), -1);
	ck_assert_uint_eq(allocated(), 2 * PAGE);
}
END_TEST

START_TEST(all_zeros_is_one_hole)
{
	set_size(MIB(16));
	save();
	ck_assert_uint_eq(allocated(), 0);
	map();
	ck_assert_uint_eq(count_pieces(), 0);
	ck_assert(all_bytes(guest_memory_range(&other, 0, MIB(16)), MIB(16), 0));
}
END_TEST

START_TEST(gap_is_a_hole)
{
	set_size(LOW_END + MIB(8));
	ck_assert_uint_eq(memory.region_count, 2);
	ck_assert_uint_eq(memory_file_size(&memory), HIGH_START + MIB(8));
	/* Not all of the memory is looked at: the first region's end, and the second. */
	memory.regions[0].host += LOW_END - MIB(4);
	memory.regions[0].base += LOW_END - MIB(4);
	memory.regions[0].size = MIB(4);
	memset(at(&memory, LOW_END - PAGE), 1, PAGE);
	memset(at(&memory, HIGH_START), 2, PAGE);
	memset(at(&memory, HIGH_START + MIB(8) - PAGE), 3, PAGE);
	save();
	ck_assert_int_eq(data_from(0), LOW_END - PAGE);
	ck_assert_int_eq(data_from(LOW_END), HIGH_START);
	ck_assert_int_eq(data_from(HIGH_START + PAGE), HIGH_START + MIB(8) - PAGE);
	map();
	ck_assert_uint_eq(count_pieces(), 3);
	ck_assert(all_bytes(at(&other, LOW_END - PAGE), PAGE, 1));
	ck_assert(all_bytes(at(&other, HIGH_START), PAGE, 2));
	ck_assert(all_bytes(at(&other, HIGH_START + MIB(8) - PAGE), PAGE, 3));
}
END_TEST

/* Data in the gap is nobody's memory: a file may have it, and nothing is mapped for it. */
START_TEST(data_in_the_gap_is_left_alone)
{
	set_size(LOW_END + MIB(8));
	ck_assert_int_eq(pwrite(fd, "x", 1, LOW_END - 1), 1);
	ck_assert_int_eq(pwrite(fd, "xxxxxxxx", 8, LOW_END - 4), 8);
	ck_assert_int_eq(pwrite(fd, "y", 1, HIGH_START - PAGE), 1);
	map();
	ck_assert_uint_eq(count_pieces(), 1);
	ck_assert_uint_eq(at(&other, LOW_END - PAGE)[PAGE - 1], 'x');
	ck_assert(all_bytes(at(&other, HIGH_START), PAGE, 0));
	/* After the first region is a guard, which is still one. */
	ck_assert_ptr_null(guest_memory_range(&other, LOW_END, 1));
}
END_TEST

START_TEST(round_trip_is_the_same_bytes)
{
	uint32_t random = 1;

	set_size(MIB(16));
	for (uint64_t addr = 0; addr < MIB(16); addr += PAGE) {
		random = random * 1103515245 + 12345;
		if (random >> 16 & 1)
			at(&memory, addr)[random >> 17 & (PAGE - 1)] =
				(uint8_t)(1 + (addr >> 12) % 255);
	}
	save();
	map();
	ck_assert_mem_eq(guest_memory_range(&other, 0, MIB(16)),
			 guest_memory_range(&memory, 0, MIB(16)), MIB(16));
}
END_TEST

START_TEST(writes_do_not_reach_the_file)
{
	uint8_t byte;

	set_size(MIB(16));
	at(&memory, MIB(1))[0] = 1;
	save();
	map();
	at(&other, MIB(1))[0] = 2;
	at(&other, MIB(2))[0] = 3;
	ck_assert_int_eq(pread(fd, &byte, 1, MIB(1)), 1);
	ck_assert_uint_eq(byte, 1);
	ck_assert_uint_eq(allocated(), PAGE);
}
END_TEST

START_TEST(file_to_read_only_is_enough)
{
	char path[32];
	int read_only;

	set_size(MIB(16));
	at(&memory, MIB(1))[0] = 1;
	save();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	read_only = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(read_only, 0);
	ck_assert_int_eq(memory_file_map(&other, read_only, &err), 0);
	close(read_only);
	at(&other, MIB(1))[1] = 2;
	ck_assert_mem_eq(at(&other, MIB(1)), "\1\2", 2);
}
END_TEST

/* A piece for each would be too many areas for a process; one for all would bring in the holes. */
START_TEST(pieces_merge_across_small_holes)
{
	static const uint64_t small = 256 << 10;

	set_size(MIB(16));
	at(&memory, MIB(1))[0] = 1;
	at(&memory, MIB(1) + small)[0] = 1; /* one page less than that between them */
	save();
	map();
	ck_assert_uint_eq(count_pieces(), 1);
}
END_TEST

START_TEST(pieces_do_not_merge_across_large_holes)
{
	static const uint64_t small = 256 << 10;

	set_size(MIB(16));
	at(&memory, MIB(1))[0] = 1;
	at(&memory, MIB(1) + small + PAGE)[0] = 1;
	at(&memory, MIB(8))[0] = 1;
	save();
	map();
	ck_assert_uint_eq(count_pieces(), 3);
	ck_assert_uint_eq(at(&other, MIB(1) + small + PAGE)[0], 1);
	ck_assert_uint_eq(at(&other, MIB(8))[0], 1);
}
END_TEST

START_TEST(holes_stay_untouched_memory)
{
	set_size(MIB(16));
	at(&memory, MIB(1))[0] = 1;
	save();
	map();
	for (uint64_t addr = MIB(2); addr < MIB(16); addr += PAGE)
		ck_assert(!is_touched(&other, addr));
	/* And are written as any. */
	at(&other, MIB(3))[0] = 1;
	ck_assert(is_touched(&other, MIB(3)));
}
END_TEST

/* Data that begins and ends anywhere, as in a file that another program has made. */
START_TEST(data_need_not_end_with_a_page)
{
	set_size(MIB(16));
	ck_assert_int_eq(pwrite(fd, "abc", 3, MIB(1) + PAGE - 1), 3);
	map();
	ck_assert_uint_eq(at(&other, MIB(1))[PAGE - 1], 'a');
	ck_assert_mem_eq(at(&other, MIB(1) + PAGE), "bc\0", 3);
}
END_TEST

static void refuse(int file)
{
	err.text[0] = '\0';
	ck_assert_int_eq(memory_file_map(&other, file, &err), -EINVAL);
	ck_assert_str_eq(err.text, "its memory file is not a regular file of 16777216 bytes, as "
				   "the guest's memory has");
	ck_assert_uint_eq(count_pieces(), 0);
}

START_TEST(file_of_another_size_is_refused)
{
	set_size(MIB(16));
	at(&memory, 0)[0] = 1;
	save();
	ck_assert_int_eq(ftruncate(fd, MIB(16) - 1), 0);
	refuse(fd);
	ck_assert_int_eq(ftruncate(fd, MIB(16) + PAGE), 0);
	refuse(fd);
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	refuse(fd);
}
END_TEST

START_TEST(what_is_no_regular_file_is_refused)
{
	int folder = open(".", O_RDONLY | O_CLOEXEC), fifo;

	set_size(MIB(16));
	refuse(folder);
	close(folder);
	ck_assert_int_eq(mkfifo("fifo", 0600), 0);
	fifo = open("fifo", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ck_assert_int_ge(fifo, 0);
	refuse(fifo);
	close(fifo);
	unlink("fifo");
}
END_TEST

START_TEST(write_that_fails_is_told)
{
	set_size(MIB(16));
	at(&memory, 0)[0] = 1;
	close(fd);
	fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(memory_file_write(&memory, fd, &err), -ENOSPC);
	ck_assert_str_eq(err.text, "writing guest memory: No space left on device");
}
END_TEST

Suite *snapshot_memory_suite(void)
{
	return SUITE("snapshot_memory", set_up, tear_down, file_has_bytes_at_guest_addresses,
		     zeros_are_holes, all_zeros_is_one_hole, gap_is_a_hole,
		     data_in_the_gap_is_left_alone, round_trip_is_the_same_bytes,
		     writes_do_not_reach_the_file, file_to_read_only_is_enough,
		     pieces_merge_across_small_holes, pieces_do_not_merge_across_large_holes,
		     holes_stay_untouched_memory, data_need_not_end_with_a_page,
		     file_of_another_size_is_refused, what_is_no_regular_file_is_refused,
		     write_that_fails_is_told);
}

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

#define HOLE_MIN (UINT64_C(256) << 10)
#define PIECES_MAX 16384

static struct guest_memory memory, other;
static struct state_writer section;
static struct err err;
static int fd;

/* The file is sparse, and SEEK_DATA tells, whatever is under the current folder. */
static void set_up(void)
{
	memset(&memory, 0, sizeof(memory));
	memset(&other, 0, sizeof(other));
	section = (struct state_writer){ 0 };
	fd = memfd_create("memory", MFD_CLOEXEC);
	ck_assert_int_ge(fd, 0);
}

static void tear_down(void)
{
	guest_memory_close(&memory);
	guest_memory_close(&other);
	state_writer_free(&section);
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
	CLEANUP_MEMORY_PIECES struct memory_pieces pieces = { 0 };

	ck_assert_msg(memory_file_write(&memory, fd, &pieces, &err) == 0, "%s", err.text);
	memory_pieces_save(&pieces, &section);
}

static void add_piece(uint64_t start, uint64_t end)
{
	state_put_u64(&section, start);
	state_put_u64(&section, end);
}

static int try_map(int file)
{
	struct state_reader pieces = { .at = section.data, .left = section.size };
	int rc;

	err.text[0] = '\0';
	rc = memory_file_map(&other, file, &pieces, &err);
	if (rc == 0)
		ck_assert(state_is_done(&pieces));
	return rc;
}

static void map(void)
{
	ck_assert_msg(try_map(fd) == 0, "%s", err.text);
}

static void check_piece(size_t index, uint64_t start, uint64_t end)
{
	struct state_reader pieces = { .at = section.data, .left = section.size };

	ck_assert_uint_gt(section.size, index * 2 * sizeof(uint64_t));
	for (size_t i = 0; i < 2 * index; i++)
		(void)state_get_u64(&pieces);
	ck_assert_uint_eq(state_get_u64(&pieces), start);
	ck_assert_uint_eq(state_get_u64(&pieces), end);
}

static size_t saved_pieces(void)
{
	return section.size / (2 * sizeof(uint64_t));
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

/* What no piece has is not the file's, whatever the file has there. */
START_TEST(only_pieces_are_mapped)
{
	set_size(LOW_END + MIB(8));
	ck_assert_int_eq(pwrite(fd, "x", 1, MIB(1)), 1);
	ck_assert_int_eq(pwrite(fd, "y", 1, MIB(2)), 1);
	ck_assert_int_eq(pwrite(fd, "z", 1, LOW_END), 1);
	add_piece(MIB(1), MIB(1) + PAGE);
	map();
	ck_assert_uint_eq(count_pieces(), 1);
	ck_assert_uint_eq(at(&other, MIB(1))[0], 'x');
	ck_assert(all_bytes(at(&other, MIB(1) + PAGE), MIB(2), 0));
	ck_assert(all_bytes(at(&other, LOW_END - PAGE), PAGE, 0));
	ck_assert(all_bytes(at(&other, HIGH_START), PAGE, 0));
}
END_TEST

/* A copy that has lost its holes is larger, and the same memory. */
START_TEST(file_without_holes_is_the_same)
{
	static uint8_t zeros[MIB(1)];

	set_size(MIB(16));
	at(&memory, MIB(8))[0] = 1;
	for (uint64_t offset = 0; offset < MIB(16); offset += MIB(1))
		ck_assert_int_eq(pwrite(fd, zeros, MIB(1), (off_t)offset), MIB(1));
	save();
	map();
	ck_assert_uint_eq(saved_pieces(), 1);
	ck_assert_uint_eq(count_pieces(), 1);
	ck_assert_mem_eq(guest_memory_range(&other, 0, MIB(16)),
			 guest_memory_range(&memory, 0, MIB(16)), MIB(16));
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
	ck_assert_int_eq(try_map(read_only), 0);
	close(read_only);
	at(&other, MIB(1))[1] = 2;
	ck_assert_mem_eq(at(&other, MIB(1)), "\1\2", 2);
}
END_TEST

/* A piece for each would be too many areas for a process; one for all would bring in the holes. */
START_TEST(pieces_merge_across_small_holes)
{
	set_size(MIB(16));
	at(&memory, MIB(1))[0] = 1;
	at(&memory, MIB(1) + HOLE_MIN)[0] = 1; /* one page less than that between them */
	/* Where two steps of the writer meet. */
	at(&memory, MIB(4) - PAGE)[0] = 1;
	at(&memory, MIB(4))[0] = 1;
	save();
	ck_assert_uint_eq(saved_pieces(), 2);
	check_piece(0, MIB(1), MIB(1) + HOLE_MIN + PAGE);
	check_piece(1, MIB(4) - PAGE, MIB(4) + PAGE);
	map();
	ck_assert_uint_eq(count_pieces(), 2);
	ck_assert_uint_eq(at(&other, MIB(1) + HOLE_MIN)[0], 1);
}
END_TEST

START_TEST(pieces_do_not_merge_across_large_holes)
{
	set_size(MIB(16));
	at(&memory, MIB(1))[0] = 1;
	at(&memory, MIB(1) + PAGE + HOLE_MIN)[0] = 1;
	at(&memory, MIB(8))[0] = 1;
	save();
	ck_assert_uint_eq(saved_pieces(), 3);
	check_piece(0, MIB(1), MIB(1) + PAGE);
	check_piece(1, MIB(1) + PAGE + HOLE_MIN, MIB(1) + 2 * PAGE + HOLE_MIN);
	check_piece(2, MIB(8), MIB(8) + PAGE);
	map();
	ck_assert_uint_eq(count_pieces(), 3);
	ck_assert_uint_eq(at(&other, MIB(1) + PAGE + HOLE_MIN)[0], 1);
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

/* As all of guest memory is: whether it came from the file or not. */
START_TEST(pieces_are_in_no_core_dump)
{
	char *line = NULL;
	size_t room = 0;
	unsigned int count = 0;
	bool ours = false;
	FILE *areas;

	set_size(MIB(16));
	at(&memory, MIB(1))[0] = 1;
	at(&memory, MIB(8))[0] = 1;
	save();
	map();
	areas = fopen("/proc/self/smaps", "r");
	ck_assert_ptr_nonnull(areas);
	while (getline(&line, &room, areas) > 0) {
		if (strstr(line, "memfd:memory"))
			ours = true;
		if (!ours || strncmp(line, "VmFlags:", 8) != 0)
			continue;
		assert_contains(line, " dd");
		count++;
		ours = false;
	}
	free(line);
	fclose(areas);
	ck_assert_uint_eq(count, 2);
}
END_TEST

/* Of those before it, which are good, some may be mapped then: the microVM is not made. */
static void refuse_piece(uint64_t start, uint64_t end)
{
	section.size = 0;
	add_piece(0, PAGE);
	add_piece(start, end);
	ck_assert_int_eq(try_map(fd), -EINVAL);
	ck_assert_str_eq(err.text, "mapping guest memory: Invalid argument");
}

START_TEST(hostile_pieces_are_refused)
{
	const uint64_t end = HIGH_START + MIB(8);

	set_size(LOW_END + MIB(8));
	/* Nothing, and less. */
	refuse_piece(MIB(1), MIB(1));
	refuse_piece(MIB(2), MIB(1));
	refuse_piece(UINT64_MAX - PAGE + 1, 0);
	refuse_piece(PAGE, UINT64_MAX - PAGE + 1);
	/* Outside, beside the end, across the gap, in it. */
	refuse_piece(end, end + PAGE);
	refuse_piece(end - PAGE, end + PAGE);
	refuse_piece(UINT64_MAX - 2 * PAGE + 1, UINT64_MAX - PAGE + 1);
	refuse_piece(LOW_END - PAGE, LOW_END + PAGE);
	refuse_piece(LOW_END - PAGE, HIGH_START + PAGE);
	refuse_piece(LOW_END, LOW_END + PAGE);
	refuse_piece(HIGH_START - PAGE, HIGH_START);
	refuse_piece(HIGH_START - PAGE, HIGH_START + PAGE);
	/* Within pages. */
	refuse_piece(MIB(1) + 1, MIB(1) + PAGE);
	refuse_piece(MIB(1), MIB(1) + 1);
	refuse_piece(MIB(1) + 512, MIB(1) + PAGE + 512);
	/* Of those that were mapped, nothing has come to lie elsewhere. */
	ck_assert_uint_eq(count_pieces(), 1);
	ck_assert(all_bytes(at(&other, LOW_END - PAGE), PAGE, 0));
	ck_assert(all_bytes(at(&other, HIGH_START), PAGE, 0));
}
END_TEST

START_TEST(section_that_is_cut_off_is_refused)
{
	set_size(MIB(16));
	add_piece(0, PAGE);
	add_piece(MIB(1), MIB(1) + PAGE);
	for (size_t size = 2 * sizeof(uint64_t) + 1; size < 4 * sizeof(uint64_t); size++) {
		section.size = size;
		ck_assert_int_eq(try_map(fd), -EINVAL);
	}
	section.size = 4 * sizeof(uint64_t);
	map();
}
END_TEST

/* The same place of the file comes to the same address, as often as it is said, in any order. */
START_TEST(pieces_that_overlap_are_harmless)
{
	set_size(MIB(16));
	fill_pattern(guest_memory_range(&memory, MIB(1), MIB(3)), MIB(3));
	save();
	section.size = 0;
	add_piece(MIB(2), MIB(4));
	add_piece(MIB(1), MIB(3));
	add_piece(MIB(2) + PAGE, MIB(2) + 2 * PAGE);
	add_piece(MIB(1), MIB(3));
	map();
	ck_assert_mem_eq(guest_memory_range(&other, 0, MIB(16)),
			 guest_memory_range(&memory, 0, MIB(16)), MIB(16));
}
END_TEST

START_TEST(too_many_pieces_are_refused)
{
	set_size(MIB(16));
	for (unsigned int i = 0; i < PIECES_MAX; i++)
		add_piece(0, PAGE);
	map();
	add_piece(0, PAGE);
	ck_assert_int_eq(try_map(fd), -EINVAL);
}
END_TEST

static void refuse(int file)
{
	ck_assert_int_eq(try_map(file), -EINVAL);
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
	CLEANUP_MEMORY_PIECES struct memory_pieces pieces = { 0 };

	set_size(MIB(16));
	at(&memory, 0)[0] = 1;
	close(fd);
	fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(memory_file_write(&memory, fd, &pieces, &err), -ENOSPC);
	ck_assert_str_eq(err.text, "writing guest memory: No space left on device");
}
END_TEST

Suite *snapshot_memory_suite(void)
{
	return SUITE("snapshot_memory", set_up, tear_down, file_has_bytes_at_guest_addresses,
		     zeros_are_holes, all_zeros_is_one_hole, gap_is_a_hole, only_pieces_are_mapped,
		     file_without_holes_is_the_same, round_trip_is_the_same_bytes,
		     writes_do_not_reach_the_file, file_to_read_only_is_enough,
		     pieces_merge_across_small_holes, pieces_do_not_merge_across_large_holes,
		     holes_stay_untouched_memory, pieces_are_in_no_core_dump,
		     hostile_pieces_are_refused, section_that_is_cut_off_is_refused,
		     pieces_that_overlap_are_harmless, too_many_pieces_are_refused,
		     file_of_another_size_is_refused, what_is_no_regular_file_is_refused,
		     write_that_fails_is_told);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "base/guest_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define PAGE GUEST_PAGE_SIZE

/* Small enough to be looked at whole: 2 MiB, a gap, and 2 MiB more. */
#define LOW_SIZE MIB(2)
#define HIGH_BASE GIB(1)

static struct guest_memory memory;
static struct err err;

static void tear_down(void)
{
	guest_memory_close(&memory);
}

static void set_up_split(void)
{
	ck_assert_int_eq(
		guest_memory_open(&memory, MIB(4), LOW_SIZE, HIGH_BASE, HUGE_PAGES_NONE, &err), 0);
}

static void assert_touchable(uint64_t addr)
{
	const uint8_t byte = 0xa5;

	ck_assert_int_eq(guest_memory_write(&memory, addr, &byte, 1), 0);
	ck_assert_uint_eq(guest_value(&memory, addr, 1), byte);
}

static const struct {
	uint64_t size, low, high;
} splits[] = {
	{ MIB(16), MIB(16), 0 },    { GIB(3), GIB(3), 0 },	    { GIB(3) + PAGE, GIB(3), PAGE },
	{ GIB(5), GIB(3), GIB(2) }, { GIB(300), GIB(3), GIB(297) },
};

START_TEST(memory_that_reaches_the_gap_goes_on_behind_it)
{
	open_guest_memory(&memory, splits[_i].size);
	ck_assert_uint_eq(guest_memory_size(&memory), splits[_i].size);
	ck_assert_uint_eq(memory.region_count, splits[_i].high ? 2 : 1);
	ck_assert_uint_eq(memory.regions[0].base, 0);
	ck_assert_uint_eq(memory.regions[0].size, splits[_i].low);
	assert_touchable(splits[_i].low - 1);
	ck_assert_ptr_null(guest_memory_range(&memory, splits[_i].low, 1));
	if (splits[_i].high) {
		ck_assert_uint_eq(memory.regions[1].base, GIB(4));
		ck_assert_uint_eq(memory.regions[1].size, splits[_i].high);
		ck_assert_ptr_null(guest_memory_range(&memory, GIB(4) - 1, 1));
		assert_touchable(GIB(4));
		assert_touchable(GIB(4) + splits[_i].high - 1);
	}
}
END_TEST

static const uint64_t bad_sizes[] = { 0, 1, PAGE - 1, PAGE + 1, UINT64_C(1) << 47, UINT64_MAX };

START_TEST(impossible_size_is_refused)
{
	ck_assert_int_eq(
		guest_memory_open(&memory, bad_sizes[_i], GIB(3), GIB(4), HUGE_PAGES_NONE, &err),
		-EINVAL);
	assert_contains(err.text, "guest memory");
	ck_assert_ptr_null(memory.mapping);
}
END_TEST

START_TEST(memory_starts_zeroed)
{
	open_guest_memory(&memory, MIB(2));
	ck_assert(all_bytes(guest_memory_range(&memory, 0, MIB(2)), MIB(2), 0));
}
END_TEST

START_TEST(close_may_be_repeated)
{
	open_guest_memory(&memory, MIB(2));
	guest_memory_close(&memory);
	guest_memory_close(&memory);
	ck_assert_uint_eq(guest_memory_size(&memory), 0);
	ck_assert_ptr_null(guest_memory_range(&memory, 0, 1));
}
END_TEST

START_TEST(transparent_huge_pages_fit_the_guest_address)
{
	ck_assert_int_eq(
		guest_memory_open(&memory, MIB(8), GIB(3), GIB(4), HUGE_PAGES_TRANSPARENT, &err),
		0);
	ck_assert_uint_eq((uintptr_t)memory.regions[0].host % MIB(2), 0);
	assert_touchable(MIB(8) - 1);
}
END_TEST

/* Otherwise the first page that is missing ends the process. */
START_TEST(huge_pages_that_the_host_lacks_are_an_error)
{
	ck_assert_int_eq(guest_memory_open(&memory, GIB(300), GIB(3), GIB(4), HUGE_PAGES_2M, &err),
			 -ENOMEM);
	assert_contains(err.text, "2 MiB huge pages");
	ck_assert_ptr_null(memory.mapping);
}
END_TEST

static const struct {
	uint64_t addr, len;
	bool inside;
} ranges[] = {
	{ 0, 1, true },
	{ 0, LOW_SIZE, true },
	{ LOW_SIZE - 1, 1, true },
	{ HIGH_BASE, 1, true },
	{ HIGH_BASE, MIB(2), true },
	{ HIGH_BASE + MIB(2) - 1, 1, true },
	{ 0, 0, false },
	{ HIGH_BASE, 0, false },
	{ 0, LOW_SIZE + 1, false },
	{ LOW_SIZE - 1, 2, false },
	{ LOW_SIZE, 1, false },
	{ LOW_SIZE, 0, false },
	{ LOW_SIZE - 1, HIGH_BASE, false },
	{ HIGH_BASE - 1, 1, false },
	{ HIGH_BASE - 1, 2, false },
	{ HIGH_BASE, MIB(2) + 1, false },
	{ HIGH_BASE + MIB(2), 1, false },
	{ 1, UINT64_MAX, false },
	{ HIGH_BASE + 1, UINT64_MAX, false },
	{ UINT64_MAX, 1, false },
	{ UINT64_MAX, UINT64_MAX, false },
};

START_TEST(range_is_inside_one_region)
{
	ck_assert_int_eq(guest_memory_range(&memory, ranges[_i].addr, ranges[_i].len) != NULL,
			 ranges[_i].inside);
}
END_TEST

START_TEST(range_points_at_its_region)
{
	ck_assert_ptr_eq(guest_memory_range(&memory, 5, 1), memory.regions[0].host + 5);
	ck_assert_ptr_eq(guest_memory_range(&memory, HIGH_BASE + 5, 1), memory.regions[1].host + 5);
}
END_TEST

START_TEST(copy_that_leaves_a_region_copies_nothing)
{
	uint8_t data[2] = { 1, 2 };

	ck_assert_int_eq(guest_memory_write(&memory, LOW_SIZE - 1, data, 2), -EFAULT);
	ck_assert_uint_eq(guest_value(&memory, LOW_SIZE - 1, 1), 0);
	ck_assert_int_eq(guest_memory_read(&memory, LOW_SIZE - 1, data, 2), -EFAULT);
	ck_assert_uint_eq(data[0], 1);
}
END_TEST

/* Loading from a file of FILE_PAGES pages and a bit. */
#define FILE_PAGES 4
#define FILE_SIZE (FILE_PAGES * PAGE + 100)

static uint8_t content[FILE_SIZE];
static int file = -1;

static void set_up_load(void)
{
	set_up_split();
	fill_pattern(content, sizeof(content));
	write_file("content", content, sizeof(content));
	file = open("content", O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(file, 0);
}

static void tear_down_load(void)
{
	tear_down();
	fd_close(&file);
}

static void assert_file_unchanged(void)
{
	uint8_t now[FILE_SIZE];

	ck_assert_int_eq(fd_pread_exact(file, now, sizeof(now), 0), 0);
	ck_assert_mem_eq(now, content, sizeof(now));
}

static const struct {
	uint64_t addr, offset, len;
} loads[] = {
	{ 0x10000, 0, FILE_PAGES *PAGE },      /* whole pages */
	{ 0x10000, 0, FILE_SIZE },	       /* and a bit */
	{ 0x10000, PAGE, 100 },		       /* less than a page */
	{ 0x10300, 0x300, FILE_SIZE - 0x300 }, /* a head, pages, a tail */
	{ 0x10300, 0x300, PAGE - 0x300 },      /* only a head */
	{ 0x10300, 0x300, PAGE },	       /* head and tail without a page between */
	{ 0x10000, 0x300, FILE_SIZE - 0x300 }, /* not aligned with one another */
	{ 0x10001, 0, FILE_SIZE },
	{ HIGH_BASE, 0, FILE_SIZE },
	{ LOW_SIZE - FILE_PAGES * PAGE, 0, FILE_PAGES *PAGE },
};

START_TEST(load_brings_the_file_and_nothing_else)
{
	uint64_t addr = loads[_i].addr, len = loads[_i].len;
	const uint8_t *at;

	ck_assert_int_eq(guest_memory_load(&memory, addr, file, loads[_i].offset, len), 0);
	at = guest_memory_range(&memory, addr, len);
	ck_assert_mem_eq(at, content + loads[_i].offset, len);
	if (guest_memory_range(&memory, addr - PAGE, PAGE))
		ck_assert(all_bytes(at - PAGE, PAGE, 0));
	if (guest_memory_range(&memory, addr + len, 2 * PAGE))
		ck_assert(all_bytes(at + len, 2 * PAGE, 0));
}
END_TEST

START_TEST(guest_writes_do_not_reach_the_file)
{
	uint8_t *at;

	ck_assert_int_eq(guest_memory_load(&memory, 0, file, 0, FILE_SIZE), 0);
	at = guest_memory_range(&memory, 0, FILE_SIZE);
	memset(at, 0xee, FILE_SIZE);
	assert_file_unchanged();
}
END_TEST

/* Whether whole pages of both agree with one another, which a mapping would take, or not. */
static const struct {
	uint64_t addr;
	enum huge_pages huge_pages;
} copies[] = {
	{ 0, HUGE_PAGES_NONE },
	{ 8, HUGE_PAGES_NONE },
	{ 0, HUGE_PAGES_TRANSPARENT },
};

START_TEST(what_happens_to_the_file_is_nothing_to_the_guest)
{
	uint8_t other[FILE_SIZE];

	memset(other, 0xee, sizeof(other));
	guest_memory_close(&memory);
	ck_assert_int_eq(
		guest_memory_open(&memory, MIB(4), GIB(3), GIB(4), copies[_i].huge_pages, &err), 0);
	ck_assert_int_eq(guest_memory_load(&memory, copies[_i].addr, file, 0, FILE_SIZE), 0);
	ck_assert_int_eq(pwrite(file, other, FILE_SIZE, 0), FILE_SIZE);
	ck_assert_mem_eq(guest_memory_range(&memory, copies[_i].addr, FILE_SIZE), content,
			 FILE_SIZE);
	ck_assert_int_eq(ftruncate(file, 0), 0);
	ck_assert_mem_eq(guest_memory_range(&memory, copies[_i].addr, FILE_SIZE), content,
			 FILE_SIZE);
}
END_TEST

static const struct {
	uint64_t addr, offset, len;
	int expected;
} bad_loads[] = {
	{ 0, 0, FILE_SIZE + 1, -ENODATA },
	{ 0, 1, FILE_SIZE, -ENODATA },
	{ 0, FILE_SIZE, 1, -ENODATA },
	{ 0, UINT64_MAX, 1, -ENODATA },
	{ 0, UINT64_MAX - PAGE + 1, 2 * PAGE, -ENODATA },
	{ LOW_SIZE - PAGE, 0, 2 * PAGE, -EFAULT },
	{ LOW_SIZE, 0, PAGE, -EFAULT },
	{ HIGH_BASE + MIB(2) - 1, 0, 2, -EFAULT },
	{ UINT64_MAX, 0, 2, -EFAULT },
	{ 0, 0, UINT64_MAX, -EFAULT },
};

START_TEST(load_that_does_not_fit_is_refused)
{
	ck_assert_int_eq(guest_memory_load(&memory, bad_loads[_i].addr, file, bad_loads[_i].offset,
					   bad_loads[_i].len),
			 bad_loads[_i].expected);
}
END_TEST

/* The kernel's flags of the mapping that an address is in. */
static void read_flags(const void *address, char *flags, size_t size)
{
	const unsigned long wanted = (unsigned long)(uintptr_t)address;
	FILE *smaps = fopen("/proc/self/smaps", "re");
	unsigned long begin, end;
	bool here = false;
	char line[512];

	flags[0] = '\0';
	while (smaps && fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%lx-%lx ", &begin, &end) == 2)
			here = wanted >= begin && wanted < end;
		else if (here && strncmp(line, "VmFlags:", 8) == 0)
			snprintf(flags, size, "%s", line);
	}
	ck_assert_ptr_nonnull(smaps);
	fclose(smaps);
}

START_TEST(core_dumps_leave_it_out)
{
	char flags[512];

	set_up_split();
	for (unsigned int i = 0; i < memory.region_count; i++) {
		read_flags(memory.regions[i].host, flags, sizeof(flags));
		assert_contains(flags, " dd ");
	}
}
END_TEST

Suite *guest_memory_suite(void)
{
	Suite *suite =
		SUITE("guest_memory", NULL, tear_down, memory_starts_zeroed, close_may_be_repeated,
		      core_dumps_leave_it_out, transparent_huge_pages_fit_the_guest_address,
		      huge_pages_that_the_host_lacks_are_an_error);

	add_tests(suite, "ranges", set_up_split, tear_down, range_points_at_its_region,
		  copy_that_leaves_a_region_copies_nothing);
	add_tests(suite, "load", set_up_load, tear_down_load, guest_writes_do_not_reach_the_file);
	add_table_test(suite, set_up_load, tear_down_load,
		       what_happens_to_the_file_is_nothing_to_the_guest, ARRAY_SIZE(copies));
	add_table_test(suite, NULL, tear_down, memory_that_reaches_the_gap_goes_on_behind_it,
		       ARRAY_SIZE(splits));
	add_table_test(suite, NULL, tear_down, impossible_size_is_refused, ARRAY_SIZE(bad_sizes));
	add_table_test(suite, set_up_split, tear_down, range_is_inside_one_region,
		       ARRAY_SIZE(ranges));
	add_table_test(suite, set_up_load, tear_down_load, load_brings_the_file_and_nothing_else,
		       ARRAY_SIZE(loads));
	add_table_test(suite, set_up_load, tear_down_load, load_that_does_not_fit_is_refused,
		       ARRAY_SIZE(bad_loads));
	return suite;
}

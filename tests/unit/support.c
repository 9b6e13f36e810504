/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/support.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/guest_memory.h"
#include "vmm/boot/layout.h"

void add_case(Suite *suite, const char *name, SFun set_up, SFun tear_down,
	      const TTest *const tests[])
{
	TCase *tcase = tcase_create(name);

	tcase_add_checked_fixture(tcase, set_up, tear_down);
	for (; *tests; tests++)
		tcase_add_test(tcase, *tests);
	suite_add_tcase(suite, tcase);
}

Suite *suite_of(const char *name, SFun set_up, SFun tear_down, const TTest *const tests[])
{
	Suite *suite = suite_create(name);

	add_case(suite, name, set_up, tear_down, tests);
	return suite;
}

void add_table_test(Suite *suite, SFun set_up, SFun tear_down, const TTest *test, size_t rows)
{
	TCase *tcase = tcase_create(test->name);

	tcase_add_checked_fixture(tcase, set_up, tear_down);
	tcase_add_loop_test(tcase, test, 0, (int)rows);
	suite_add_tcase(suite, tcase);
}

void write_file(const char *name, const void *data, size_t size)
{
	CLEANUP_FD int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fd_write_all(fd, data, size), 0);
}

void write_text(const char *name, const char *text)
{
	write_file(name, text, strlen(text));
}

char *read_text(const char *name)
{
	CLEANUP_FD int fd = open(name, O_RDONLY | O_CLOEXEC);
	off_t size = lseek(fd, 0, SEEK_END);
	char *text;

	ck_assert_int_ge(size, 0);
	text = malloc((size_t)size + 1);
	ck_assert_ptr_nonnull(text);
	ck_assert_int_eq(fd_pread_exact(fd, text, (size_t)size, 0), 0);
	text[size] = '\0';
	return text;
}

void read_all(int fd, void *data, size_t size)
{
	uint8_t *at = data;

	while (size > 0) {
		ssize_t n = read(fd, at, size);

		ck_assert_int_gt(n, 0);
		at += n;
		size -= (size_t)n;
	}
}

unsigned int count_open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int count = 0;

	ck_assert_ptr_nonnull(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

uint64_t take_eventfd(int fd)
{
	uint64_t value;

	return read(fd, &value, sizeof(value)) == (ssize_t)sizeof(value) ? value : 0;
}

void open_guest_memory(struct guest_memory *memory, uint64_t size)
{
	struct err err;

	ck_assert_int_eq(guest_memory_open(memory, size, LAYOUT_MMIO_GAP_START, LAYOUT_MMIO_GAP_END,
					   HUGE_PAGES_NONE, &err),
			 0);
}

uint64_t guest_value(const struct guest_memory *memory, uint64_t addr, size_t size)
{
	uint64_t value = 0;

	ck_assert_int_eq(guest_memory_read(memory, addr, &value, size), 0);
	return value;
}

uint8_t guest_sum(const struct guest_memory *memory, uint64_t addr, size_t size)
{
	const uint8_t *bytes = guest_memory_range(memory, addr, size);
	uint8_t sum = 0;

	ck_assert_ptr_nonnull(bytes);
	for (size_t i = 0; i < size; i++)
		sum = (uint8_t)(sum + bytes[i]);
	return sum;
}

bool guest_has(const struct guest_memory *memory, uint64_t addr, const char *text)
{
	const void *bytes = guest_memory_range(memory, addr, strlen(text));

	return bytes && memcmp(bytes, text, strlen(text)) == 0;
}

bool all_bytes(const void *data, size_t size, uint8_t value)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i < size; i++) {
		if (bytes[i] != value)
			return false;
	}
	return true;
}

void fill_pattern(void *data, size_t size)
{
	uint8_t *bytes = data;

	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)(i % 251);
}

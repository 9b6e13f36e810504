/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What several suites need. The tests run in an empty temporary directory, so their files have
 * plain names.
 */
#ifndef MOTE_TESTS_UNIT_SUPPORT_H
#define MOTE_TESTS_UNIT_SUPPORT_H

#include <check.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct guest_memory;

#define MIB(n) ((uint64_t)(n) << 20)
#define GIB(n) ((uint64_t)(n) << 30)

/* A suite of the tests given; the fixtures run around each test and may be NULL. */
#define SUITE(name, set_up, tear_down, ...)                                                        \
	suite_of(name, set_up, tear_down, (const TTest *const[]){ __VA_ARGS__, NULL })
Suite *suite_of(const char *name, SFun set_up, SFun tear_down, const TTest *const tests[]);

/* Adds tests with other fixtures. */
#define add_tests(suite, name, set_up, tear_down, ...)                                             \
	add_case(suite, name, set_up, tear_down, (const TTest *const[]){ __VA_ARGS__, NULL })
void add_case(Suite *suite, const char *name, SFun set_up, SFun tear_down,
	      const TTest *const tests[]);

/* A test that is run once for each row of a table: START_TEST's _i is the row. */
void add_table_test(Suite *suite, SFun set_up, SFun tear_down, const TTest *test, size_t rows);

#define assert_contains(text, part)                                                                \
	ck_assert_msg(strstr((text), (part)) != NULL, "\"%s\" does not contain \"%s\"", (text),    \
		      (part))

/* Creates or overwrites a file. */
void write_file(const char *name, const void *data, size_t size);
void write_text(const char *name, const char *text);
/* The whole file as a string, to be freed. */
char *read_text(const char *name);
/* Reads exactly size bytes of a pipe that has them. */
void read_all(int fd, void *data, size_t size);

unsigned int count_open_fds(void);

/* Takes what has been written to a non-blocking eventfd; 0 if nothing. */
uint64_t take_eventfd(int fd);

/* Guest memory with the machine's MMIO gap. */
void open_guest_memory(struct guest_memory *memory, uint64_t size);
/* A little-endian integer of `size` bytes in guest memory. */
uint64_t guest_value(const struct guest_memory *memory, uint64_t addr, size_t size);
/* The sum of the bytes, which is 0 for a firmware table. */
uint8_t guest_sum(const struct guest_memory *memory, uint64_t addr, size_t size);
/* Compares bytes at addr with those of a string without its terminating zero. */
bool guest_has(const struct guest_memory *memory, uint64_t addr, const char *text);
/* Whether all bytes of the range are `value`. */
bool all_bytes(const void *data, size_t size, uint8_t value);
/* Fills with a sequence that no page or buffer size divides. */
void fill_pattern(void *data, size_t size);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "vmm/boot/params.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/guest_memory.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "vmm/boot/kernel_image.h"
#include "vmm/boot/layout.h"

#define RAM 1
#define RESERVED 2
#define KERNEL_END MIB(8)

static struct guest_memory memory;
static struct boot_initrd initrd;
static struct err err;
static int file = -1;

static void set_up(void)
{
	initrd = (struct boot_initrd){ 0 };
	open_guest_memory(&memory, MIB(128));
}

static void tear_down(void)
{
	guest_memory_close(&memory);
	fd_close(&file);
}

static void open_file(size_t size)
{
	file = open("initrd", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ck_assert_int_ge(file, 0);
	ck_assert_int_eq(ftruncate(file, (off_t)size), 0);
}

static int load_initrd(void)
{
	return boot_load_initrd(&memory, file, "initrd", KERNEL_END, &initrd, &err);
}

static const struct {
	uint64_t size;
	unsigned int count;
	struct boot_e820_entry entries[4];
} maps[] = {
	{ MIB(16),
	  3,
	  { { 0, 0x9fc00, RAM }, { 0x9fc00, 0x60400, RESERVED }, { MIB(1), MIB(15), RAM } } },
	{ MIB(128),
	  3,
	  { { 0, 0x9fc00, RAM }, { 0x9fc00, 0x60400, RESERVED }, { MIB(1), MIB(127), RAM } } },
	{ GIB(3),
	  3,
	  { { 0, 0x9fc00, RAM },
	    { 0x9fc00, 0x60400, RESERVED },
	    { MIB(1), GIB(3) - MIB(1), RAM } } },
	{ GIB(5),
	  4,
	  { { 0, 0x9fc00, RAM },
	    { 0x9fc00, 0x60400, RESERVED },
	    { MIB(1), GIB(3) - MIB(1), RAM },
	    { GIB(4), GIB(2), RAM } } },
};

static void assert_map_entry(const struct boot_e820_entry *entry,
			     const struct boot_e820_entry *expected)
{
	ck_assert_uint_eq(entry->addr, expected->addr);
	ck_assert_uint_eq(entry->size, expected->size);
	ck_assert_uint_eq(entry->type, expected->type);
}

START_TEST(memory_map_is_ram_without_tables_and_gap)
{
	struct boot_e820_entry map[8];

	open_guest_memory(&memory, maps[_i].size);
	ck_assert_uint_eq(boot_memory_map(&memory, map, ARRAY_SIZE(map)), maps[_i].count);
	for (unsigned int i = 0; i < maps[_i].count; i++)
		assert_map_entry(&map[i], &maps[_i].entries[i]);
}
END_TEST

START_TEST(memory_map_stops_at_the_room_given)
{
	struct boot_e820_entry map[3] = { [2] = { 1, 2, 3 } };

	ck_assert_uint_eq(boot_memory_map(&memory, map, 2), 2);
	ck_assert_uint_eq(map[2].addr, 1);
}
END_TEST

START_TEST(command_line_of_2047_bytes_fits)
{
	char cmdline[LAYOUT_CMDLINE_SIZE];

	memset(cmdline, 'c', sizeof(cmdline) - 1);
	cmdline[sizeof(cmdline) - 1] = '\0';
	memset(guest_memory_range(&memory, LAYOUT_CMDLINE, 4096), 0xff, 4096);
	ck_assert_int_eq(boot_write_cmdline(&memory, cmdline, &err), 0);
	ck_assert_mem_eq(guest_memory_range(&memory, LAYOUT_CMDLINE, sizeof(cmdline)), cmdline,
			 sizeof(cmdline));
}
END_TEST

START_TEST(command_line_of_2048_bytes_is_refused)
{
	char cmdline[LAYOUT_CMDLINE_SIZE + 1];

	memset(cmdline, 'c', sizeof(cmdline) - 1);
	cmdline[sizeof(cmdline) - 1] = '\0';
	ck_assert_int_eq(boot_write_cmdline(&memory, cmdline, &err), -E2BIG);
	assert_contains(err.text, "2048");
	assert_contains(err.text, "2047");
	ck_assert_uint_eq(guest_value(&memory, LAYOUT_CMDLINE, 1), 0);
}
END_TEST

START_TEST(empty_command_line_is_written)
{
	ck_assert_int_eq(boot_write_cmdline(&memory, "", &err), 0);
}
END_TEST

START_TEST(initrd_is_page_aligned_at_the_top)
{
	uint8_t content[5000];

	fill_pattern(content, sizeof(content));
	open_file(0);
	ck_assert_int_eq(fd_write_all(file, content, sizeof(content)), 0);
	ck_assert_int_eq(load_initrd(), 0);
	ck_assert_uint_eq(initrd.addr, MIB(128) - 2 * GUEST_PAGE_SIZE);
	ck_assert_uint_eq(initrd.size, sizeof(content));
	ck_assert_mem_eq(guest_memory_range(&memory, initrd.addr, initrd.size), content,
			 sizeof(content));
}
END_TEST

START_TEST(initrd_stays_below_the_gap)
{
	guest_memory_close(&memory);
	open_guest_memory(&memory, GIB(5));
	open_file(GUEST_PAGE_SIZE);
	ck_assert_int_eq(load_initrd(), 0);
	ck_assert_uint_eq(initrd.addr, GIB(3) - GUEST_PAGE_SIZE);
}
END_TEST

START_TEST(initrd_may_touch_the_kernel)
{
	open_file(MIB(128) - KERNEL_END);
	ck_assert_int_eq(load_initrd(), 0);
	ck_assert_uint_eq(initrd.addr, KERNEL_END);
}
END_TEST

static const uint64_t big_initrds[] = { MIB(128) - KERNEL_END + 1, MIB(128), MIB(128) + 1, GIB(8) };

START_TEST(initrd_that_does_not_fit_is_refused)
{
	open_file(big_initrds[_i]);
	ck_assert_int_eq(load_initrd(), -EFBIG);
	assert_contains(err.text, "initrd initrd");
	assert_contains(err.text, "128 MiB");
	ck_assert_uint_eq(initrd.size, 0);
}
END_TEST

START_TEST(initrd_stays_above_the_first_mib)
{
	open_file(MIB(127) + 1);
	ck_assert_int_eq(boot_load_initrd(&memory, file, "initrd", 0, &initrd, &err), -EFBIG);
}
END_TEST

START_TEST(empty_initrd_is_refused)
{
	open_file(0);
	ck_assert_int_eq(load_initrd(), -EINVAL);
	assert_contains(err.text, "initrd: the file is empty");
}
END_TEST

START_TEST(directory_as_initrd_is_refused)
{
	file = open(".", O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(load_initrd(), -EINVAL);
	assert_contains(err.text, "not a regular file");
}
END_TEST

static const uint8_t seed[BOOT_SEED_SIZE] = "0123456789abcdef0123456789abcde";

static uint64_t zero_page(size_t offset, size_t size)
{
	return guest_value(&memory, LAYOUT_ZERO_PAGE + offset, size);
}

#define ZERO_PAGE(member)                                                                          \
	zero_page(offsetof(struct boot_params, member), sizeof(((struct boot_params *)0)->member))

static void write_zero_page(const struct kernel_image *image)
{
	boot_write_zero_page(&memory, image, &initrd, 77, seed);
}

START_TEST(zero_page_has_its_magic_numbers)
{
	write_zero_page(&(struct kernel_image){ 0 });
	ck_assert_uint_eq(ZERO_PAGE(hdr.boot_flag), 0xaa55);
	ck_assert(guest_has(&memory, LAYOUT_ZERO_PAGE + 0x202, "HdrS"));
	ck_assert_uint_eq(ZERO_PAGE(hdr.type_of_loader), 0xff);
	ck_assert_uint_ne(ZERO_PAGE(hdr.kernel_alignment), 0);
}
END_TEST

START_TEST(zero_page_points_at_command_line_and_rsdp)
{
	write_zero_page(&(struct kernel_image){ 0 });
	ck_assert_uint_eq(ZERO_PAGE(hdr.cmd_line_ptr), LAYOUT_CMDLINE);
	ck_assert_uint_eq(ZERO_PAGE(hdr.cmdline_size), 77);
	ck_assert_uint_eq(ZERO_PAGE(acpi_rsdp_addr), LAYOUT_RSDP);
}
END_TEST

START_TEST(zero_page_names_the_initrd)
{
	initrd = (struct boot_initrd){ 0x7000000, 12345 };
	write_zero_page(&(struct kernel_image){ 0 });
	ck_assert_uint_eq(ZERO_PAGE(hdr.ramdisk_image), 0x7000000);
	ck_assert_uint_eq(ZERO_PAGE(hdr.ramdisk_size), 12345);
}
END_TEST

START_TEST(zero_page_without_initrd_names_none)
{
	write_zero_page(&(struct kernel_image){ 0 });
	ck_assert_uint_eq(ZERO_PAGE(hdr.ramdisk_image), 0);
	ck_assert_uint_eq(ZERO_PAGE(hdr.ramdisk_size), 0);
}
END_TEST

START_TEST(zero_page_has_the_memory_map)
{
	write_zero_page(&(struct kernel_image){ 0 });
	ck_assert_uint_eq(ZERO_PAGE(e820_entries), 3);
	ck_assert_uint_eq(ZERO_PAGE(e820_table[2].addr), MIB(1));
	ck_assert_uint_eq(ZERO_PAGE(e820_table[2].size), MIB(127));
	ck_assert_uint_eq(ZERO_PAGE(e820_table[2].type), RAM);
}
END_TEST

START_TEST(zero_page_keeps_what_the_bzimage_says)
{
	const struct kernel_image image = {
		.header = { .version = 0x20f, .kernel_alignment = 0x200000, .init_size = 4711 },
	};

	write_zero_page(&image);
	ck_assert_uint_eq(ZERO_PAGE(hdr.version), 0x20f);
	ck_assert_uint_eq(ZERO_PAGE(hdr.kernel_alignment), 0x200000);
	ck_assert_uint_eq(ZERO_PAGE(hdr.init_size), 4711);
}
END_TEST

START_TEST(setup_data_is_one_random_seed)
{
	uint64_t at;

	write_zero_page(&(struct kernel_image){ 0 });
	at = ZERO_PAGE(hdr.setup_data);
	ck_assert_uint_eq(guest_value(&memory, at, 8), 0);
	ck_assert_uint_eq(guest_value(&memory, at + 8, 4), 9);
	ck_assert_uint_eq(guest_value(&memory, at + 12, 4), sizeof(seed));
	ck_assert_mem_eq(guest_memory_range(&memory, at + 16, sizeof(seed)), seed, sizeof(seed));
}
END_TEST

static uint64_t start_info(uint64_t offset, size_t size)
{
	return guest_value(&memory, LAYOUT_PVH_START_INFO + offset, size);
}

START_TEST(pvh_start_info_is_version_1)
{
	boot_write_pvh_start_info(&memory, &initrd);
	ck_assert_uint_eq(start_info(0, 4), 0x336ec578);
	ck_assert_uint_eq(start_info(4, 4), 1);
	ck_assert_uint_eq(start_info(8, 4), 0);
}
END_TEST

START_TEST(pvh_start_info_points_at_command_line_and_rsdp)
{
	boot_write_pvh_start_info(&memory, &initrd);
	ck_assert_uint_eq(start_info(24, 8), LAYOUT_CMDLINE);
	ck_assert_uint_eq(start_info(32, 8), LAYOUT_RSDP);
}
END_TEST

START_TEST(pvh_initrd_is_the_only_module)
{
	uint64_t module;

	initrd = (struct boot_initrd){ 0x7000000, 12345 };
	boot_write_pvh_start_info(&memory, &initrd);
	ck_assert_uint_eq(start_info(12, 4), 1);
	module = start_info(16, 8);
	ck_assert_uint_eq(guest_value(&memory, module, 8), 0x7000000);
	ck_assert_uint_eq(guest_value(&memory, module + 8, 8), 12345);
	ck_assert_uint_eq(guest_value(&memory, module + 16, 8), 0);
}
END_TEST

START_TEST(pvh_without_initrd_has_no_module)
{
	boot_write_pvh_start_info(&memory, &initrd);
	ck_assert_uint_eq(start_info(12, 4), 0);
	ck_assert_uint_eq(start_info(16, 8), 0);
}
END_TEST

START_TEST(pvh_memory_map_is_that_of_e820)
{
	uint64_t entry;

	boot_write_pvh_start_info(&memory, &initrd);
	ck_assert_uint_eq(start_info(48, 4), maps[1].count);
	entry = start_info(40, 8);
	for (unsigned int i = 0; i < maps[1].count; i++, entry += 24) {
		ck_assert_uint_eq(guest_value(&memory, entry, 8), maps[1].entries[i].addr);
		ck_assert_uint_eq(guest_value(&memory, entry + 8, 8), maps[1].entries[i].size);
		ck_assert_uint_eq(guest_value(&memory, entry + 16, 4), maps[1].entries[i].type);
	}
}
END_TEST

Suite *params_suite(void)
{
	Suite *suite =
		SUITE("params", set_up, tear_down, memory_map_stops_at_the_room_given,
		      command_line_of_2047_bytes_fits, command_line_of_2048_bytes_is_refused,
		      empty_command_line_is_written, initrd_is_page_aligned_at_the_top,
		      initrd_stays_below_the_gap, initrd_may_touch_the_kernel,
		      initrd_stays_above_the_first_mib, empty_initrd_is_refused,
		      directory_as_initrd_is_refused, zero_page_has_its_magic_numbers,
		      zero_page_points_at_command_line_and_rsdp, zero_page_names_the_initrd,
		      zero_page_without_initrd_names_none, zero_page_has_the_memory_map,
		      zero_page_keeps_what_the_bzimage_says, setup_data_is_one_random_seed,
		      pvh_start_info_is_version_1, pvh_start_info_points_at_command_line_and_rsdp,
		      pvh_initrd_is_the_only_module, pvh_without_initrd_has_no_module,
		      pvh_memory_map_is_that_of_e820);

	add_table_test(suite, NULL, tear_down, memory_map_is_ram_without_tables_and_gap,
		       ARRAY_SIZE(maps));
	add_table_test(suite, set_up, tear_down, initrd_that_does_not_fit_is_refused,
		       ARRAY_SIZE(big_initrds));
	return suite;
}

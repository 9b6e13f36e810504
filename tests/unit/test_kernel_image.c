/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "vmm/boot/kernel_image.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/guest_memory.h"
#include "tests/unit/images.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define FILE_NAME "vmlinux"
#define XEN_ELFNOTE_PHYS32_ENTRY 18

static struct elf_image elf;
static struct bzimage bzimage;
static struct kernel_image image;
static struct guest_memory memory;
static struct err err;

static void set_up(void)
{
	elf_image_init(&elf);
	bzimage_init(&bzimage);
}

static void tear_down(void)
{
	kernel_image_close(&image);
	guest_memory_close(&memory);
}

static int open_file(const void *data, size_t size)
{
	write_file(FILE_NAME, data, size);
	return kernel_image_open(&image, FILE_NAME, &err);
}

static void open_elf(void)
{
	ck_assert_msg(open_file(&elf, sizeof(elf)) == 0, "%s", err.text);
}

static void open_bzimage(void)
{
	ck_assert_msg(open_file(&bzimage, sizeof(bzimage)) == 0, "%s", err.text);
}

static void assert_path_refused(const char *path, int expected, const char *says)
{
	unsigned int fds = count_open_fds();

	ck_assert_int_eq(kernel_image_open(&image, path, &err), expected);
	assert_contains(err.text, path);
	assert_contains(err.text, says);
	ck_assert_uint_eq(count_open_fds(), fds);
}

static void assert_refused(const void *data, size_t size, const char *says)
{
	write_file(FILE_NAME, data, size);
	assert_path_refused(FILE_NAME, -ENOEXEC, says);
}

START_TEST(elf_is_entered_by_the_64_bit_protocol)
{
	open_elf();
	ck_assert_int_eq(image.entry_kind, KERNEL_ENTRY_64);
	ck_assert_uint_eq(image.entry, ELF_ENTRY);
}
END_TEST

START_TEST(elf_segments_are_those_that_load)
{
	open_elf();
	ck_assert_uint_eq(image.segment_count, 2);
	ck_assert_uint_eq(image.segments[1].addr, ELF_DATA_ADDR);
	ck_assert_uint_eq(image.segments[1].offset, offsetof(struct elf_image, data));
	ck_assert_uint_eq(image.segments[1].file_size, ELF_DATA_SIZE);
	ck_assert_uint_eq(image.segments[1].memory_size, ELF_DATA_MEMORY_SIZE);
	ck_assert_uint_eq(image.end, ELF_DATA_ADDR + ELF_DATA_MEMORY_SIZE);
}
END_TEST

START_TEST(empty_segment_is_ignored)
{
	elf.phdrs[ELF_DATA].p_filesz = elf.phdrs[ELF_DATA].p_memsz = 0;
	elf.phdrs[ELF_DATA].p_paddr = 0;
	open_elf();
	ck_assert_uint_eq(image.segment_count, 1);
}
END_TEST

START_TEST(close_gives_back_the_descriptor)
{
	unsigned int fds;

	write_file(FILE_NAME, &elf, sizeof(elf));
	fds = count_open_fds();
	ck_assert_int_eq(kernel_image_open(&image, FILE_NAME, &err), 0);
	kernel_image_close(&image);
	kernel_image_close(&image);
	ck_assert_uint_eq(count_open_fds(), fds);
}
END_TEST

START_TEST(pvh_note_gives_the_entry)
{
	elf_image_add_pvh_note(&elf, ELF_PVH_ENTRY);
	open_elf();
	ck_assert_int_eq(image.entry_kind, KERNEL_ENTRY_PVH);
	ck_assert_uint_eq(image.entry, ELF_PVH_ENTRY);
}
END_TEST

START_TEST(pvh_entry_may_have_four_bytes)
{
	const uint32_t entry = ELF_PVH_ENTRY;

	elf_image_add_note(&elf, XEN_ELFNOTE_PHYS32_ENTRY, "Xen", 4, &entry, sizeof(entry));
	open_elf();
	ck_assert_int_eq(image.entry_kind, KERNEL_ENTRY_PVH);
	ck_assert_uint_eq(image.entry, ELF_PVH_ENTRY);
}
END_TEST

START_TEST(pvh_note_is_found_behind_notes_of_odd_sizes)
{
	elf_image_add_note(&elf, 1, "Linux", 6, "abc", 3);
	elf_image_add_note(&elf, 2, "", 0, "", 0);
	elf_image_add_note(&elf, 6, "Xen", 4, "linux", 5);
	elf_image_add_pvh_note(&elf, ELF_PVH_ENTRY);
	open_elf();
	ck_assert_int_eq(image.entry_kind, KERNEL_ENTRY_PVH);
}
END_TEST

START_TEST(pvh_entry_must_be_loaded)
{
	elf_image_add_pvh_note(&elf, ELF_TEXT_ADDR + ELF_TEXT_SIZE);
	assert_refused(&elf, sizeof(elf), "entry point");
}
END_TEST

/* Notes that are not the PVH entry, or are broken, leave the 64-bit entry. */
static const struct {
	const char *what;
	Elf64_Nhdr nhdr;
	const char *name;
	uint64_t size; /* of the note segment; 0: all of the note */
} other_notes[] = {
	{ "another type", { 4, 8, 17 }, "Xen", 0 },
	{ "another name", { 4, 8, 18 }, "Xyz", 0 },
	{ "a longer name", { 5, 8, 18 }, "Xenu", 0 },
	{ "a name without its end", { 3, 8, 18 }, "Xen", 0 },
	{ "an entry of two bytes", { 4, 2, 18 }, "Xen", 0 },
	{ "an entry of 16 bytes", { 4, 16, 18 }, "Xen", 0 },
	{ "a huge name", { UINT32_MAX, 8, 18 }, "Xen", 0 },
	{ "a huge description", { 4, UINT32_MAX, 18 }, "Xen", 0 },
	{ "sizes that add up to zero", { UINT32_MAX - 7, 8, 18 }, "Xen", 0 },
	{ "half a header", { 4, 8, 18 }, "Xen", 11 },
	{ "only a header", { 4, 8, 18 }, "Xen", 12 },
	{ "no description", { 4, 8, 18 }, "Xen", 16 },
	{ "half a description", { 4, 8, 18 }, "Xen", 23 },
};

START_TEST(other_notes_are_passed_over)
{
	const uint64_t entry = ELF_PVH_ENTRY;

	memcpy(elf.notes, &other_notes[_i].nhdr, sizeof(Elf64_Nhdr));
	memcpy(elf.notes + 12, other_notes[_i].name, strlen(other_notes[_i].name));
	memcpy(elf.notes + 16, &entry, sizeof(entry));
	elf.phdrs[ELF_NOTES].p_filesz = other_notes[_i].size ? other_notes[_i].size : 24;
	open_elf();
	ck_assert_msg(image.entry_kind == KERNEL_ENTRY_64, "%s", other_notes[_i].what);
}
END_TEST

#define SET(member, value)                                                                         \
	offsetof(struct elf_image, member), sizeof(((struct elf_image *)0)->member), (value)

/* Fields of a good file to be changed, and what the error names. */
static const struct {
	size_t at, size;
	uint64_t value;
	const char *says;
} spoilt_elfs[] = {
	{ SET(ehdr.e_ident[EI_CLASS], ELFCLASS32), "64-bit" },
	{ SET(ehdr.e_ident[EI_DATA], ELFDATA2MSB), "x86-64" },
	{ SET(ehdr.e_machine, EM_AARCH64), "x86-64" },
	{ SET(ehdr.e_machine, EM_386), "x86-64" },
	{ SET(ehdr.e_type, ET_DYN), "e_type" },
	{ SET(ehdr.e_type, ET_REL), "e_type" },
	{ SET(ehdr.e_phentsize, 0), "e_phentsize" },
	{ SET(ehdr.e_phentsize, sizeof(Elf32_Phdr)), "e_phentsize" },
	{ SET(ehdr.e_phentsize, UINT16_MAX), "e_phentsize" },
	{ SET(ehdr.e_phnum, 0), "e_phnum" },
	{ SET(ehdr.e_phnum, UINT16_MAX), "program header" },
	{ SET(ehdr.e_phoff, UINT64_MAX), "e_phoff" },
	{ SET(ehdr.e_phoff, UINT64_MAX - sizeof(Elf64_Phdr) + 1), "e_phoff" },
	{ SET(ehdr.e_phoff, sizeof(struct elf_image) + 1), "e_phoff" },
	{ SET(ehdr.e_phoff, sizeof(struct elf_image)), "program header 0" },
	{ SET(ehdr.e_phoff, sizeof(struct elf_image) - sizeof(Elf64_Phdr)), "program header 1" },
	{ SET(ehdr.e_entry, 0), "entry point" },
	{ SET(ehdr.e_entry, ELF_TEXT_ADDR - 1), "entry point" },
	{ SET(ehdr.e_entry, ELF_TEXT_ADDR + ELF_TEXT_SIZE), "entry point" },
	{ SET(ehdr.e_entry, ELF_DATA_ADDR + ELF_DATA_SIZE), "entry point" },
	{ SET(ehdr.e_entry, UINT64_MAX), "entry point" },
	{ SET(phdrs[ELF_DATA].p_filesz, ELF_DATA_MEMORY_SIZE + 1), "p_filesz" },
	{ SET(phdrs[ELF_DATA].p_memsz, ELF_DATA_SIZE - 1), "p_filesz" },
	{ SET(phdrs[ELF_DATA].p_filesz, ELF_DATA_MEMORY_SIZE), "p_filesz" },
	{ SET(phdrs[ELF_DATA].p_offset, sizeof(struct elf_image)), "p_offset" },
	{ SET(phdrs[ELF_DATA].p_offset, sizeof(struct elf_image) + 1), "p_offset" },
	{ SET(phdrs[ELF_DATA].p_offset, UINT64_MAX), "p_offset" },
	{ SET(phdrs[ELF_DATA].p_offset, UINT64_MAX - ELF_DATA_SIZE + 1), "p_offset" },
	{ SET(phdrs[ELF_DATA].p_paddr, 0), "p_paddr" },
	{ SET(phdrs[ELF_DATA].p_paddr, MIB(1) - 1), "p_paddr" },
	{ SET(phdrs[ELF_DATA].p_paddr, GIB(3)), "p_paddr" },
	{ SET(phdrs[ELF_DATA].p_paddr, GIB(3) - ELF_DATA_MEMORY_SIZE + 1), "p_paddr" },
	{ SET(phdrs[ELF_DATA].p_paddr, UINT64_MAX - ELF_DATA_MEMORY_SIZE + 1), "p_paddr" },
	{ SET(phdrs[ELF_DATA].p_memsz, GIB(3)), "p_memsz" },
	{ SET(phdrs[ELF_DATA].p_memsz, UINT64_MAX), "p_memsz" },
	{ SET(phdrs[ELF_DATA].p_paddr, ELF_TEXT_ADDR), "overlap" },
	{ SET(phdrs[ELF_DATA].p_paddr, ELF_TEXT_ADDR + ELF_TEXT_SIZE - 1), "overlap" },
	{ SET(phdrs[ELF_DATA].p_paddr, ELF_TEXT_ADDR - ELF_DATA_MEMORY_SIZE + 1), "overlap" },
	{ SET(phdrs[ELF_NOTES].p_filesz, sizeof(struct elf_image)), "note segment" },
	{ SET(phdrs[ELF_NOTES].p_filesz, UINT64_MAX), "note segment" },
	{ SET(phdrs[ELF_NOTES].p_offset, sizeof(struct elf_image) + 1), "note segment" },
	{ SET(phdrs[ELF_NOTES].p_offset, UINT64_MAX), "note segment" },
};

START_TEST(spoilt_elf_is_refused_by_the_field)
{
	memcpy((char *)&elf + spoilt_elfs[_i].at, &spoilt_elfs[_i].value, spoilt_elfs[_i].size);
	assert_refused(&elf, sizeof(elf), spoilt_elfs[_i].says);
}
END_TEST

START_TEST(segment_behind_what_the_64_bit_entry_maps_is_refused)
{
	elf.phdrs[ELF_DATA].p_paddr = GIB(1);
	assert_refused(&elf, sizeof(elf), "the 64-bit entry maps only the first GiB");
}
END_TEST

START_TEST(segment_may_end_at_3_gib)
{
	elf_image_add_pvh_note(&elf, ELF_TEXT_ADDR);
	elf.phdrs[ELF_DATA].p_paddr = GIB(3) - ELF_DATA_MEMORY_SIZE;
	open_elf();
	ck_assert_uint_eq(image.end, GIB(3));
}
END_TEST

START_TEST(segments_may_touch)
{
	elf.phdrs[ELF_DATA].p_paddr = ELF_TEXT_ADDR + ELF_TEXT_SIZE;
	open_elf();
}
END_TEST

START_TEST(too_many_segments_are_refused)
{
	for (unsigned int i = 0; i < KERNEL_IMAGE_SEGMENTS + 1; i++) {
		elf.phdrs[i] = elf.phdrs[ELF_TEXT];
		elf.phdrs[i].p_paddr = ELF_TEXT_ADDR + i * ELF_TEXT_SIZE;
	}
	elf.ehdr.e_phnum = KERNEL_IMAGE_SEGMENTS + 1;
	assert_refused(&elf, sizeof(elf), "more than 16 loadable segments");
}
END_TEST

START_TEST(huge_note_segment_is_refused)
{
	elf.phdrs[ELF_NOTES].p_filesz = 1 << 20;
	write_file(FILE_NAME, &elf, sizeof(elf));
	ck_assert_int_eq(truncate(FILE_NAME, 2 << 20), 0);
	assert_path_refused(FILE_NAME, -ENOEXEC, "note segment");
}
END_TEST

START_TEST(elf_truncated_anywhere_is_refused)
{
	const size_t needed = offsetof(struct elf_image, symbols);

	elf_image_add_pvh_note(&elf, ELF_PVH_ENTRY);
	write_file(FILE_NAME, &elf, needed);
	for (size_t size = needed; size-- > 0;) {
		ck_assert_int_eq(truncate(FILE_NAME, (off_t)size), 0);
		ck_assert_msg(kernel_image_open(&image, FILE_NAME, &err) == -ENOEXEC,
			      "%zu bytes are taken", size);
		assert_contains(err.text, FILE_NAME);
	}
	assert_path_refused(FILE_NAME, -ENOEXEC, "not an ELF or bzImage file");
}
END_TEST

START_TEST(bzimage_is_entered_behind_its_32_bit_entry)
{
	open_bzimage();
	ck_assert_int_eq(image.entry_kind, KERNEL_ENTRY_64);
	ck_assert_uint_eq(image.entry, BZIMAGE_PAYLOAD_ADDR + 0x200);
}
END_TEST

START_TEST(bzimage_payload_is_the_only_segment)
{
	open_bzimage();
	ck_assert_uint_eq(image.segment_count, 1);
	ck_assert_uint_eq(image.segments[0].addr, BZIMAGE_PAYLOAD_ADDR);
	ck_assert_uint_eq(image.segments[0].offset, offsetof(struct bzimage, payload));
	ck_assert_uint_eq(image.segments[0].file_size, BZIMAGE_PAYLOAD_SIZE);
	ck_assert_uint_eq(image.segments[0].memory_size, bzimage.header.init_size);
}
END_TEST

START_TEST(bzimage_keeps_its_header_for_the_zero_page)
{
	open_bzimage();
	ck_assert_mem_eq(&image.header, &bzimage.header, sizeof(image.header));
}
END_TEST

START_TEST(bzimage_ends_where_it_decompresses_to)
{
	bzimage.header.pref_address = MIB(16);
	open_bzimage();
	ck_assert_uint_eq(image.end, MIB(16) + bzimage.header.init_size);
}
END_TEST

START_TEST(bzimage_without_setup_sects_has_four)
{
	bzimage.header.setup_sects = 0;
	open_bzimage();
	ck_assert_uint_eq(image.segments[0].offset, 5 * 512);
}
END_TEST

#define SET_HEADER(member, value)                                                                  \
	offsetof(struct bzimage, header.member), sizeof(((struct setup_header *)0)->member), (value)

static const struct {
	size_t at, size;
	uint64_t value;
	const char *says;
} spoilt_bzimages[] = {
	{ SET_HEADER(boot_flag, 0), "not an ELF or bzImage file" },
	{ SET_HEADER(header, 0), "not an ELF or bzImage file" },
	{ SET_HEADER(version, 0x20b), "boot protocol 2.11" },
	{ SET_HEADER(version, 0), "boot protocol 0.00" },
	{ SET_HEADER(xloadflags, 0), "xloadflags" },
	{ SET_HEADER(xloadflags, UINT16_MAX & ~XLF_KERNEL_64), "xloadflags" },
	{ SET_HEADER(loadflags, 0), "loadflags" },
	{ SET_HEADER(setup_sects, UINT8_MAX), "255 set-up sectors" },
	{ SET_HEADER(pref_address, GIB(3)), "pref_address" },
	{ SET_HEADER(pref_address, UINT64_MAX), "pref_address" },
	{ SET_HEADER(init_size, UINT32_MAX), "init_size" },
	{ SET_HEADER(init_size, (uint32_t)(GIB(3) - MIB(1) + 1)), "init_size" },
};

START_TEST(spoilt_bzimage_is_refused_by_the_field)
{
	memcpy((char *)&bzimage + spoilt_bzimages[_i].at, &spoilt_bzimages[_i].value,
	       spoilt_bzimages[_i].size);
	assert_refused(&bzimage, sizeof(bzimage), spoilt_bzimages[_i].says);
}
END_TEST

START_TEST(bzimage_truncated_before_its_entry_is_refused)
{
	const size_t needed = offsetof(struct bzimage, payload) + 0x200;

	write_file(FILE_NAME, &bzimage, needed);
	for (size_t size = needed + 1; size-- > 0;) {
		ck_assert_int_eq(truncate(FILE_NAME, (off_t)size), 0);
		ck_assert_msg(kernel_image_open(&image, FILE_NAME, &err) == -ENOEXEC,
			      "%zu bytes are taken", size);
	}
}
END_TEST

START_TEST(text_file_is_refused)
{
	const char text[] = "#!/bin/sh\necho not a kernel\n";

	assert_refused(text, sizeof(text) - 1, "not an ELF or bzImage file");
}
END_TEST

START_TEST(empty_file_is_refused)
{
	assert_refused("", 0, "not an ELF or bzImage file");
}
END_TEST

START_TEST(directory_is_refused)
{
	assert_path_refused(".", -ENOEXEC, "not a regular file");
}
END_TEST

START_TEST(fifo_is_refused_not_waited_for)
{
	ck_assert_int_eq(mkfifo("kernel-fifo", 0600), 0);
	assert_path_refused("kernel-fifo", -ENOEXEC, "not a regular file");
}
END_TEST

START_TEST(missing_file_is_refused)
{
	assert_path_refused("missing/vmlinux", -ENOENT, "No such file");
}
END_TEST

static void assert_loaded(uint64_t addr, const void *data, size_t size)
{
	const void *at = guest_memory_range(&memory, addr, size);

	ck_assert_ptr_nonnull(at);
	ck_assert_mem_eq(at, data, size);
}

static void load(uint64_t memory_size)
{
	open_guest_memory(&memory, memory_size);
	ck_assert_msg(kernel_image_load(&image, &memory, &err) == 0, "%s", err.text);
}

START_TEST(elf_segments_are_loaded_at_their_addresses)
{
	open_elf();
	load(MIB(32));
	assert_loaded(ELF_TEXT_ADDR, elf.text, sizeof(elf.text));
	assert_loaded(ELF_DATA_ADDR, elf.data, sizeof(elf.data));
}
END_TEST

START_TEST(bss_is_zero_though_the_file_goes_on)
{
	const uint64_t bss = ELF_DATA_ADDR + ELF_DATA_SIZE;
	const size_t size = ELF_DATA_MEMORY_SIZE - ELF_DATA_SIZE;

	open_elf();
	load(MIB(32));
	ck_assert(all_bytes(guest_memory_range(&memory, bss, size), size, 0));
}
END_TEST

START_TEST(segment_of_bss_alone_loads_nothing)
{
	elf.phdrs[ELF_DATA].p_filesz = 0;
	open_elf();
	load(MIB(32));
	ck_assert(all_bytes(guest_memory_range(&memory, ELF_DATA_ADDR, ELF_DATA_MEMORY_SIZE),
			    ELF_DATA_MEMORY_SIZE, 0));
}
END_TEST

START_TEST(bzimage_payload_is_loaded)
{
	open_bzimage();
	load(MIB(16));
	assert_loaded(BZIMAGE_PAYLOAD_ADDR, bzimage.payload, sizeof(bzimage.payload));
}
END_TEST

START_TEST(loading_does_not_change_the_file)
{
	struct elf_image now;
	char *bytes;

	open_elf();
	load(MIB(32));
	memset(guest_memory_range(&memory, ELF_TEXT_ADDR, ELF_TEXT_SIZE), 0xcc, ELF_TEXT_SIZE);
	bytes = read_text(FILE_NAME);
	memcpy(&now, bytes, sizeof(now));
	free(bytes);
	ck_assert_mem_eq(&now, &elf, sizeof(elf));
}
END_TEST

static void assert_does_not_fit(uint64_t memory_size, const char *needs)
{
	open_guest_memory(&memory, memory_size);
	ck_assert_int_eq(kernel_image_load(&image, &memory, &err), -EFBIG);
	assert_contains(err.text, FILE_NAME);
	assert_contains(err.text, needs);
}

START_TEST(too_little_memory_is_said_in_mib)
{
	open_elf();
	assert_does_not_fit(MIB(16), "needs 19 MiB, but the guest has 16 MiB");
}
END_TEST

START_TEST(needed_memory_is_not_rounded_beyond_the_end)
{
	elf.phdrs[ELF_DATA].p_paddr = MIB(32) - ELF_DATA_MEMORY_SIZE;
	open_elf();
	assert_does_not_fit(MIB(16), "needs 32 MiB");
}
END_TEST

START_TEST(bzimage_needs_memory_where_it_decompresses_to)
{
	bzimage.header.pref_address = MIB(16);
	open_bzimage();
	assert_does_not_fit(MIB(16), "needs 17 MiB");
}
END_TEST

START_TEST(file_that_shrank_since_it_was_opened_is_an_error)
{
	open_elf();
	ck_assert_int_eq(truncate(FILE_NAME, offsetof(struct elf_image, data)), 0);
	open_guest_memory(&memory, MIB(32));
	ck_assert_int_eq(kernel_image_load(&image, &memory, &err), -ENODATA);
	assert_contains(err.text, FILE_NAME);
}
END_TEST

Suite *kernel_image_suite(void)
{
	Suite *suite = SUITE(
		"kernel_image", set_up, tear_down, elf_is_entered_by_the_64_bit_protocol,
		elf_segments_are_those_that_load, empty_segment_is_ignored,
		close_gives_back_the_descriptor, pvh_note_gives_the_entry,
		pvh_entry_may_have_four_bytes, pvh_note_is_found_behind_notes_of_odd_sizes,
		pvh_entry_must_be_loaded, segment_may_end_at_3_gib,
		segment_behind_what_the_64_bit_entry_maps_is_refused, segments_may_touch,
		too_many_segments_are_refused, huge_note_segment_is_refused,
		elf_truncated_anywhere_is_refused, bzimage_is_entered_behind_its_32_bit_entry,
		bzimage_payload_is_the_only_segment, bzimage_keeps_its_header_for_the_zero_page,
		bzimage_ends_where_it_decompresses_to, bzimage_without_setup_sects_has_four,
		bzimage_truncated_before_its_entry_is_refused, text_file_is_refused,
		empty_file_is_refused, directory_is_refused, fifo_is_refused_not_waited_for,
		missing_file_is_refused, elf_segments_are_loaded_at_their_addresses,
		bss_is_zero_though_the_file_goes_on, segment_of_bss_alone_loads_nothing,
		bzimage_payload_is_loaded, loading_does_not_change_the_file,
		too_little_memory_is_said_in_mib, needed_memory_is_not_rounded_beyond_the_end,
		bzimage_needs_memory_where_it_decompresses_to,
		file_that_shrank_since_it_was_opened_is_an_error);

	add_table_test(suite, set_up, tear_down, other_notes_are_passed_over,
		       ARRAY_SIZE(other_notes));
	add_table_test(suite, set_up, tear_down, spoilt_elf_is_refused_by_the_field,
		       ARRAY_SIZE(spoilt_elfs));
	add_table_test(suite, set_up, tear_down, spoilt_bzimage_is_refused_by_the_field,
		       ARRAY_SIZE(spoilt_bzimages));
	return suite;
}

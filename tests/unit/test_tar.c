/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of tar, and how trees become streams. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/array.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "tests/unit/tar_fixture.h"

START_TEST(entries_come_back_as_they_were)
{
	char name[1000], link[1000];
	struct tar_entry entry;
	char data[16] = "";

	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	name[500] = '/';
	memset(link, 'l', sizeof(link) - 1);
	link[sizeof(link) - 1] = '\0';
	tar_fixture_add(TAR_FILE, name, NULL, "data");
	tar_fixture_add(TAR_SYMLINK, "short", link, NULL);
	tar_fixture_add(TAR_FILE,
			"exactly-100-long-" /* fills its field without a zero behind */
			"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
			"aaaaaaaaa",
			NULL, "x");
	ck_assert_int_eq(tar_finish(&tar_fixture_writer), 0);
	for (tar_chunk = 1; tar_chunk < 2000; tar_chunk = tar_chunk * 7 + 1) {
		tar_archive_at = 0;
		tar_fixture_reader = (struct tar_reader){ .read = tar_fixture_get };
		ck_assert_int_eq(tar_next(&tar_fixture_reader, &entry, &tar_err), 1);
		ck_assert_str_eq(entry.path, name);
		ck_assert_int_eq(entry.type, TAR_FILE);
		ck_assert_uint_eq(entry.size, 4);
		ck_assert_int_eq(entry.mtime, 1234567890);
		ck_assert_int_ge(tar_data(&tar_fixture_reader, data, sizeof(data), &tar_err), 1);
		/* The rest is skipped. */
		ck_assert_int_eq(tar_next(&tar_fixture_reader, &entry, &tar_err), 1);
		ck_assert_str_eq(entry.link, link);
		ck_assert_int_eq(tar_next(&tar_fixture_reader, &entry, &tar_err), 1);
		ck_assert_uint_eq(strlen(entry.path), 100);
		ck_assert_int_eq(tar_next(&tar_fixture_reader, &entry, &tar_err), 0);
	}
}
END_TEST

START_TEST(numbers_that_octal_digits_cannot_hold)
{
	static struct tar_entry in, out;

	in = (struct tar_entry){ .type = TAR_FILE,
				 .path = "large",
				 .size = UINT64_C(0x123456789a),
				 .uid = 0x70001234,
				 .gid = 4294967294,
				 .mtime = INT64_C(0x123456789a) };
	ck_assert_int_eq(tar_put(&tar_fixture_writer, &in), 0);
	ck_assert_int_eq(tar_next(&tar_fixture_reader, &out, &tar_err), 1);
	ck_assert_uint_eq(out.size, in.size);
	ck_assert_uint_eq(out.uid, in.uid);
	ck_assert_uint_eq(out.gid, in.gid);
	ck_assert_int_eq(out.mtime, in.mtime);
}
END_TEST

START_TEST(tree_is_packed_and_unpacked)
{
	ck_assert_int_eq(system("cd tree && mkdir -p a/b && echo one > a/b/1 && echo two > 2 && "
				"ln -s a/b link && ln 2 hard && mkfifo fifo && chmod 710 2"),
			 0);
	ck_assert_int_eq(tar_fixture_pack("tree", false), 0);
	ck_assert_uint_eq(tar_counts.files, 8);
	ck_assert_int_eq(tar_fixture_unpack(NULL, false), 0);
	ck_assert_int_eq(system("cd in/tree && test \"$(cat link/1)\" = one -a -p fifo && "
				"test \"$(cat hard)\" = two -a $(stat -c %a 2) = 710"),
			 0);
}
END_TEST

/* What comes into them changes them. */
START_TEST(directories_keep_their_times)
{
	static const char *const names[] = { "", "a", "a/b", "ab", "ab/c", "ab/c/d", "e" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char path[100];

		snprintf(path, sizeof(path), "given/%s", names[i]);
		tar_fixture_add(TAR_DIRECTORY, path, NULL, NULL);
		snprintf(path, sizeof(path), "given/%s/file", names[i]);
		tar_fixture_add(TAR_FILE, path, NULL, "text");
	}
	tar_fixture_add(TAR_DIRECTORY, "given/ab", NULL, NULL);
	tar_fixture_add(TAR_FILE, "given/ab/more", NULL, "text");
	ck_assert_int_eq(tar_fixture_unpack(_i ? "wanted" : NULL, true), 0);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char path[100];
		struct stat st;

		snprintf(path, sizeof(path), "in/%s/%s", _i ? "wanted" : "given", names[i]);
		ck_assert_int_eq(stat(path, &st), 0);
		ck_assert_msg(st.st_mtime == 1234567890, "%s", path);
	}
}
END_TEST

START_TEST(tree_gets_another_name)
{
	tar_fixture_add(TAR_DIRECTORY, "given/", NULL, NULL);
	tar_fixture_add(TAR_FILE, "given/file", NULL, "text");
	tar_fixture_add(TAR_FILE, "elsewhere/other", NULL, "below, too");
	ck_assert_int_eq(tar_fixture_unpack("wanted", true), 0);
	assert_file("in/wanted/file", "text");
	assert_file("in/wanted/other", "below, too");
	ck_assert_int_ne(access("in/given", F_OK), 0);
	ck_assert_int_ne(access("in/elsewhere", F_OK), 0);
}
END_TEST

START_TEST(file_gets_another_name_and_no_company)
{
	tar_fixture_add(TAR_FILE, "given", NULL, "text");
	tar_fixture_add(TAR_FILE, "more", NULL, "text");
	ck_assert_int_lt(tar_fixture_unpack("wanted", true), 0);
	assert_contains(tar_err.text, "more than one file");
	assert_file("in/wanted", "text");
	ck_assert_int_ne(access("in/more", F_OK), 0);
}
END_TEST

START_TEST(pages_of_zeroes_become_holes)
{
	struct stat st;

	ck_assert_int_eq(
		system("cd tree && printf begin > f && truncate -s 3M f && printf middle >> f && "
		       "truncate -s 3500001 f"),
		0);
	ck_assert_int_eq(tar_fixture_pack("tree/f", false), 0);
	tar_chunk = 1000;
	ck_assert_int_eq(tar_fixture_unpack("f", true), 0);
	ck_assert_int_eq(system("cmp tree/f in/f"), 0);
	ck_assert_int_eq(stat("in/f", &st), 0);
	ck_assert_int_lt(st.st_blocks * 512, 300000);
	ck_assert_uint_eq(tar_counts.bytes, 2 * 3500001);
}
END_TEST

/* Of procfs, which says 0, and sysfs, which says a page; long ones and short ones. */
START_TEST(file_that_does_not_know_its_size)
{
	static const char *const files[] = { "/proc/kallsyms", "/proc/version", "/proc/cpuinfo",
					     "/sys/kernel/uevent_seqnum" };
	char command[200];

	ck_assert_int_eq(tar_fixture_pack(files[_i], false), 0);
	ck_assert_int_eq(tar_fixture_unpack("f", true), 0);
	snprintf(command, sizeof(command),
		 "test $(wc -c < in/f) -gt 1 && head -c 10 %s | cmp -n 10 - in/f", files[_i]);
	ck_assert_int_eq(system(command), 0);
	ck_assert_int_eq(system("test \"$(tr -d '\\0' < in/f | wc -c)\" = \"$(wc -c < in/f)\""), 0);
}
END_TEST

static int shorten(void *opaque, const void *data, size_t size)
{
	ck_assert_int_eq(truncate("tree/f", 100000), 0);
	return tar_fixture_put(opaque, data, size);
}

START_TEST(file_that_becomes_shorter_is_an_error)
{
	struct tar_writer shortens = { shorten, NULL };
	int fd;

	ck_assert_int_eq(system("head -c 1000000 /dev/urandom > tree/f"), 0);
	fd = open("tree/f", O_RDONLY);
	ck_assert_int_lt(tree_pack(fd, "f", &shortens, &tar_counts, &tar_err), 0);
	assert_contains(tar_err.text, "f: it became shorter while it was read");
	close(fd);
}
END_TEST

START_TEST(stream_that_is_cut_is_an_error_wherever)
{
	size_t whole;

	tar_fixture_add(TAR_FILE, "a", NULL, "some data");
	tar_fixture_add(TAR_FILE,
			"a-name-of-more-than-a-hundred-bytes/"
			"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
			"bbbbbbbbbbbbbbbbbbbbbbbb",
			NULL, "more data");
	whole = tar_archive_size;
	for (size_t size = 0; size < whole; size += 100) {
		int dir = open("in", O_RDONLY | O_DIRECTORY);
		const struct tree_options options = { .plain = true };

		tar_archive_size = size;
		tar_archive_at = 0;
		tar_fixture_reader = (struct tar_reader){ .read = tar_fixture_get };
		ck_assert_int_lt(
			tree_unpack(dir, &tar_fixture_reader, &options, &tar_counts, &tar_err), 0);
		assert_contains(tar_err.text, "ends in the middle");
		close(dir);
	}
}
END_TEST

START_TEST(what_is_no_tar_is_said)
{
	static uint8_t noise[2048];

	fill_pattern(noise, sizeof(noise));
	tar_fixture_put(NULL, noise, sizeof(noise));
	ck_assert_int_lt(tar_fixture_unpack(NULL, true), 0);
	assert_contains(tar_err.text, "this is no tar stream");
}
END_TEST

static void assert_packed_as(const char *path, bool follow, const char *name, enum tar_type type)
{
	static struct tar_entry entry;

	tar_archive_size = tar_archive_at = 0;
	ck_assert_int_eq(tar_fixture_pack(path, follow), 0);
	ck_assert_int_eq(tar_next(&tar_fixture_reader, &entry, &tar_err), 1);
	ck_assert_str_eq(entry.path, name);
	ck_assert_int_eq(entry.type, type);
	tar_fixture_reader.left = tar_fixture_reader.padding = 0;
}

START_TEST(link_is_followed_only_if_it_is_to_be)
{
	ck_assert_int_eq(system("mkdir tree/a && echo secret > tree/f && ln -s f tree/link && "
				"ln -s a tree/dirs && ln -s nowhere tree/dangling"),
			 0);
	assert_packed_as("tree/link", false, "link", TAR_SYMLINK);
	assert_packed_as("tree/link", true, "link", TAR_FILE);
	assert_packed_as("tree/dirs", false, "dirs", TAR_SYMLINK);
	assert_packed_as("tree/dirs", true, "dirs/", TAR_DIRECTORY);
	assert_packed_as("tree/dangling", false, "dangling", TAR_SYMLINK);
	assert_packed_as("tree/a/", false, "a/", TAR_DIRECTORY);
	assert_packed_as("tree/a/.", false, "a/", TAR_DIRECTORY);
	assert_packed_as("tree/a/..", false, "tree/", TAR_DIRECTORY);
	ck_assert_int_lt(tar_fixture_pack("tree/dangling", true), 0);
	ck_assert_str_eq(tar_err.text, "tree/dangling: No such file or directory");
}
END_TEST

/* What counts is what was opened, whatever is in its place by now. */
START_TEST(open_tree_is_packed_whatever_its_path_is_by_now)
{
	static struct tar_entry entry;
	char name[NAME_MAX + 1];
	int fd;

	ck_assert_int_eq(system("mkdir tree/own tree/secret && echo > tree/own/mine && "
				"echo > tree/secret/key"),
			 0);
	fd = tree_open("tree/own", false, name, &tar_err);
	ck_assert_int_eq(system("mv tree/own tree/real && ln -s secret tree/own"), 0);
	ck_assert_int_eq(tree_pack(fd, name, &tar_fixture_writer, &tar_counts, &tar_err), 0);
	close(fd);
	ck_assert_int_eq(tar_next(&tar_fixture_reader, &entry, &tar_err), 1);
	ck_assert_str_eq(entry.path, "own/");
	ck_assert_int_eq(tar_next(&tar_fixture_reader, &entry, &tar_err), 1);
	ck_assert_str_eq(entry.path, "own/mine");
}
END_TEST

START_TEST(file_that_is_not_there)
{
	ck_assert_int_lt(tar_fixture_pack("nosuch", false), 0);
	ck_assert_str_eq(tar_err.text, "nosuch: No such file or directory");
}
END_TEST

START_TEST(very_deep_tree_is_refused)
{
	ck_assert_int_eq(system("mkdir -p tree/$(printf 'd/%.0s' $(seq 600))"), 0);
	ck_assert_int_lt(tar_fixture_pack("tree", false), 0);
	assert_contains(tar_err.text, "File name too long");
}
END_TEST

Suite *tar_suite(void)
{
	Suite *suite =
		SUITE("tar", tar_fixture_set_up, NULL, entries_come_back_as_they_were,
		      numbers_that_octal_digits_cannot_hold, tree_is_packed_and_unpacked,
		      tree_gets_another_name, file_gets_another_name_and_no_company,
		      pages_of_zeroes_become_holes, file_that_becomes_shorter_is_an_error,
		      stream_that_is_cut_is_an_error_wherever, what_is_no_tar_is_said,
		      file_that_is_not_there, link_is_followed_only_if_it_is_to_be,
		      open_tree_is_packed_whatever_its_path_is_by_now, very_deep_tree_is_refused);

	add_table_test(suite, tar_fixture_set_up, NULL, directories_keep_their_times, 2);
	add_table_test(suite, tar_fixture_set_up, NULL, file_that_does_not_know_its_size, 4);
	return suite;
}

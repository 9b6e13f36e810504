/* SPDX-License-Identifier: Apache-2.0 */
/* What streams of tar may make of a directory, and what they leave alone. */
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

static const char *const bad_paths[] = { "..", "../outside/x", "a/../../outside/x", "/../outside/x",
					 "./.././outside/x" };

START_TEST(path_that_leads_out_is_refused)
{
	tar_fixture_add(TAR_FILE, bad_paths[_i], NULL, "evil");
	ck_assert_int_lt(tar_fixture_unpack(NULL, false), 0);
	assert_contains(tar_err.text, "leads out of the destination");
	ck_assert_int_ne(access("outside/x", F_OK), 0);
}
END_TEST

START_TEST(absolute_path_stays_inside)
{
	tar_fixture_add(TAR_FILE, "/deep//./down", NULL, "text");
	ck_assert_int_eq(tar_fixture_unpack(NULL, false), 0);
	assert_file("in/deep/down", "text");
}
END_TEST

static const char *const ways_out[] = { "../outside", "/outside", "/../outside",
					"../../../../outside" };

START_TEST(symbolic_link_does_not_lead_out)
{
	tar_fixture_add(TAR_SYMLINK, "way", ways_out[_i], NULL);
	tar_fixture_add(TAR_FILE, "way/x", NULL, "evil");
	/* As below a root: either there is nothing, or it is made below "in". */
	(void)tar_fixture_unpack(NULL, false);
	ck_assert_int_ne(access("outside/x", F_OK), 0);
	ck_assert_int_ne(access("/outside", F_OK), 0);
}
END_TEST

START_TEST(symbolic_link_in_the_way_is_replaced)
{
	write_text("outside/victim", "safe");
	tar_fixture_add(TAR_SYMLINK, "file", "../outside/victim", NULL);
	tar_fixture_add(TAR_FILE, "file", NULL, "mine");
	ck_assert_int_eq(tar_fixture_unpack(NULL, false), 0);
	assert_file("outside/victim", "safe");
	assert_file("in/file", "mine");
}
END_TEST

/* Into "in" as it was left: 0 or -1. */
static int update(void)
{
	const struct tree_options options = { .plain = true, .update = true };
	int dir = open("in", O_RDONLY | O_DIRECTORY), rc;

	ck_assert_int_eq(tar_finish(&tar_fixture_writer), 0);
	rc = tree_unpack(dir, &tar_fixture_reader, &options, &tar_counts, &tar_err);
	close(dir);
	tar_reader_free(&tar_fixture_reader);
	return rc;
}

static const struct {
	const char *there;
	enum tar_type comes;
	bool refused;
} kinds[] = {
	{ "ln -s ../outside in/x", TAR_DIRECTORY, true },
	{ "echo old > in/x", TAR_DIRECTORY, true },
	{ "mkdir -p in/x/old/er", TAR_FILE, true },
	{ "mkdir -p in/x/old/er", TAR_SYMLINK, true },
	{ "ln -s ../outside in/x", TAR_FILE, false },
	{ "echo old > in/x", TAR_SYMLINK, false },
};

START_TEST(what_is_of_another_kind_stays)
{
	ck_assert_int_eq(system(kinds[_i].there), 0);
	ck_assert_int_eq(system("cp -a in before"), 0);
	tar_fixture_add(kinds[_i].comes, "x", "target", kinds[_i].comes == TAR_FILE ? "new" : NULL);
	ck_assert_int_eq(tar_fixture_unpack(NULL, true), kinds[_i].refused ? -1 : 0);
	if (kinds[_i].refused)
		ck_assert_int_eq(system("diff -r --no-dereference before in && rm -r before"), 0);
	ck_assert_int_eq(system("test -z \"$(ls outside)\" && rm -rf before"), 0);
}
END_TEST

START_TEST(what_is_of_another_kind_gives_way_to_a_newer_state)
{
	static const char *const wanted[] = { [TAR_DIRECTORY] = "test -d in/x -a ! -L in/x",
					      [TAR_FILE] = "test -f in/x -a ! -L in/x",
					      [TAR_SYMLINK] =
						      "test \"$(readlink in/x)\" = target" };

	write_text("outside/victim", "safe");
	ck_assert_int_eq(system(kinds[_i].there), 0);
	ck_assert_int_eq(system("test ! -d in/x -o -L in/x || ln -s ../../outside in/x/way"), 0);
	tar_fixture_add(kinds[_i].comes, "x", "target", kinds[_i].comes == TAR_FILE ? "new" : NULL);
	ck_assert_int_eq(update(), 0);
	ck_assert_int_eq(system(wanted[kinds[_i].comes]), 0);
	assert_file("outside/victim", "safe");
}
END_TEST

/* A volume is a directory whatever the guest has made of its place. */
START_TEST(directory_itself_gives_way_to_nothing)
{
	static const enum tar_type types[] = { TAR_FILE, TAR_SYMLINK, TAR_FIFO };
	const struct tree_options options = { .plain = true, .update = true };
	int dir = open("in", O_RDONLY | O_DIRECTORY);

	write_text("in/precious", "old");
	tar_fixture_add(types[_i], "volume", "target", types[_i] == TAR_FILE ? "new" : NULL);
	ck_assert_int_eq(tar_finish(&tar_fixture_writer), 0);
	ck_assert_int_lt(
		tree_unpack_as(dir, ".", &tar_fixture_reader, &options, &tar_counts, &tar_err), 0);
	ck_assert_str_eq(tar_err.text, "volume: it is not a directory any more");
	assert_file("in/precious", "old");
	close(dir);
}
END_TEST

START_TEST(name_that_is_a_link_already_is_not_followed)
{
	ck_assert_int_eq(symlink("../outside", "in/wanted"), 0);
	tar_fixture_add(TAR_DIRECTORY, "given", NULL, NULL);
	tar_fixture_add(TAR_FILE, "given/x", NULL, "mine");
	ck_assert_int_lt(tar_fixture_unpack("wanted", true), 0);
	ck_assert_int_ne(access("outside/x", F_OK), 0);
}
END_TEST

START_TEST(hard_link_does_not_lead_out)
{
	write_text("outside/secret", "secret");
	tar_fixture_add(TAR_SYMLINK, "way", "../outside", NULL);
	tar_fixture_add(TAR_HARD_LINK, "stolen", "way/secret", NULL);
	ck_assert_int_lt(tar_fixture_unpack(NULL, false), 0);
	ck_assert_int_ne(access("in/stolen", F_OK), 0);
	tar_fixture_set_up();
	write_text("outside/secret", "secret");
	tar_fixture_add(TAR_HARD_LINK, "stolen", "../outside/secret", NULL);
	ck_assert_int_lt(tar_fixture_unpack(NULL, false), 0);
	ck_assert_int_ne(access("in/stolen", F_OK), 0);
}
END_TEST

START_TEST(plain_takes_no_devices_and_no_setuid)
{
	static struct tar_entry entry = {
		.type = TAR_FILE, .path = "suid", .mode = 06755, .uid = 1, .gid = 1
	};
	struct stat st;

	ck_assert_int_eq(tar_put(&tar_fixture_writer, &entry), 0);
	tar_fixture_add(TAR_FIFO, "fifo", NULL, NULL);
	tar_fixture_add(TAR_FILE, "file", NULL, "text");
	ck_assert_int_eq(tar_fixture_unpack(NULL, true), 0);
	ck_assert_uint_eq(tar_counts.left_out, 1);
	ck_assert_int_ne(access("in/fifo", F_OK), 0);
	assert_file("in/file", "text");
	ck_assert_int_eq(stat("in/suid", &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0755);
	ck_assert_uint_eq(st.st_uid, geteuid());
}
END_TEST

START_TEST(single_fifo_is_refused)
{
	tar_fixture_add(TAR_FIFO, "fifo", NULL, NULL);
	ck_assert_int_lt(tar_fixture_unpack("wanted", true), 0);
	assert_contains(tar_err.text, "fifo: a device or fifo is not taken");
}
END_TEST

/* Whoever else has it open keeps the old one, too. */
START_TEST(file_is_replaced_by_a_whole_one_or_not_at_all)
{
	const struct tree_options options = { .plain = true };
	int dir = open("in", O_RDONLY | O_DIRECTORY);

	write_text("in/file", "old");
	tar_fixture_add(TAR_FILE, "file", NULL, "new");
	tar_archive_size = TAR_BLOCK + 1;
	ck_assert_int_lt(tree_unpack(dir, &tar_fixture_reader, &options, &tar_counts, &tar_err), 0);
	close(dir);
	assert_file("in/file", "old");
	ck_assert_int_eq(system("test \"$(ls -A in)\" = file"), 0);
	tar_fixture_set_up();
	write_text("in/file", "old");
	tar_fixture_add(TAR_FILE, "file", NULL, "new");
	ck_assert_int_eq(tar_fixture_unpack(NULL, true), 0);
	assert_file("in/file", "new");
}
END_TEST

START_TEST(file_that_is_the_same_is_left_alone)
{
	const struct tree_options options = { .plain = true, .update = true };
	int dir = open("in", O_RDONLY | O_DIRECTORY);
	struct stat before, after;

	ck_assert_int_eq(system("cp -a /etc/passwd tree/same && cp tree/same tree/later && "
				"cp -a tree/* in && ln in/same in/link && echo > in/later"),
			 0);
	ck_assert_int_eq(stat("in/same", &before), 0);
	ck_assert_int_eq(tar_fixture_pack("tree", false), 0);
	ck_assert_int_eq(rename("in", "tree2"), 0);
	ck_assert_int_eq(mkdir("in", 0755), 0);
	ck_assert_int_eq(rename("tree2", "in/tree"), 0);
	close(dir);
	dir = open("in", O_RDONLY | O_DIRECTORY);
	ck_assert_int_eq(tree_unpack(dir, &tar_fixture_reader, &options, &tar_counts, &tar_err), 0);
	close(dir);
	ck_assert_int_eq(stat("in/tree/same", &after), 0);
	ck_assert_uint_eq(before.st_ino, after.st_ino);
	ck_assert_int_eq(system("cmp in/tree/later tree/later && "
				"test \"$(stat -c %y in/tree/later)\" = "
				"\"$(stat -c %y tree/later)\""),
			 0);
}
END_TEST

/* What sudo brings back into somebody's directory is not root's. */
START_TEST(files_belong_to_whom_the_directory_does)
{
	if (geteuid() != 0)
		return;
	ck_assert_int_eq(chown("in", 12, 34), 0);
	write_text("in/old", "old");
	ck_assert_int_eq(chown("in/old", 56, 78), 0);
	tar_fixture_add(TAR_FILE, "old", NULL, "new");
	tar_fixture_add(TAR_FILE, "new", NULL, "new");
	tar_fixture_add(TAR_SYMLINK, "link", "new", NULL);
	tar_fixture_add(TAR_DIRECTORY, "dir", NULL, NULL);
	tar_fixture_add(TAR_FILE, "dir/file", NULL, "new");
	tar_fixture_add(TAR_FILE, "between/file", NULL, "new");
	ck_assert_int_eq(tar_fixture_unpack(NULL, true), 0);
	ck_assert_int_eq(system("test \"$(cd in && stat -c %u:%g old new link dir dir/file between "
				"between/file | tr '\\n' ' ')\" = "
				"'56:78 12:34 12:34 12:34 12:34 12:34 12:34 '"),
			 0);
}
END_TEST

START_TEST(directories_that_nobody_names_are_counted)
{
	const struct tree_options options = { .plain = true, .files_max = 10 };
	int dir = open("in", O_RDONLY | O_DIRECTORY);

	tar_fixture_add(TAR_FILE, "1/2/3/4/5/6/7/8/9/10/file", NULL, "");
	ck_assert_int_lt(tree_unpack(dir, &tar_fixture_reader, &options, &tar_counts, &tar_err), 0);
	assert_contains(tar_err.text, "too many files");
	close(dir);
}
END_TEST

Suite *tree_unpack_suite(void)
{
	Suite *suite = SUITE(
		"tree_unpack", tar_fixture_set_up, NULL, absolute_path_stays_inside,
		symbolic_link_in_the_way_is_replaced, name_that_is_a_link_already_is_not_followed,
		hard_link_does_not_lead_out, plain_takes_no_devices_and_no_setuid,
		single_fifo_is_refused, file_is_replaced_by_a_whole_one_or_not_at_all,
		file_that_is_the_same_is_left_alone, files_belong_to_whom_the_directory_does,
		directories_that_nobody_names_are_counted);

	add_table_test(suite, tar_fixture_set_up, NULL, path_that_leads_out_is_refused,
		       ARRAY_SIZE(bad_paths));
	add_table_test(suite, tar_fixture_set_up, NULL, symbolic_link_does_not_lead_out,
		       ARRAY_SIZE(ways_out));
	add_table_test(suite, tar_fixture_set_up, NULL, what_is_of_another_kind_stays,
		       ARRAY_SIZE(kinds));
	add_table_test(suite, tar_fixture_set_up, NULL,
		       what_is_of_another_kind_gives_way_to_a_newer_state, ARRAY_SIZE(kinds));
	add_table_test(suite, tar_fixture_set_up, NULL, directory_itself_gives_way_to_nothing, 3);
	return suite;
}

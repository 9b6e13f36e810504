/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of tar, and the trees that they are made of. */
#include "rootfs-tools/init/tar.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rootfs-tools/init/failure.h"
#include "rootfs-tools/init/tree.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

static uint8_t archive[16 << 20];
static size_t archive_size, archive_at, chunk;
static struct failure failure;
static struct tree_counts counts;

static int put_bytes(void *opaque, const void *data, size_t size)
{
	(void)opaque;
	if (size > sizeof(archive) - archive_size)
		return -1;
	memcpy(archive + archive_size, data, size);
	archive_size += size;
	return 0;
}

static ssize_t get_bytes(void *opaque, void *data, size_t size)
{
	size_t left = archive_size - archive_at;

	(void)opaque;
	if (size > left)
		size = left;
	if (size > chunk)
		size = chunk;
	memcpy(data, archive + archive_at, size);
	archive_at += size;
	return (ssize_t)size;
}

static struct tar_writer writer = { put_bytes, NULL };
static struct tar_reader reader;

static void set_up(void)
{
	archive_size = archive_at = 0;
	chunk = SIZE_MAX;
	reader = (struct tar_reader){ .read = get_bytes };
	failure.text[0] = '\0';
	memset(&counts, 0, sizeof(counts));
	ck_assert_int_eq(system("rm -rf tree in outside && mkdir tree in outside"), 0);
}

static void add(enum tar_type type, const char *path, const char *link, const char *data)
{
	static struct tar_entry entry;

	memset(&entry, 0, sizeof(entry));
	entry.type = type;
	entry.mode = type == TAR_DIRECTORY ? 0755 : 0644;
	entry.uid = geteuid();
	entry.gid = getegid();
	entry.size = data ? strlen(data) : 0;
	entry.mtime = 1234567890;
	snprintf(entry.path, sizeof(entry.path), "%s", path);
	snprintf(entry.link, sizeof(entry.link), "%s", link ? link : "");
	ck_assert_int_eq(tar_put(&writer, &entry), 0);
	if (data) {
		ck_assert_int_eq(put_bytes(NULL, data, strlen(data)), 0);
		ck_assert_int_eq(tar_pad(&writer, strlen(data)), 0);
	}
}

/* Into the directory "in". */
static int unpack(const char *name, bool plain)
{
	const struct tree_options options = { .plain = plain };
	int dir = open("in", O_RDONLY | O_DIRECTORY);
	int rc;

	ck_assert_int_ge(dir, 0);
	ck_assert_int_eq(tar_finish(&writer), 0);
	rc = name ? tree_unpack_as(dir, name, &reader, &options, &counts, &failure)
		  : tree_unpack(dir, &reader, &options, &counts, &failure);
	close(dir);
	return rc;
}

static void assert_text(const char *path, const char *text)
{
	char *found = read_text(path);

	ck_assert_str_eq(found, text);
	free(found);
}

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
	add(TAR_FILE, name, NULL, "data");
	add(TAR_SYMLINK, "short", link, NULL);
	add(TAR_FILE,
	    "exactly-100-long-" /* fills its field without a zero behind */
	    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	    NULL, "x");
	ck_assert_int_eq(tar_finish(&writer), 0);
	for (chunk = 1; chunk < 2000; chunk = chunk * 7 + 1) {
		archive_at = 0;
		reader = (struct tar_reader){ .read = get_bytes };
		ck_assert_int_eq(tar_next(&reader, &entry, &failure), 1);
		ck_assert_str_eq(entry.path, name);
		ck_assert_int_eq(entry.type, TAR_FILE);
		ck_assert_uint_eq(entry.size, 4);
		ck_assert_int_eq(entry.mtime, 1234567890);
		ck_assert_int_ge(tar_data(&reader, data, sizeof(data), &failure), 1);
		/* The rest is skipped. */
		ck_assert_int_eq(tar_next(&reader, &entry, &failure), 1);
		ck_assert_str_eq(entry.link, link);
		ck_assert_int_eq(tar_next(&reader, &entry, &failure), 1);
		ck_assert_uint_eq(strlen(entry.path), 100);
		ck_assert_int_eq(tar_next(&reader, &entry, &failure), 0);
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
	ck_assert_int_eq(tar_put(&writer, &in), 0);
	ck_assert_int_eq(tar_next(&reader, &out, &failure), 1);
	ck_assert_uint_eq(out.size, in.size);
	ck_assert_uint_eq(out.uid, in.uid);
	ck_assert_uint_eq(out.gid, in.gid);
	ck_assert_int_eq(out.mtime, in.mtime);
}
END_TEST

static int pack(const char *path, bool follow)
{
	char name[NAME_MAX + 1];
	int fd = tree_open(path, follow, name, &failure);
	int rc = fd < 0 ? -1 : tree_pack(fd, name, &writer, &counts, &failure);

	close(fd);
	return rc;
}

START_TEST(tree_is_packed_and_unpacked)
{
	ck_assert_int_eq(system("cd tree && mkdir -p a/b && echo one > a/b/1 && echo two > 2 && "
				"ln -s a/b link && ln 2 hard && mkfifo fifo && chmod 710 2"),
			 0);
	ck_assert_int_eq(pack("tree", false), 0);
	ck_assert_uint_eq(counts.files, 8);
	ck_assert_int_eq(unpack(NULL, false), 0);
	ck_assert_int_eq(system("cd in/tree && test \"$(cat link/1)\" = one -a -p fifo && "
				"test \"$(cat hard)\" = two -a $(stat -c %a 2) = 710"),
			 0);
}
END_TEST

/* What comes into them changes them. */
START_TEST(directories_keep_their_times)
{
	static const char *const names[] = { "", "a", "a/b", "ab", "ab/c", "ab/c/d", "e" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char path[100];

		snprintf(path, sizeof(path), "given/%s", names[i]);
		add(TAR_DIRECTORY, path, NULL, NULL);
		snprintf(path, sizeof(path), "given/%s/file", names[i]);
		add(TAR_FILE, path, NULL, "text");
	}
	add(TAR_DIRECTORY, "given/ab", NULL, NULL);
	add(TAR_FILE, "given/ab/more", NULL, "text");
	ck_assert_int_eq(unpack(_i ? "wanted" : NULL, true), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
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
	add(TAR_DIRECTORY, "given/", NULL, NULL);
	add(TAR_FILE, "given/file", NULL, "text");
	add(TAR_FILE, "elsewhere/other", NULL, "below, too");
	ck_assert_int_eq(unpack("wanted", true), 0);
	assert_text("in/wanted/file", "text");
	assert_text("in/wanted/other", "below, too");
	ck_assert_int_ne(access("in/given", F_OK), 0);
	ck_assert_int_ne(access("in/elsewhere", F_OK), 0);
}
END_TEST

START_TEST(file_gets_another_name_and_no_company)
{
	add(TAR_FILE, "given", NULL, "text");
	add(TAR_FILE, "more", NULL, "text");
	ck_assert_int_eq(unpack("wanted", true), -1);
	assert_contains(failure.text, "more than one file");
	assert_text("in/wanted", "text");
	ck_assert_int_ne(access("in/more", F_OK), 0);
}
END_TEST

static const char *const bad_paths[] = { "..", "../outside/x", "a/../../outside/x", "/../outside/x",
					 "./.././outside/x" };

START_TEST(path_that_leads_out_is_refused)
{
	add(TAR_FILE, bad_paths[_i], NULL, "evil");
	ck_assert_int_eq(unpack(NULL, false), -1);
	assert_contains(failure.text, "leads out of the destination");
	ck_assert_int_ne(access("outside/x", F_OK), 0);
}
END_TEST

START_TEST(absolute_path_stays_inside)
{
	add(TAR_FILE, "/deep//./down", NULL, "text");
	ck_assert_int_eq(unpack(NULL, false), 0);
	assert_text("in/deep/down", "text");
}
END_TEST

static const char *const ways_out[] = { "../outside", "/outside", "/../outside",
					"../../../../outside" };

START_TEST(symbolic_link_does_not_lead_out)
{
	add(TAR_SYMLINK, "way", ways_out[_i], NULL);
	add(TAR_FILE, "way/x", NULL, "evil");
	/* As below a root: either there is nothing, or it is made below "in". */
	(void)unpack(NULL, false);
	ck_assert_int_ne(access("outside/x", F_OK), 0);
	ck_assert_int_ne(access("/outside", F_OK), 0);
}
END_TEST

START_TEST(symbolic_link_in_the_way_is_replaced)
{
	write_text("outside/victim", "safe");
	add(TAR_SYMLINK, "file", "../outside/victim", NULL);
	add(TAR_FILE, "file", NULL, "mine");
	ck_assert_int_eq(unpack(NULL, false), 0);
	assert_text("outside/victim", "safe");
	assert_text("in/file", "mine");
}
END_TEST

/* Into "in" as it was left: 0 or -1. */
static int update(void)
{
	const struct tree_options options = { .plain = true, .update = true };
	int dir = open("in", O_RDONLY | O_DIRECTORY), rc;

	ck_assert_int_eq(tar_finish(&writer), 0);
	rc = tree_unpack(dir, &reader, &options, &counts, &failure);
	close(dir);
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
	add(kinds[_i].comes, "x", "target", kinds[_i].comes == TAR_FILE ? "new" : NULL);
	ck_assert_int_eq(unpack(NULL, true), kinds[_i].refused ? -1 : 0);
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
	add(kinds[_i].comes, "x", "target", kinds[_i].comes == TAR_FILE ? "new" : NULL);
	ck_assert_int_eq(update(), 0);
	ck_assert_int_eq(system(wanted[kinds[_i].comes]), 0);
	assert_text("outside/victim", "safe");
}
END_TEST

/* A volume is a directory whatever the guest has made of its place. */
START_TEST(directory_itself_gives_way_to_nothing)
{
	static const enum tar_type types[] = { TAR_FILE, TAR_SYMLINK, TAR_FIFO };
	const struct tree_options options = { .plain = true, .update = true };
	int dir = open("in", O_RDONLY | O_DIRECTORY);

	write_text("in/precious", "old");
	add(types[_i], "volume", "target", types[_i] == TAR_FILE ? "new" : NULL);
	ck_assert_int_eq(tar_finish(&writer), 0);
	ck_assert_int_eq(tree_unpack_as(dir, ".", &reader, &options, &counts, &failure), -1);
	ck_assert_str_eq(failure.text, "volume: it is not a directory any more");
	assert_text("in/precious", "old");
	close(dir);
}
END_TEST

START_TEST(pages_of_zeroes_become_holes)
{
	struct stat st;

	ck_assert_int_eq(
		system("cd tree && printf begin > f && truncate -s 3M f && printf middle >> f && "
		       "truncate -s 3500001 f"),
		0);
	ck_assert_int_eq(pack("tree/f", false), 0);
	chunk = 1000;
	ck_assert_int_eq(unpack("f", true), 0);
	ck_assert_int_eq(system("cmp tree/f in/f"), 0);
	ck_assert_int_eq(stat("in/f", &st), 0);
	ck_assert_int_lt(st.st_blocks * 512, 300000);
	ck_assert_uint_eq(counts.bytes, 2 * 3500001);
}
END_TEST

/* Of procfs, which says 0, and sysfs, which says a page; long ones and short ones. */
START_TEST(file_that_does_not_know_its_size)
{
	static const char *const files[] = { "/proc/kallsyms", "/proc/version", "/proc/cpuinfo",
					     "/sys/kernel/uevent_seqnum" };
	char command[200];

	ck_assert_int_eq(pack(files[_i], false), 0);
	ck_assert_int_eq(unpack("f", true), 0);
	snprintf(command, sizeof(command),
		 "test $(wc -c < in/f) -gt 1 && head -c 10 %s | cmp -n 10 - in/f", files[_i]);
	ck_assert_int_eq(system(command), 0);
	ck_assert_int_eq(system("test \"$(tr -d '\\0' < in/f | wc -c)\" = \"$(wc -c < in/f)\""), 0);
}
END_TEST

static int shorten(void *opaque, const void *data, size_t size)
{
	ck_assert_int_eq(truncate("tree/f", 100000), 0);
	return put_bytes(opaque, data, size);
}

START_TEST(file_that_becomes_shorter_is_an_error)
{
	struct tar_writer shortens = { shorten, NULL };
	int fd;

	ck_assert_int_eq(system("head -c 1000000 /dev/urandom > tree/f"), 0);
	fd = open("tree/f", O_RDONLY);
	ck_assert_int_eq(tree_pack(fd, "f", &shortens, &counts, &failure), -1);
	assert_contains(failure.text, "f: it became shorter while it was read");
	close(fd);
}
END_TEST

START_TEST(name_that_is_a_link_already_is_not_followed)
{
	ck_assert_int_eq(symlink("../outside", "in/wanted"), 0);
	add(TAR_DIRECTORY, "given", NULL, NULL);
	add(TAR_FILE, "given/x", NULL, "mine");
	ck_assert_int_eq(unpack("wanted", true), -1);
	ck_assert_int_ne(access("outside/x", F_OK), 0);
}
END_TEST

START_TEST(hard_link_does_not_lead_out)
{
	write_text("outside/secret", "secret");
	add(TAR_SYMLINK, "way", "../outside", NULL);
	add(TAR_HARD_LINK, "stolen", "way/secret", NULL);
	ck_assert_int_eq(unpack(NULL, false), -1);
	ck_assert_int_ne(access("in/stolen", F_OK), 0);
	set_up();
	write_text("outside/secret", "secret");
	add(TAR_HARD_LINK, "stolen", "../outside/secret", NULL);
	ck_assert_int_eq(unpack(NULL, false), -1);
	ck_assert_int_ne(access("in/stolen", F_OK), 0);
}
END_TEST

START_TEST(plain_takes_no_devices_and_no_setuid)
{
	static struct tar_entry entry = {
		.type = TAR_FILE, .path = "suid", .mode = 06755, .uid = 1, .gid = 1
	};
	struct stat st;

	ck_assert_int_eq(tar_put(&writer, &entry), 0);
	add(TAR_FIFO, "fifo", NULL, NULL);
	add(TAR_FILE, "file", NULL, "text");
	ck_assert_int_eq(unpack(NULL, true), 0);
	ck_assert_uint_eq(counts.left_out, 1);
	ck_assert_int_ne(access("in/fifo", F_OK), 0);
	assert_text("in/file", "text");
	ck_assert_int_eq(stat("in/suid", &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0755);
	ck_assert_uint_eq(st.st_uid, geteuid());
}
END_TEST

START_TEST(single_fifo_is_refused)
{
	add(TAR_FIFO, "fifo", NULL, NULL);
	ck_assert_int_eq(unpack("wanted", true), -1);
	assert_contains(failure.text, "fifo: a device or fifo is not taken");
}
END_TEST

/* Whoever else has it open keeps the old one, too. */
START_TEST(file_is_replaced_by_a_whole_one_or_not_at_all)
{
	const struct tree_options options = { .plain = true };
	int dir = open("in", O_RDONLY | O_DIRECTORY);

	write_text("in/file", "old");
	add(TAR_FILE, "file", NULL, "new");
	archive_size = TAR_BLOCK + 1;
	ck_assert_int_eq(tree_unpack(dir, &reader, &options, &counts, &failure), -1);
	close(dir);
	assert_text("in/file", "old");
	ck_assert_int_eq(system("test \"$(ls -A in)\" = file"), 0);
	set_up();
	write_text("in/file", "old");
	add(TAR_FILE, "file", NULL, "new");
	ck_assert_int_eq(unpack(NULL, true), 0);
	assert_text("in/file", "new");
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
	ck_assert_int_eq(pack("tree", false), 0);
	ck_assert_int_eq(rename("in", "tree2"), 0);
	ck_assert_int_eq(mkdir("in", 0755), 0);
	ck_assert_int_eq(rename("tree2", "in/tree"), 0);
	close(dir);
	dir = open("in", O_RDONLY | O_DIRECTORY);
	ck_assert_int_eq(tree_unpack(dir, &reader, &options, &counts, &failure), 0);
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
	add(TAR_FILE, "old", NULL, "new");
	add(TAR_FILE, "new", NULL, "new");
	add(TAR_SYMLINK, "link", "new", NULL);
	add(TAR_DIRECTORY, "dir", NULL, NULL);
	add(TAR_FILE, "dir/file", NULL, "new");
	add(TAR_FILE, "between/file", NULL, "new");
	ck_assert_int_eq(unpack(NULL, true), 0);
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

	add(TAR_FILE, "1/2/3/4/5/6/7/8/9/10/file", NULL, "");
	ck_assert_int_eq(tree_unpack(dir, &reader, &options, &counts, &failure), -1);
	assert_contains(failure.text, "too many files");
	close(dir);
}
END_TEST

START_TEST(stream_that_is_cut_is_an_error_wherever)
{
	size_t whole;

	add(TAR_FILE, "a", NULL, "some data");
	add(TAR_FILE,
	    "a-name-of-more-than-a-hundred-bytes/"
	    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	    "bbbbbbbbbbbbbbbbbbbbbbbb",
	    NULL, "more data");
	whole = archive_size;
	for (size_t size = 0; size < whole; size += 100) {
		int dir = open("in", O_RDONLY | O_DIRECTORY);
		const struct tree_options options = { .plain = true };

		archive_size = size;
		archive_at = 0;
		reader = (struct tar_reader){ .read = get_bytes };
		ck_assert_int_eq(tree_unpack(dir, &reader, &options, &counts, &failure), -1);
		assert_contains(failure.text, "ends in the middle");
		close(dir);
	}
}
END_TEST

START_TEST(what_is_no_tar_is_said)
{
	static uint8_t noise[2048];

	fill_pattern(noise, sizeof(noise));
	put_bytes(NULL, noise, sizeof(noise));
	ck_assert_int_eq(unpack(NULL, true), -1);
	assert_contains(failure.text, "this is no tar stream");
}
END_TEST

static void assert_packed_as(const char *path, bool follow, const char *name, enum tar_type type)
{
	static struct tar_entry entry;

	archive_size = archive_at = 0;
	ck_assert_int_eq(pack(path, follow), 0);
	ck_assert_int_eq(tar_next(&reader, &entry, &failure), 1);
	ck_assert_str_eq(entry.path, name);
	ck_assert_int_eq(entry.type, type);
	reader.left = reader.padding = 0;
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
	ck_assert_int_eq(pack("tree/dangling", true), -1);
	ck_assert_str_eq(failure.text, "tree/dangling: No such file or directory");
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
	fd = tree_open("tree/own", false, name, &failure);
	ck_assert_int_eq(system("mv tree/own tree/real && ln -s secret tree/own"), 0);
	ck_assert_int_eq(tree_pack(fd, name, &writer, &counts, &failure), 0);
	close(fd);
	ck_assert_int_eq(tar_next(&reader, &entry, &failure), 1);
	ck_assert_str_eq(entry.path, "own/");
	ck_assert_int_eq(tar_next(&reader, &entry, &failure), 1);
	ck_assert_str_eq(entry.path, "own/mine");
}
END_TEST

START_TEST(file_that_is_not_there)
{
	ck_assert_int_eq(pack("nosuch", false), -1);
	ck_assert_str_eq(failure.text, "nosuch: No such file or directory");
}
END_TEST

START_TEST(very_deep_tree_is_refused)
{
	ck_assert_int_eq(system("mkdir -p tree/$(printf 'd/%.0s' $(seq 600))"), 0);
	ck_assert_int_eq(pack("tree", false), -1);
	assert_contains(failure.text, "File name too long");
}
END_TEST

Suite *tar_suite(void)
{
	Suite *suite = SUITE(
		"tar", set_up, NULL, entries_come_back_as_they_were,
		numbers_that_octal_digits_cannot_hold, tree_is_packed_and_unpacked,
		tree_gets_another_name, file_gets_another_name_and_no_company,
		absolute_path_stays_inside, symbolic_link_in_the_way_is_replaced,
		pages_of_zeroes_become_holes, file_that_becomes_shorter_is_an_error,
		name_that_is_a_link_already_is_not_followed, hard_link_does_not_lead_out,
		plain_takes_no_devices_and_no_setuid, single_fifo_is_refused,
		file_is_replaced_by_a_whole_one_or_not_at_all, file_that_is_the_same_is_left_alone,
		files_belong_to_whom_the_directory_does, directories_that_nobody_names_are_counted,
		stream_that_is_cut_is_an_error_wherever, what_is_no_tar_is_said,
		file_that_is_not_there, link_is_followed_only_if_it_is_to_be,
		open_tree_is_packed_whatever_its_path_is_by_now, very_deep_tree_is_refused);

	add_table_test(suite, set_up, NULL, directories_keep_their_times, 2);
	add_table_test(suite, set_up, NULL, path_that_leads_out_is_refused, ARRAY_SIZE(bad_paths));
	add_table_test(suite, set_up, NULL, symbolic_link_does_not_lead_out, ARRAY_SIZE(ways_out));
	add_table_test(suite, set_up, NULL, what_is_of_another_kind_stays, ARRAY_SIZE(kinds));
	add_table_test(suite, set_up, NULL, what_is_of_another_kind_gives_way_to_a_newer_state,
		       ARRAY_SIZE(kinds));
	add_table_test(suite, set_up, NULL, file_that_does_not_know_its_size, 4);
	add_table_test(suite, set_up, NULL, directory_itself_gives_way_to_nothing, 3);
	return suite;
}

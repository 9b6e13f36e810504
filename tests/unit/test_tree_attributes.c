/* SPDX-License-Identifier: Apache-2.0 */
/* Extended attributes on their way through streams of tar, and those that stay where they are. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/array.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "tests/unit/tar_fixture.h"

#define CAPABILITY "security.capability"

/* cap_net_raw+p, as setcap(8) writes it. */
static const char capability[20] = { 0, 0, 0, 2, 0, 0x20 };

static const struct {
	const char *name;
	const char *value;
	size_t size;
} usual[] = {
	{ "user.text", "value", 5 },
	{ "user.empty", "", 0 },
	{ "user.bytes", "a\0b\n1 x=y\n=\xff\0", 13 },
	{ "user.a=b%3D%c=", "=", 1 },
};

static void set_usual(const char *path)
{
	for (size_t i = 0; i < ARRAY_SIZE(usual); i++)
		ck_assert_int_eq(setxattr(path, usual[i].name, usual[i].value, usual[i].size, 0),
				 0);
}

static void assert_attribute(const char *path, const char *name, const void *value, size_t size)
{
	char found[65536];
	ssize_t n = lgetxattr(path, name, found, sizeof(found));

	ck_assert_msg(n == (ssize_t)size, "%s: %s has %zd bytes", path, name, n);
	ck_assert_int_eq(memcmp(found, value, size), 0);
}

static void assert_usual(const char *path)
{
	for (size_t i = 0; i < ARRAY_SIZE(usual); i++)
		assert_attribute(path, usual[i].name, usual[i].value, usual[i].size);
}

static void assert_none(const char *path, const char *name)
{
	ck_assert_msg(lgetxattr(path, name, NULL, 0) < 0 && errno == ENODATA, "%s: %s", path, name);
}

/* A header of pax with `text` in it, for the entry that follows. */
static void add_pax(const char *text, size_t size)
{
	const struct tar_entry entry = { .type = (enum tar_type)'x', .size = size };

	ck_assert_int_eq(tar_put(&tar_fixture_writer, &entry), 0);
	ck_assert_int_eq(tar_fixture_put(NULL, text, size), 0);
	ck_assert_int_eq(tar_pad(&tar_fixture_writer, size), 0);
}

static void add_record(const char *key, const char *value)
{
	char text[400];
	size_t digits = 1, rest = strlen(key) + strlen(value) + 3;

	while ((size_t)snprintf(NULL, 0, "%zu", digits + rest) > digits)
		digits++;
	snprintf(text, sizeof(text), "%zu %s=%s\n", digits + rest, key, value);
	add_pax(text, digits + rest);
}

static const bool both[] = { false, true };

START_TEST(attributes_of_users_come_along)
{
	struct stat st;

	ck_assert_int_eq(system("mkdir tree/d && echo one > tree/d/f && ln -s f tree/d/link && "
				"mkfifo tree/d/fifo && touch tree/d/none tree/d/more"),
			 0);
	set_usual("tree/d");
	set_usual("tree/d/f");
	ck_assert_int_eq(setxattr("tree/d/more", "user.more", "1", 1, 0), 0);
	/* Nobody writes to it. */
	ck_assert_int_eq(chmod("tree/d/f", 0444), 0);
	ck_assert_int_eq(tar_fixture_pack("tree/d", false), 0);
	ck_assert_int_eq(tar_fixture_unpack(NULL, both[_i]), 0);
	assert_usual("in/d");
	assert_usual("in/d/f");
	assert_none("in/d/f", "user.more");
	assert_attribute("in/d/more", "user.more", "1", 1);
	assert_none("in/d/more", "user.text");
	ck_assert_int_eq(listxattr("in/d/none", NULL, 0), 0);
	assert_file("in/d/link", "one\n");
	ck_assert_int_eq(stat("in/d/f", &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0444);
}
END_TEST

/* Without root's power over modes, until become_root_again(). */
static void become_nobody(void)
{
	if (geteuid() != 0)
		return;
	ck_assert_int_eq(chmod(".", 0755), 0);
	ck_assert_int_eq(system("chown -R 65534 in"), 0);
	ck_assert_int_eq(seteuid(65534), 0);
}

/* A sanitizer that looks for leaks needs the power in the end. */
static void become_root_again(void)
{
	ck_assert_int_eq(seteuid(getuid()), 0);
}

START_TEST(file_that_nobody_writes_to_gets_its_attributes)
{
	struct stat st;

	write_text("tree/f", "text");
	set_usual("tree/f");
	ck_assert_int_eq(chmod("tree/f", 0464), 0);
	ck_assert_int_eq(tar_fixture_pack("tree/f", false), 0);
	become_nobody();
	umask(0026);
	ck_assert_int_eq(tar_fixture_unpack("f", true), 0);
	become_root_again();
	ck_assert_int_eq(stat("in/f", &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0440);
	assert_usual("in/f");
}
END_TEST

START_TEST(capabilities_are_for_those_who_unpack_as_they_are)
{
	if (geteuid() != 0)
		return;
	write_text("tree/f", "text");
	ck_assert_int_eq(chown("tree/f", 12, 34), 0);
	ck_assert_int_eq(setxattr("tree/f", CAPABILITY, capability, sizeof(capability), 0), 0);
	ck_assert_int_eq(setxattr("tree/f", "trusted.mine", "1", 1, 0), 0);
	ck_assert_int_eq(setxattr("tree/f", "security.mine", "1", 1, 0), 0);
	ck_assert_int_eq(tar_fixture_pack("tree/f", false), 0);
	ck_assert_int_eq(tar_fixture_unpack(NULL, both[_i]), 0);
	if (both[_i])
		assert_none("in/f", CAPABILITY);
	else
		assert_attribute("in/f", CAPABILITY, capability, sizeof(capability));
	assert_none("in/f", "trusted.mine");
	assert_none("in/f", "security.mine");
}
END_TEST

/* What a stream may say: none of it is taken, but what is of users. */
START_TEST(attributes_with_power_are_left_where_they_are)
{
	static const char *const names[] = {
		"security.capability",
		"security.selinux",
		"security.ima",
		"security.evm",
		"trusted.overlay.opaque",
		"system.posix_acl_access",
		"system.posix_acl_default",
		"system.nfs4_acl",
		"user.",
		"user",
		"User.x",
		"nodot",
		"security.capability%00user.x",
		"%75ser.capability",
		".user.x",
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char key[100];

		snprintf(key, sizeof(key), "SCHILY.xattr.%s", names[i]);
		add_record(key, "\x01\x02");
	}
	add_record("LIBARCHIVE.xattr.user.other", "YQ==");
	add_record("SCHILY.acl.access", "user::rwx,user:evil:rwx");
	add_record("SCHILY.xattr.user.x", "mine");
	tar_fixture_add(TAR_FILE, "f", NULL, "text");
	tar_fixture_add(TAR_FILE, "g", NULL, "text");
	ck_assert_int_eq(tar_fixture_unpack(NULL, true), 0);
	assert_attribute("in/f", "user.x", "mine", 4);
	ck_assert_int_eq(listxattr("in/f", NULL, 0), sizeof("user.x"));
	ck_assert_int_eq(listxattr("in/g", NULL, 0), 0);
	ck_assert_int_eq(system("test $(stat -c %a in/f) = 644"), 0);
}
END_TEST

/* Links, nodes and what is elsewhere. */
START_TEST(attributes_are_of_files_and_directories_alone)
{
	write_text("outside/victim", "safe");
	add_record("SCHILY.xattr.user.x", "evil");
	tar_fixture_add(TAR_SYMLINK, "link", "../outside/victim", NULL);
	add_record("SCHILY.xattr.user.x", "evil");
	tar_fixture_add(TAR_FIFO, "fifo", NULL, NULL);
	tar_fixture_add(TAR_FILE, "f", NULL, "text");
	add_record("SCHILY.xattr.user.x", "evil");
	tar_fixture_add(TAR_HARD_LINK, "hard", "f", NULL);
	ck_assert_int_eq(tar_fixture_unpack(NULL, both[_i]), 0);
	assert_none("outside/victim", "user.x");
	assert_none("in/f", "user.x");
}
END_TEST

static const struct {
	const char *record; /* NULL: `size` bytes of a value */
	size_t size;
	unsigned int times;
} too_much[] = {
	{ "SCHILY.xattr.", 0, 1 }, { "SCHILY.xattr.user.%0300d", 0, 1 },
	{ NULL, 65537, 1 },	   { NULL, 65536, 17 },
	{ NULL, 3 << 20, 1 },	   { "SCHILY.xattr.user.%0200d", 0, 400 },
};

START_TEST(more_than_a_file_can_have_is_refused)
{
	static char text[4 << 20];

	for (unsigned int i = 0; i < too_much[_i].times; i++) {
		if (too_much[_i].record) {
			char key[400];

			/* A table of formats of one number. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
			snprintf(key, sizeof(key), too_much[_i].record, i);
#pragma GCC diagnostic pop
			add_record(key, "x");
		} else {
			const size_t digits = too_much[_i].size < 99000 ? 5 : 7;
			const size_t whole =
				digits + strlen(" SCHILY.xattr.user.x=\n") + too_much[_i].size;

			memset(text, 'x', sizeof(text));
			ck_assert_int_eq(snprintf(text, 100, "%zu SCHILY.xattr.user.x=", whole),
					 (int)(whole - too_much[_i].size - 1));
			text[whole - too_much[_i].size - 1] = 'x';
			text[whole - 1] = '\n';
			add_pax(text, whole);
		}
	}
	tar_fixture_add(TAR_FILE, "f", NULL, "text");
	ck_assert_int_lt(tar_fixture_unpack(NULL, true), 0);
	ck_assert_str_eq(tar_err.text,
			 too_much[_i].size > 2 << 20
				 ? "the tar stream has a pax header that is too long"
				 : "the tar stream has extended attributes that no file can have");
	ck_assert_int_ne(access("in/f", F_OK), 0);
}
END_TEST

/* As many as are possible go through the stream, whatever the file system takes. */
START_TEST(stream_takes_as_much_as_a_file_can_have)
{
	static struct tar_entry in = { .type = TAR_FILE, .path = "f" }, out;
	static char value[65536];
	struct attributes attributes = { 0 };
	struct attribute attribute;
	size_t at = 0;
	char name[256];

	for (unsigned int i = 0; i < 15; i++) {
		memset(value, (int)i, sizeof(value));
		/* Each of these becomes three. */
		memset(name, i % 2 ? '=' : '%', 255);
		snprintf(name, sizeof(name), "user.%u", i);
		name[strlen(name)] = '%';
		name[255] = '\0';
		ck_assert_int_eq(attributes_add(&attributes, name, value, sizeof(value)), 0);
	}
	in.attributes = &attributes;
	in.mtime_ns = 5;
	ck_assert_int_eq(tar_put(&tar_fixture_writer, &in), 0);
	ck_assert_int_eq(tar_next(&tar_fixture_reader, &out, &tar_err), 1);
	ck_assert_uint_eq(out.mtime_ns, 5);
	ck_assert_uint_eq(out.attributes->size, attributes.size);
	ck_assert_int_eq(memcmp(out.attributes->data, attributes.data, attributes.size), 0);
	while (attributes_next(out.attributes, &at, &attribute))
		ck_assert_uint_eq(attribute.size, sizeof(value));
	attributes_free(&attributes);
}
END_TEST

/* Directories that are there already, and that may not be written to. */
START_TEST(directory_that_has_its_attributes_is_left_alone)
{
	ck_assert_int_eq(system("mkdir tree/d in/d"), 0);
	set_usual("tree/d");
	if (_i)
		set_usual("in/d");
	ck_assert_int_eq(chmod("in/d", 0555), 0);
	ck_assert_int_eq(tar_fixture_pack("tree/d", false), 0);
	become_nobody();
	ck_assert_int_eq(tar_fixture_unpack(NULL, true), _i ? 0 : -1);
	become_root_again();
	if (!_i)
		assert_contains(tar_err.text, "d/: extended attribute user.");
}
END_TEST

START_TEST(newer_state_differs_by_attributes)
{
	const struct tree_options options = { .plain = true, .update = true };
	struct stat before, after;
	int dir;

	ck_assert_int_eq(system("mkdir tree/d && echo old > tree/d/f && cp -a tree/d in/d"), 0);
	set_usual("tree/d/f");
	if (_i)
		set_usual("in/d/f");
	ck_assert_int_eq(setxattr("in/d/f", "user.host", "1", 1, 0), 0);
	ck_assert_int_eq(stat("in/d/f", &before), 0);
	ck_assert_int_eq(tar_fixture_pack("tree/d", false), 0);
	dir = open("in", O_RDONLY | O_DIRECTORY);
	ck_assert_int_eq(tree_unpack(dir, &tar_fixture_reader, &options, &tar_counts, &tar_err), 0);
	close(dir);
	tar_reader_free(&tar_fixture_reader);
	ck_assert_int_eq(stat("in/d/f", &after), 0);
	ck_assert_int_eq(before.st_ino == after.st_ino, _i);
	assert_usual("in/d/f");
	if (_i)
		assert_attribute("in/d/f", "user.host", "1", 1);
}
END_TEST

/* procfs has none to give, and ramfs none to take. */
START_TEST(file_system_without_attributes)
{
	ck_assert_int_eq(tar_fixture_pack("/proc/version", false), 0);
	ck_assert_int_eq(tar_fixture_unpack(NULL, true), 0);
	if (unshare(CLONE_NEWNS) < 0)
		return;
	tar_fixture_set_up();
	write_text("tree/f", "text");
	set_usual("tree/f");
	ck_assert_int_eq(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	ck_assert_int_eq(mount("none", "in", "ramfs", 0, NULL), 0);
	ck_assert_int_eq(tar_fixture_pack("tree/f", false), 0);
	ck_assert_int_eq(tar_fixture_unpack(NULL, true), 0);
	assert_file("in/f", "text");
}
END_TEST

START_TEST(tar_reads_and_writes_the_same)
{
	ssize_t size;
	int fd;

	ck_assert_int_eq(system("mkdir tree/d && echo one > tree/d/f"), 0);
	set_usual("tree/d");
	set_usual("tree/d/f");
	ck_assert_int_eq(tar_fixture_pack("tree/d", false), 0);
	write_file("archive.tar", tar_archive, tar_archive_size);
	ck_assert_int_eq(system("tar -C in --xattrs -xf archive.tar && rm archive.tar"), 0);
	assert_usual("in/d");
	assert_usual("in/d/f");
	tar_fixture_set_up();
	ck_assert_int_eq(system("mkdir tree/d && echo one > tree/d/f"), 0);
	set_usual("tree/d/f");
	ck_assert_int_eq(system("tar -C tree --xattrs -cf archive.tar d"), 0);
	fd = open("archive.tar", O_RDONLY);
	size = read(fd, tar_archive, sizeof(tar_archive));
	close(fd);
	ck_assert_int_gt(size, 0);
	tar_archive_size = (size_t)size;
	ck_assert_int_eq(tar_fixture_unpack(NULL, true), 0);
	assert_usual("in/d/f");
	unlink("archive.tar");
}
END_TEST

Suite *tree_attributes_suite(void)
{
	Suite *suite = SUITE("tree_attributes", tar_fixture_set_up, NULL,
			     file_that_nobody_writes_to_gets_its_attributes,
			     attributes_with_power_are_left_where_they_are,
			     stream_takes_as_much_as_a_file_can_have,
			     file_system_without_attributes, tar_reads_and_writes_the_same);

	add_table_test(suite, tar_fixture_set_up, NULL, attributes_of_users_come_along, 2);
	add_table_test(suite, tar_fixture_set_up, NULL,
		       capabilities_are_for_those_who_unpack_as_they_are, 2);
	add_table_test(suite, tar_fixture_set_up, NULL,
		       attributes_are_of_files_and_directories_alone, 2);
	add_table_test(suite, tar_fixture_set_up, NULL, more_than_a_file_can_have_is_refused,
		       ARRAY_SIZE(too_much));
	add_table_test(suite, tar_fixture_set_up, NULL,
		       directory_that_has_its_attributes_is_left_alone, 2);
	add_table_test(suite, tar_fixture_set_up, NULL, newer_state_differs_by_attributes, 2);
	return suite;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/tar_fixture.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/support.h"

uint8_t tar_archive[TAR_ARCHIVE_MAX];
size_t tar_archive_size, tar_archive_at, tar_chunk;
struct err tar_err;
struct tree_counts tar_counts;

int tar_fixture_put(void *opaque, const void *data, size_t size)
{
	(void)opaque;
	if (size > sizeof(tar_archive) - tar_archive_size)
		return -1;
	memcpy(tar_archive + tar_archive_size, data, size);
	tar_archive_size += size;
	return 0;
}

ssize_t tar_fixture_get(void *opaque, void *data, size_t size)
{
	size_t left = tar_archive_size - tar_archive_at;

	(void)opaque;
	if (size > left)
		size = left;
	if (size > tar_chunk)
		size = tar_chunk;
	memcpy(data, tar_archive + tar_archive_at, size);
	tar_archive_at += size;
	return (ssize_t)size;
}

struct tar_writer tar_fixture_writer = { tar_fixture_put, NULL };
struct tar_reader tar_fixture_reader;

void tar_fixture_set_up(void)
{
	tar_archive_size = tar_archive_at = 0;
	tar_chunk = SIZE_MAX;
	tar_fixture_reader = (struct tar_reader){ .read = tar_fixture_get };
	tar_err.text[0] = '\0';
	memset(&tar_counts, 0, sizeof(tar_counts));
	ck_assert_int_eq(system("rm -rf tree in outside && mkdir tree in outside"), 0);
}

void tar_fixture_add(enum tar_type type, const char *path, const char *link, const char *data)
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
	ck_assert_int_eq(tar_put(&tar_fixture_writer, &entry), 0);
	if (data) {
		ck_assert_int_eq(tar_fixture_put(NULL, data, strlen(data)), 0);
		ck_assert_int_eq(tar_pad(&tar_fixture_writer, strlen(data)), 0);
	}
}

/* Into the directory "in". */
int tar_fixture_unpack(const char *name, bool plain)
{
	const struct tree_options options = { .plain = plain };
	int dir = open("in", O_RDONLY | O_DIRECTORY);
	int rc;

	ck_assert_int_ge(dir, 0);
	ck_assert_int_eq(tar_finish(&tar_fixture_writer), 0);
	rc = name ? tree_unpack_as(dir, name, &tar_fixture_reader, &options, &tar_counts, &tar_err)
		  : tree_unpack(dir, &tar_fixture_reader, &options, &tar_counts, &tar_err);
	close(dir);
	tar_reader_free(&tar_fixture_reader);
	return rc;
}

void assert_file(const char *path, const char *text)
{
	char *found = read_text(path);

	ck_assert_str_eq(found, text);
	free(found);
}

int tar_fixture_pack(const char *path, bool follow)
{
	char name[NAME_MAX + 1];
	int fd = tree_open(path, follow, name, &tar_err);
	int rc = fd < 0 ? -1 : tree_pack(fd, name, &tar_fixture_writer, &tar_counts, &tar_err);

	close(fd);
	return rc;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image's file system, packed: erofs, or ext4 if the first byte is odd. What comes out is a
 * tarball of no more than it may have, if all went well, and never much more.
 */
#include <archive.h>
#include <archive_entry.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "rootfs-tools/image/image_fs.h"
#include "rootfs-tools/image/pack.h"
#include "tests/fuzz/fuzz.h"

#define MAX (1 << 20)

static char packed[2 * MAX];

/* What it has for a tarball that has failed, it leaves. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libarchive.so";
}

static void read_back(size_t used)
{
	struct archive *in = archive_read_new();
	struct archive_entry *entry;
	int got;

	archive_read_support_format_tar(in);
	REQUIRE(archive_read_open_memory(in, packed, used) == ARCHIVE_OK);
	while ((got = archive_read_next_header(in, &entry)) == ARCHIVE_OK || got == ARCHIVE_WARN) {
		const char *name = archive_entry_pathname(entry);

		REQUIRE(name && name[0] != '/' && strncmp(name, "../", 3) != 0 &&
			!strstr(name, "/../"));
	}
	REQUIRE(got == ARCHIVE_EOF);
	archive_read_free(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct archive *out = pack_writer();
	CLEANUP_FD int fd = memfd_create("image", MFD_CLOEXEC);
	struct image_fs fs = { 0 };
	struct err err = { "" };
	unsigned sockets;
	char path[32];
	size_t used = 0;
	int rc;

	REQUIRE(out && fd >= 0);
	if (size < 1 || fd_write_all(fd, data + 1, size - 1) < 0) {
		archive_write_free(out);
		return 0;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	/* What is left of a tarball that has failed is then no block of 10 KiB each time. */
	REQUIRE(archive_write_set_bytes_per_block(out, 0) == ARCHIVE_OK);
	REQUIRE(archive_write_open_memory(out, packed, sizeof(packed), &used) == ARCHIVE_OK);
	rc = data[0] & 1 ? image_ext4_open(&fs, path, &err) : image_erofs_open(&fs, fd, &err);
	if (rc == 0)
		rc = pack_files(&fs, out, MAX, &sockets, &err);
	else
		archive_write_fail(out);
	REQUIRE(rc == 0 || err.text[0]);
	image_fs_close(&fs);
	archive_write_free(out);
	if (rc == 0)
		read_back(used);
	return 0;
}

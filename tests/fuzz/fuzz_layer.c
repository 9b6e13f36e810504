/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two layers of an image, one after the other, into a directory: nothing beside it changes, and all
 * of it can be removed. The first two bytes tell where the second layer begins, in sectors, and
 * whether whiteouts are such.
 */
#include <archive.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "rootfs-tools/image/inside.h"
#include "rootfs-tools/image/layer.h"
#include "tests/fuzz/fuzz.h"

#define SECTOR 512
#define FILE_MAX (1 << 20)

static int beside = -1; /* a directory that has only `root` in it */
static int here;	/* the working directory */

static char path[] = "/dev/shm/fuzz_layer.XXXXXX";

static void finish(void)
{
	(void)rmdir(path);
}

static void start(void)
{
	const struct rlimit limit = { FILE_MAX, FILE_MAX };

	/* Files that are nearly all hole take time to remove, too. */
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &limit);
	REQUIRE(mkdtemp(path));
	beside = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	REQUIRE(beside >= 0 && here >= 0);
	atexit(finish);
}

static void unpack(const uint8_t *data, size_t size, struct layer_target *target)
{
	struct archive *in = layer_reader(false);
	struct err err;

	REQUIRE(in);
	if (archive_read_open_memory(in, data, size) == ARCHIVE_OK)
		(void)layer_unpack(in, target, &err);
	archive_read_free(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct layer_target target = { 0 };
	struct stat before, after;
	size_t first;

	if (size < 2)
		return 0;
	if (beside < 0)
		start();
	REQUIRE(mkdirat(beside, "root", 0755) == 0 && fstat(beside, &before) == 0);
	target.root = openat(beside, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	target.is_layer = data[1] & 1;
	first = (size_t)data[0] * SECTOR;
	data += 2;
	size -= 2;
	if (first > size)
		first = size;
	unpack(data, first, &target);
	target.has_lower = true;
	unpack(data + first, size - first, &target);
	close(target.root);
	REQUIRE(fstat(beside, &after) == 0 && after.st_nlink == before.st_nlink);
	REQUIRE(after.st_mtim.tv_sec == before.st_mtim.tv_sec &&
		after.st_mtim.tv_nsec == before.st_mtim.tv_nsec);
	REQUIRE(inside_remove(beside, "root", NULL) == 0);
	/* libFuzzer's own paths may be relative. */
	REQUIRE(fchdir(here) == 0);
	return 0;
}

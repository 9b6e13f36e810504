/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/run_volumes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "cli/transfer.h"

#define VOLUME_TIME_MS (10 * 60 * 1000)
#define VOLUME_BYTES_MAX ((uint64_t)16 << 30)
#define VOLUME_FILES_MAX 1000000

int run_volumes_add(struct run_volumes *volumes, char *argument, struct err *err)
{
	struct run_volume *volume = &volumes->list[volumes->count];
	size_t length = strlen(argument);
	struct stat st;
	char *colon;

	if (volumes->count == RUN_VOLUMES_MAX)
		return err_set(err, E2BIG, "--volume: %d are possible", RUN_VOLUMES_MAX);
	*volume = (struct run_volume){ 0 };
	if (length > 3 && strcmp(argument + length - 3, ":ro") == 0) {
		volume->read_only = true;
		argument[length - 3] = '\0';
	}
	colon = strrchr(argument, ':');
	/* Odd names of the host's may have colons. */
	if (!colon || colon == argument || colon[1] != '/')
		return -EINVAL;
	*colon = '\0';
	volume->path = colon + 1;
	volume->dir = realpath(argument, NULL);
	if (!volume->dir || stat(volume->dir, &st) < 0 ||
	    (!S_ISDIR(st.st_mode) && (errno = ENOTDIR))) {
		int rc = err_sys(err, errno, "--volume %s", argument);

		free(volume->dir);
		return rc;
	}
	volumes->count++;
	return 0;
}

void run_volumes_close(struct run_volumes *volumes)
{
	for (size_t i = 0; i < volumes->count; i++)
		free(volumes->list[i].dir);
	volumes->count = 0;
}

static struct transfer_bounds bounds_of_one(const struct transfer_bounds *bounds)
{
	struct transfer_bounds own = *bounds;

	own.time_ms = VOLUME_TIME_MS;
	own.bytes_max = VOLUME_BYTES_MAX;
	own.files_max = VOLUME_FILES_MAX;
	return own;
}

int run_volumes_put(const struct run_volumes *volumes, const char *vsock, const char *owner,
		    const struct transfer_bounds *bounds, struct err *err)
{
	const struct transfer_bounds own = bounds_of_one(bounds);
	int rc = 0;

	for (size_t i = 0; i < volumes->count && rc == 0; i++)
		rc = transfer_put(vsock, volumes->list[i].dir, volumes->list[i].path,
				  owner ? owner : "0:0", false, &own, NULL, err);
	return rc;
}

int run_volumes_get(const struct run_volumes *volumes, const char *vsock,
		    const struct transfer_bounds *bounds, struct err *err)
{
	const struct transfer_bounds own = bounds_of_one(bounds);
	int rc = 0;

	for (size_t i = 0; i < volumes->count && rc == 0; i++) {
		if (!volumes->list[i].read_only)
			rc = transfer_get(vsock, volumes->list[i].path, volumes->list[i].dir, true,
					  &own, NULL, err);
	}
	return rc;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/run_volumes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/fd.h"
#include "host/transfer.h"
#include "tree/tree.h"

#define VOLUME_TIME_MS (10 * 60 * 1000)
#define VOLUME_BYTES_MAX ((uint64_t)16 << 30)
#define VOLUME_FILES_MAX 1000000

int run_volumes_add(struct run_volumes *volumes, char *argument, struct err *err)
{
	struct run_volume *volume = &volumes->list[volumes->count];
	size_t length = strlen(argument);
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
	if (strspn(volume->path, "/.") == strlen(volume->path))
		return err_set(err, EINVAL, "--volume %s: %s is no place for a volume", argument,
			       volume->path);
	volume->fd = open(argument, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (volume->fd < 0)
		return err_sys(err, errno, "--volume %s", argument);
	volumes->count++;
	return 0;
}

void run_volumes_close(struct run_volumes *volumes)
{
	for (size_t i = 0; i < volumes->count; i++)
		fd_close(&volumes->list[i].fd);
	volumes->count = 0;
}

static struct transfer_bounds bounds_of_one(const struct transfer_bounds *bounds)
{
	struct transfer_bounds own = *bounds;

	own.time_ms = VOLUME_TIME_MS;
	own.bytes_max = VOLUME_BYTES_MAX;
	own.files_max = VOLUME_FILES_MAX;
	own.update = true;
	return own;
}

int run_volumes_put(const struct run_volumes *volumes, const char *vsock, const char *owner,
		    const struct transfer_bounds *bounds, struct err *err)
{
	const struct transfer_bounds own = bounds_of_one(bounds);
	int rc = 0;

	for (size_t i = 0; i < volumes->count && rc == 0; i++) {
		/* The guest calls it as its place is called. */
		const struct transfer_end here = { volumes->list[i].fd, "volume" };

		rc = transfer_put(vsock, &here, volumes->list[i].path, owner ? owner : "0:0", true,
				  &own, NULL, err);
	}
	return rc;
}

int run_volumes_get(const struct run_volumes *volumes, const char *vsock,
		    const struct transfer_bounds *bounds, struct err *err)
{
	const struct transfer_bounds own = bounds_of_one(bounds);
	int rc = 0;

	for (size_t i = 0; i < volumes->count && rc == 0; i++) {
		const struct run_volume *volume = &volumes->list[i];
		/* The directory itself, whatever it is called by now. */
		const struct transfer_end here = { volume->fd, "." };
		struct tree_counts counts = { 0 };

		if (!volume->read_only)
			rc = transfer_get(vsock, volume->path, true, &here, &own, &counts, err);
		if (counts.left_out > 0)
			fprintf(stderr, "mote: %llu devices and fifos of %s were left out\n",
				(unsigned long long)counts.left_out, volume->path);
	}
	return rc;
}

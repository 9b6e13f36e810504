/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes of an image what archives and registries take, for build-image.sh, which has confined it:
 *	pack-image erofs|ext4 IMAGE TO MAX	writes its files as a tarball of at most MAX KiB
 *	pack-image --config CONFIG DIGEST TO	writes the configuration of an image with one layer,
 *						whose SHA-256 that is
 *
 * Says in lines that begin with "warning: " on descriptor 3 what people should know. Exits with 0,
 * or with 1 and one sentence.
 */
#include <archive.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "rootfs-tools/image/image_fs.h"
#include "rootfs-tools/image/layer.h"
#include "rootfs-tools/image/pack.h"

#define PROGRESS_FD 3

static int open_new(const char *path, struct err *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	return fd < 0 ? err_sys(err, errno, "%s", path) : fd;
}

static int pack(const char *format, const char *image, const char *to, uint64_t max_kib,
		struct err *err)
{
	CLEANUP_FD int in = open(image, O_RDONLY | O_CLOEXEC);
	CLEANUP_FD int out = open_new(to, err);
	struct archive *archive = pack_writer();
	struct image_fs fs = { 0 };
	unsigned sockets = 0;
	int rc = out < 0 ? out : 0;

	if (rc == 0 && (in < 0 || !archive))
		rc = err_sys(err, in < 0 ? errno : ENOMEM, "the image");
	if (rc == 0 && archive_write_open_fd(archive, out) != ARCHIVE_OK)
		rc = layer_error(archive, "", err);
	if (rc == 0)
		rc = strcmp(format, "erofs") == 0 ? image_erofs_open(&fs, in, err)
						  : image_ext4_open(&fs, image, err);
	if (rc == 0)
		rc = pack_files(&fs, archive, max_kib << 10, &sockets, err);
	image_fs_close(&fs);
	archive_write_free(archive);
	if (rc == 0 && sockets > 0)
		dprintf(PROGRESS_FD,
			"warning: sockets are left out, which a layer cannot hold: %u\n", sockets);
	return rc;
}

/*
 * Of the steps that made the layers one is left that brought files (OCI image specification,
 * "history"), as there is one layer; the others are kept as what they were for people.
 */
static int settle_history(json_t *config)
{
	json_t *history = json_object_get(config, "history");
	bool has_layer = false;

	if (!history) {
		history = json_array();
		json_object_set_new(config, "history", history);
	}
	for (size_t i = json_array_size(history); i > 0; i--) {
		json_t *step = json_array_get(history, i - 1);

		if (has_layer)
			json_object_set_new(step, "empty_layer", json_true());
		has_layer = has_layer || !json_is_true(json_object_get(step, "empty_layer"));
	}
	return has_layer || json_array_append_new(history, json_pack("{s:s}", "created_by",
								     "mote image build")) == 0
		       ? 0
		       : -ENOMEM;
}

static int write_config(const char *from, const char *digest, const char *to, struct err *err)
{
	CLEANUP_FD int out = open_new(to, err);
	json_error_t error;
	json_t *config;
	char *text;
	int rc;

	if (out < 0)
		return out;
	config = json_load_file(from, JSON_REJECT_DUPLICATES, &error);
	if (!config)
		return err_set(err, EINVAL, "its configuration: %s", error.text);
	rc = settle_history(config);
	if (json_object_set_new(config, "rootfs",
				json_pack("{s:s, s:[o]}", "type", "layers", "diff_ids",
					  json_sprintf("sha256:%s", digest))) < 0)
		rc = -ENOMEM;
	text = json_dumps(config, JSON_COMPACT | JSON_SORT_KEYS);
	if (rc == 0)
		rc = text ? fd_write_all(out, text, strlen(text)) : -ENOMEM;
	free(text);
	json_decref(config);
	return rc < 0 ? err_sys(err, -rc, "%s", to) : 0;
}

int main(int argc, char **argv)
{
	struct err err = { "" };
	int rc;

	setlocale(LC_CTYPE, "C.UTF-8");
	if (argc != 5)
		rc = err_set(&err, EINVAL, "pack-image: four arguments are expected");
	else if (strcmp(argv[1], "--config") == 0)
		rc = write_config(argv[2], argv[3], argv[4], &err);
	else
		rc = pack(argv[1], argv[2], argv[3], strtoull(argv[4], NULL, 10), &err);
	if (rc < 0)
		fprintf(stderr, "%s\n", err.text);
	return rc < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

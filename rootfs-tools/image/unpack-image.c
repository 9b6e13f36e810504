/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unpacks what an image is made of, for build-image.sh, which has confined it:
 *	unpack-image < TARBALL          into the working directory
 *	unpack-image DIRECTORY CONFIG   an OCI image, whose manifest and blobs skopeo has left in
 *the directory, into the working directory; writes CONFIG unpack-image --kind < FILE      which
 *kind of image a tarball is, in words: docker-archive and oci-archive, or tar; and compressed
 *	unpack-image --plain TO < FILE  writes what it is without its compression
 *	unpack-image --names TO < FILE  writes the names of an archive's images: a line for each
 *
 * Says what it does on descriptor 3, and there in lines that begin with "warning: " what people
 * should know. Exits with 0, or with 1 and one sentence.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "base/fd.h"
#include "rootfs-tools/image/inside.h"
#include "rootfs-tools/image/layer.h"
#include "rootfs-tools/image/manifest.h"

#define BLOCK (64 << 10)
#define PROGRESS_FD 3
#define ENTRIES_MAX 100000 /* of an archive of layers */

static int open_reader(struct archive **in, int fd, bool raw, struct err *err)
{
	*in = layer_reader(raw);
	if (!*in)
		return err_sys(err, ENOMEM, "libarchive");
	if (archive_read_open_fd(*in, fd, BLOCK) != ARCHIVE_OK)
		return layer_error(*in, "", err);
	return 0;
}

static int unpack(int fd, struct layer_target *target, struct err *err)
{
	struct archive *in;
	int rc = open_reader(&in, fd, false, err);

	if (rc == 0)
		rc = layer_unpack(in, target, err);
	archive_read_free(in);
	return rc;
}

static int start_root(struct layer_target *target, struct err *err)
{
	static const struct timespec zero[2];

	target->root = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (target->root < 0 || futimens(target->root, zero) < 0)
		return err_sys(err, errno, "the root directory");
	return 0;
}

static void warn_left_out(const struct layer_target *target)
{
	if (target->left_out > 0)
		dprintf(PROGRESS_FD,
			"warning: device nodes are left out, which root alone can make: %u\n",
			target->left_out);
}

/* The text of a blob; the caller's. */
static int read_text(int dir, const char *name, char **text, size_t *length, struct err *err)
{
	CLEANUP_FD int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	int rc;

	*text = NULL;
	*length = 0;
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(err, errno, "%s", name);
	if (st.st_size > MANIFEST_BYTES_MAX)
		return err_sys(err, EFBIG, "%s", name);
	*length = (size_t)st.st_size;
	*text = malloc(*length + 1);
	rc = *text ? fd_pread_exact(fd, *text, *length, 0) : -ENOMEM;
	return rc < 0 ? err_sys(err, -rc, "%s", name) : 0;
}

static int take_config(int dir, const struct manifest *manifest, const char *to, struct err *err)
{
	CLEANUP_FD int fd = open(to, O_WRONLY | O_TRUNC | O_CLOEXEC);
	char other[64];
	size_t length;
	char *text;
	int rc = read_text(dir, manifest->config, &text, &length, err);

	if (rc == 0)
		rc = manifest_check_config(text, length, other, err);
	if (rc == 0 && (fd < 0 || fd_write_all(fd, text, length) < 0))
		rc = err_sys(err, errno, "%s", to);
	free(text);
	if (rc == 0 && other[0])
		dprintf(PROGRESS_FD,
			"warning: its programs are for %s, and a microVM here runs those for "
			"amd64\n",
			other);
	return rc;
}

static int unpack_layers(int dir, const struct manifest *manifest, struct layer_target *target,
			 struct err *err)
{
	for (size_t i = 0; i < manifest->count; i++) {
		CLEANUP_FD int fd =
			openat(dir, manifest->layers[i], O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		struct err cause = { "" };

		dprintf(PROGRESS_FD, "unpacking layer %zu of %zu\n", i + 1, manifest->count);
		if (fd < 0)
			return err_sys(err, errno, "layer %zu", i + 1);
		target->has_lower = i > 0;
		if (unpack(fd, target, &cause) < 0)
			return err_set(err, EINVAL, "layer %zu: %s", i + 1, cause.text);
	}
	return 0;
}

static int unpack_oci(const char *layout, const char *config, struct err *err)
{
	CLEANUP_FD int dir = open(layout, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	static struct manifest manifest;
	struct layer_target target = { .is_layer = true };
	size_t length;
	char *text;
	int rc;

	if (dir < 0)
		return err_sys(err, errno, "%s", layout);
	rc = read_text(dir, "manifest.json", &text, &length, err);
	if (rc == 0)
		rc = manifest_read(&manifest, text, length, err);
	free(text);
	if (rc == 0)
		rc = take_config(dir, &manifest, config, err);
	if (rc == 0)
		rc = start_root(&target, err);
	if (rc == 0)
		rc = unpack_layers(dir, &manifest, &target, err);
	if (rc == 0)
		warn_left_out(&target);
	return rc;
}

static int unpack_tarball(struct err *err)
{
	struct layer_target target = { 0 };
	int rc = start_root(&target, err);

	if (rc == 0)
		rc = unpack(STDIN_FILENO, &target, err);
	if (rc == 0)
		warn_left_out(&target);
	return rc;
}

/* Whether an archive of layers may have such a file at its top; a root file system has others. */
static bool is_of_archive(const char *name)
{
	static const char *const files[] = { "manifest.json", "repositories", "index.json",
					     "oci-layout", "blobs" };
	size_t length = strcspn(name, "/");

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (strlen(files[i]) == length && memcmp(name, files[i], length) == 0)
			return true;
	}
	/* DIGEST, DIGEST.json or DIGEST.tar. */
	return strspn(name, "0123456789abcdef") == MANIFEST_NAME_LENGTH;
}

static int print_kind(struct err *err)
{
	bool docker = false, oci = false, other = false;
	struct archive_entry *entry;
	struct archive *in;
	int rc = open_reader(&in, STDIN_FILENO, false, err);

	for (int i = 0; rc == 0 && !other && i < ENTRIES_MAX; i++) {
		char name[PATH_MAX];

		if (archive_read_next_header(in, &entry) != ARCHIVE_OK)
			break;
		if (!archive_entry_pathname(entry) ||
		    inside_clean(archive_entry_pathname(entry), name) < 0)
			break;
		docker = docker || strcmp(name, "manifest.json") == 0;
		oci = oci || strcmp(name, "oci-layout") == 0;
		other = *name && !is_of_archive(name);
	}
	if (rc == 0 && !other && docker)
		printf("docker-archive ");
	if (rc == 0 && !other && oci)
		printf("oci-archive ");
	if (rc == 0 && (other || (!docker && !oci)))
		printf("tar ");
	if (rc == 0)
		printf("%s\n",
		       archive_filter_code(in, 0) == ARCHIVE_FILTER_NONE ? "" : "compressed");
	archive_read_free(in);
	return rc;
}

static int write_plain(const char *to, struct err *err)
{
	CLEANUP_FD int fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct archive_entry *entry;
	struct archive *in;
	int rc = open_reader(&in, STDIN_FILENO, true, err);

	if (rc == 0 && fd < 0)
		rc = err_sys(err, errno, "%s", to);
	if (rc == 0 && (archive_read_next_header(in, &entry) != ARCHIVE_OK ||
			archive_read_data_into_fd(in, fd) != ARCHIVE_OK))
		rc = layer_error(in, "", err);
	archive_read_free(in);
	return rc;
}

/* From its manifest.json, whose bytes come next. */
static int write_names_of(struct archive *in, int fd, struct err *err)
{
	char *text = malloc(MANIFEST_BYTES_MAX + 1), *names = NULL;
	la_ssize_t length = 0, n = 1;
	int rc = text ? 0 : err_sys(err, ENOMEM, "manifest.json");

	while (rc == 0 && n > 0 && length <= MANIFEST_BYTES_MAX) {
		n = archive_read_data(in, text + length, (size_t)(MANIFEST_BYTES_MAX + 1 - length));
		if (n < 0)
			rc = layer_error(in, "manifest.json", err);
		else
			length += n;
	}
	if (rc == 0 && length > MANIFEST_BYTES_MAX)
		rc = err_sys(err, EFBIG, "manifest.json");
	if (rc == 0)
		rc = manifest_read_names(text, (size_t)length, &names, err);
	if (rc == 0 && fd_write_all(fd, names, strlen(names)) < 0)
		rc = err_sys(err, errno, "the names");
	free(names);
	free(text);
	return rc;
}

/* Of an archive as `docker save` writes it. */
static int write_names(const char *to, struct err *err)
{
	CLEANUP_FD int fd = open(to, O_WRONLY | O_TRUNC | O_CLOEXEC);
	bool found = false, is_oci = false;
	struct archive_entry *entry;
	struct archive *in;
	int rc = open_reader(&in, STDIN_FILENO, false, err);

	if (rc == 0 && fd < 0)
		rc = err_sys(err, errno, "%s", to);
	for (int i = 0; rc == 0 && !found && i < ENTRIES_MAX; i++) {
		char name[PATH_MAX];
		int got = archive_read_next_header(in, &entry);

		if (got == ARCHIVE_EOF)
			break;
		if (got != ARCHIVE_OK && got != ARCHIVE_WARN)
			rc = layer_error(in, "", err);
		else if (archive_entry_pathname(entry) &&
			 inside_clean(archive_entry_pathname(entry), name) == 0) {
			found = strcmp(name, "manifest.json") == 0;
			is_oci = is_oci || strcmp(name, "oci-layout") == 0;
		}
	}
	if (rc == 0 && !found)
		rc = err_set(err, EINVAL, "it is %s (`mote image build -t NAME` takes it)",
			     is_oci ? "an OCI archive, which has no names as docker's have"
				    : "no archive of images");
	if (rc == 0)
		rc = write_names_of(in, fd, err);
	archive_read_free(in);
	return rc;
}

int main(int argc, char **argv)
{
	const char *word = argc == 2 ? argv[1] : "";
	struct err err = { "" };
	int rc;

	/* Whoever builds, names of pax archives become the bytes that they stand for. */
	setlocale(LC_CTYPE, "C.UTF-8");
	if (argc == 3 && strcmp(argv[1], "--plain") == 0)
		rc = write_plain(argv[2], &err);
	else if (argc == 3 && strcmp(argv[1], "--names") == 0)
		rc = write_names(argv[2], &err);
	else if (argc == 3)
		rc = unpack_oci(argv[1], argv[2], &err);
	else if (strcmp(word, "--kind") == 0)
		rc = print_kind(&err);
	else
		rc = unpack_tarball(&err);
	if (rc < 0)
		fprintf(stderr, "%s\n", err.text);
	return rc < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

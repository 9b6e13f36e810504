/* SPDX-License-Identifier: Apache-2.0 */
#include "host/image_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/own_dir.h"
#include "host/paths.h"

#define BLOBS "blobs"
#define TAGS "tags"
#define SCRATCH "scratch"
#define LOCK "lock"

static bool is_own_name(const char *name)
{
	static const char first[] = "abcdefghijklmnopqrstuvwxyz0123456789";
	static const char all[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t len = strlen(name);

	return len >= 1 && len <= IMAGE_OWN_NAME_MAX && strchr(first, name[0]) &&
	       strspn(name, all) == len;
}

int image_name_check(const char *name, char whole[IMAGE_NAME_MAX + 1], struct err *err)
{
	if (is_own_name(name)) {
		snprintf(whole, IMAGE_NAME_MAX + 1, "%s", name);
		return 0;
	}
	if (strpbrk(name, "/:@"))
		return image_reference_parse(name, whole, err);
	return err_set(err, EINVAL,
		       "image name %s: 1 to %d lower-case letters, digits, '.', '_' and '-' are "
		       "expected, beginning with a letter or a digit",
		       name, IMAGE_OWN_NAME_MAX);
}

int image_store_open(struct image_store *store, struct err *err)
{
	static const char *const parts[] = { BLOBS, TAGS, SCRATCH };
	CLEANUP_FD int fd = -1;
	int rc;

	store->dir_fd = -1;
	rc = paths_images(store->dir, err);
	if (rc < 0)
		return rc;
	fd = own_dir_open(store->dir, 0700, err);
	if (fd < 0)
		return fd;
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		char path[PATH_MAX];
		CLEANUP_FD int part = -1;

		snprintf(path, sizeof(path), "%.*s/%s", PATH_MAX - 16, store->dir, parts[i]);
		part = own_dir_open_at(fd, parts[i], path, 0700, false, err);
		if (part < 0)
			return part;
	}
	store->dir_fd = fd_take(&fd);
	return 0;
}

void image_store_close(struct image_store *store)
{
	fd_close(&store->dir_fd);
}

/*
 * Until the descriptor is closed nobody else changes anything; or -errno. Not the directory itself,
 * which others could lock if they may read it.
 */
static int lock(const struct image_store *store, struct err *err)
{
	int fd = openat(store->dir_fd, LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0 || flock(fd, LOCK_EX) < 0) {
		int rc = err_sys(err, errno, "%s: lock", store->dir);

		fd_close(&fd);
		return rc;
	}
	return fd;
}

/* Adds the directories that nobody holds any more. */
static int find_stale(const struct image_store *store, int scratch_fd, json_t *stale)
{
	DIR *dir = fdopendir(scratch_fd);
	struct dirent *entry;

	if (!dir) {
		close(scratch_fd);
		return -ENOMEM;
	}
	while ((entry = readdir(dir)) != NULL) {
		CLEANUP_FD int fd = -1;

		if (entry->d_name[0] == '.')
			continue;
		fd = openat(dirfd(dir), entry->d_name,
			    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
			json_array_append_new(stale, json_sprintf("%s/" SCRATCH "/%s", store->dir,
								  entry->d_name));
	}
	closedir(dir);
	return 0;
}

/* A file that is there whole or not at all. */
static int write_config(int dir_fd, const char *path, const json_t *config)
{
	CLEANUP_FD int fd = -1;
	char *text = json_dumps(config, JSON_INDENT(2) | JSON_SORT_KEYS);
	char new_path[NAME_MAX + 1];
	int rc = text ? 0 : -ENOMEM;

	if (rc == 0) {
		snprintf(new_path, sizeof(new_path), "%.200s.new", path);
		fd = openat(dir_fd, new_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
		rc = fd < 0 ? -errno : fd_write_all(fd, text, strlen(text));
	}
	free(text);
	if (rc == 0 && (fsync(fd) < 0 || renameat(dir_fd, new_path, dir_fd, path) < 0))
		rc = -errno;
	return rc;
}

static int set_tag(int dir_fd, const struct image *image)
{
	char target[PATH_MAX], tag[NAME_MAX + 1], new_tag[NAME_MAX + 1];
	char file[IMAGE_NAME_MAX + 1];

	image_reference_file(image->name, file);
	snprintf(target, sizeof(target), "../%s", image->file);
	snprintf(tag, sizeof(tag), TAGS "/%s", file);
	snprintf(new_tag, sizeof(new_tag), TAGS "/.%s", file);
	if ((unlinkat(dir_fd, new_tag, 0) < 0 && errno != ENOENT) ||
	    symlinkat(target, dir_fd, new_tag) < 0 || renameat(dir_fd, new_tag, dir_fd, tag) < 0)
		return -errno;
	return 0;
}

static void config_path(const struct image *image, char path[NAME_MAX + 1])
{
	snprintf(path, NAME_MAX + 1, BLOBS "/%s.json", image->digest);
}

static int find_in(int dir_fd, const char *name, struct image *image)
{
	char tag[NAME_MAX + 1], target[PATH_MAX], own[IMAGE_NAME_MAX + 1];
	struct stat st;
	ssize_t n;

	memset(image, 0, sizeof(*image));
	image_reference_file(name, own);
	snprintf(tag, sizeof(tag), TAGS "/%s", own);
	n = readlinkat(dir_fd, tag, target, sizeof(target) - 1);
	if (n < 0)
		return -errno;
	target[n] = '\0';
	/* The lengths are image_store_add's. */
	if (sscanf(target, "../" BLOBS "/%64[0-9a-f].%7[a-z0-9]", image->digest, image->format) !=
	    2)
		return -EINVAL;
	snprintf(image->name, sizeof(image->name), "%s", name);
	snprintf(image->file, sizeof(image->file), BLOBS "/%s.%s", image->digest, image->format);
	if (fstatat(dir_fd, image->file, &st, 0) < 0)
		return -errno;
	image->size = (uint64_t)st.st_size;
	return 0;
}

static bool is_named(const char *file, const struct image *images, int count)
{
	for (int i = 0; images && i < count; i++) {
		if (strncmp(file, images[i].digest, IMAGE_DIGEST_LENGTH) == 0)
			return true;
	}
	return false;
}

/* Removes what has no name, or not any more; the caller has the lock. */
static int collect(struct image_store *store)
{
	struct image *images;
	int count = image_store_list(store, &images, NULL);
	struct dirent *entry;
	int fd, rc = 0;
	DIR *blobs;

	if (count < 0)
		return count;
	fd = openat(store->dir_fd, BLOBS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	blobs = fd < 0 ? NULL : fdopendir(fd);
	if (!blobs) {
		rc = -errno;
		fd_close(&fd);
	}
	while (blobs && (entry = readdir(blobs)) != NULL) {
		if (entry->d_name[0] != '.' && !is_named(entry->d_name, images, count) &&
		    unlinkat(dirfd(blobs), entry->d_name, 0) < 0)
			rc = -errno;
	}
	if (blobs)
		closedir(blobs);
	free(images);
	return rc;
}

int image_store_scratch(struct image_store *store, char path[PATH_MAX], int *lock_fd,
			json_t **stale, struct err *err)
{
	CLEANUP_FD int locked = lock(store, err);
	CLEANUP_FD int fd = -1;
	int rc;

	if (locked < 0)
		return locked;
	if (snprintf(path, PATH_MAX, "%s/" SCRATCH "/build.XXXXXX", store->dir) >= PATH_MAX)
		return err_set(err, ENAMETOOLONG, "%s: the path is too long", store->dir);
	*stale = json_array();
	fd = openat(store->dir_fd, SCRATCH, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rc = fd < 0 ? -errno : find_stale(store, fd_take(&fd), *stale);
	if (rc == 0)
		rc = collect(store);
	if (rc == 0 && !mkdtemp(path))
		rc = -errno;
	if (rc == 0) {
		fd = open(path, O_RDONLY | O_DIRECTORY);
		if (fd < 0 || flock(fd, LOCK_EX) < 0)
			rc = -errno;
	}
	if (rc < 0) {
		json_decref(*stale);
		return err_sys(err, -rc, "%s", path);
	}
	*lock_fd = fd_take(&fd);
	return 0;
}

int image_store_add(struct image_store *store, const char *file, const struct image *image,
		    const json_t *config, struct err *err)
{
	CLEANUP_FD int locked = lock(store, err);
	CLEANUP_FD int fd = -1;
	char path[NAME_MAX + 1];
	int rc = 0;

	if (locked < 0)
		return locked;
	config_path(image, path);
	if (faccessat(store->dir_fd, image->file, F_OK, 0) < 0) {
		fd = open(file, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || fchmod(fd, 0644) < 0 || fsync(fd) < 0)
			return err_sys(err, errno, "%s", file);
		rc = write_config(store->dir_fd, path, config);
		if (rc == 0 && renameat(AT_FDCWD, file, store->dir_fd, image->file) < 0)
			rc = -errno;
	}
	if (rc == 0)
		rc = set_tag(store->dir_fd, image);
	if (rc == 0)
		rc = collect(store);
	return rc < 0 ? err_sys(err, -rc, "image %s in %s", image->name, store->dir) : 0;
}

int image_store_find(struct image_store *store, const char *name, struct image *image,
		     struct err *err)
{
	char whole[IMAGE_NAME_MAX + 1];
	int rc = image_name_check(name, whole, err);

	if (rc < 0)
		return rc;
	rc = find_in(store->dir_fd, whole, image);
	/* "alpine" may be that of docker.io. */
	if (rc == -ENOENT && image_reference_parse(name, whole, NULL) == 0)
		rc = find_in(store->dir_fd, whole, image);
	if (rc == -ENOENT)
		return err_set(err, ENOENT,
			       "image %s: there is none of this name (`mote image ls` shows them)",
			       name);
	return rc < 0 ? err_sys(err, -rc, "image %s in %s", name, store->dir) : 0;
}

int image_store_tag(struct image_store *store, const struct image *image, const char *name,
		    struct err *err)
{
	CLEANUP_FD int locked = lock(store, err);
	struct image named = *image;
	int rc;

	if (locked < 0)
		return locked;
	rc = image_name_check(name, named.name, err);
	if (rc < 0)
		return rc;
	/* Nobody has removed it meanwhile. */
	rc = faccessat(store->dir_fd, named.file, F_OK, 0) < 0 ? -errno
							       : set_tag(store->dir_fd, &named);
	if (rc == 0)
		rc = collect(store);
	return rc < 0 ? err_sys(err, -rc, "image %s in %s", name, store->dir) : 0;
}

json_t *image_store_config(struct image_store *store, const struct image *image, struct err *err)
{
	char path[NAME_MAX + 1];
	json_error_t error;
	json_t *config;
	int fd;

	config_path(image, path);
	fd = openat(store->dir_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		err_sys(err, errno, "%s/%s", store->dir, path);
		return NULL;
	}
	config = json_loadfd(fd, JSON_REJECT_DUPLICATES, &error);
	close(fd);
	if (!config)
		err_set(err, EINVAL, "%s/%s: %s", store->dir, path, error.text);
	return config;
}

static int compare_images(const void *a, const void *b)
{
	return strcmp(((const struct image *)a)->name, ((const struct image *)b)->name);
}

static int list_in(int dir_fd, DIR *tags, struct image **images)
{
	struct dirent *entry;
	int count = 0;

	while ((entry = readdir(tags)) != NULL) {
		char name[NAME_MAX + 1];
		struct image *more;

		if (entry->d_name[0] == '.' || strlen(entry->d_name) > IMAGE_NAME_MAX)
			continue;
		snprintf(name, sizeof(name), "%s", entry->d_name);
		for (char *at = name; *at; at++)
			*at = *at == '%' ? '/' : *at;
		more = reallocarray(*images, (size_t)count + 1, sizeof(**images));
		if (!more)
			return -ENOMEM;
		*images = more;
		if (find_in(dir_fd, name, &more[count]) == 0)
			count++;
	}
	if (count > 0)
		qsort(*images, (size_t)count, sizeof(**images), compare_images);
	return count;
}

int image_store_list(struct image_store *store, struct image **images, struct err *err)
{
	int fd = openat(store->dir_fd, TAGS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *tags = fd < 0 ? NULL : fdopendir(fd);
	int rc;

	*images = NULL;
	if (!tags) {
		rc = err_sys(err, errno, "%s/" TAGS, store->dir);
		fd_close(&fd);
		return rc;
	}
	rc = list_in(store->dir_fd, tags, images);
	closedir(tags);
	if (rc < 0) {
		free(*images);
		*images = NULL;
		return err_sys(err, -rc, "%s/" TAGS, store->dir);
	}
	return rc;
}

int image_store_remove(struct image_store *store, const char *name, struct err *err)
{
	CLEANUP_FD int locked = lock(store, err);
	char tag[NAME_MAX + 1], file[IMAGE_NAME_MAX + 1];
	struct image image;
	int rc;

	if (locked < 0)
		return locked;
	rc = image_store_find(store, name, &image, err);
	if (rc < 0)
		return rc;
	image_reference_file(image.name, file);
	snprintf(tag, sizeof(tag), TAGS "/%s", file);
	rc = unlinkat(store->dir_fd, tag, 0) < 0 ? -errno : collect(store);
	return rc < 0 ? err_sys(err, -rc, "image %s in %s", name, store->dir) : 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The user's root images, under $XDG_DATA_HOME/mote/images or ~/.local/share/mote/images:
 *
 *	blobs/DIGEST.FORMAT   an image; the digest is SHA-256 of its configuration and its bytes
 *	blobs/DIGEST.json     how commands run in it, and where it is from
 *	tags/NAME             a symbolic link to ../blobs/DIGEST.FORMAT; '%' in NAME is a slash
 *	scratch/              of builds, each locked while its build runs
 *	lock                  held while anything is changed
 *
 * All of it appears by renaming what is whole, under a lock, so that several processes may use it
 * at once, and none sees half of a build that was killed.
 */
#ifndef MOTE_HOST_IMAGE_STORE_H
#define MOTE_HOST_IMAGE_STORE_H

#include <jansson.h>
#include <limits.h>
#include <stdint.h>

#include "host/image_reference.h"

struct err;

#define IMAGE_NAME_MAX IMAGE_REFERENCE_MAX
#define IMAGE_OWN_NAME_MAX 128
#define IMAGE_DIGEST_LENGTH 64

struct image_store {
	char dir[PATH_MAX];
	int dir_fd; /* owned */
};

struct image {
	char name[IMAGE_NAME_MAX + 1];
	char digest[IMAGE_DIGEST_LENGTH + 1];
	char format[8];		 /* "erofs" or "ext4" */
	char file[NAME_MAX + 1]; /* below the store's directory */
	uint64_t size;		 /* bytes */
};

/* Makes the directories that are missing. 0 or -errno with err set; then nothing is open. */
int image_store_open(struct image_store *store, struct err *err);
void image_store_close(struct image_store *store);

/*
 * The name that an image is given: 1 to IMAGE_OWN_NAME_MAX of a-z, 0-9, '.', '_' and '-', the first
 * a letter or a digit; or, made whole, a reference with a slash or a tag. 0 or -EINVAL.
 */
int image_name_check(const char *name, char whole[IMAGE_NAME_MAX + 1], struct err *err);

/*
 * A directory of this name under scratch/, locked by *lock_fd (owned by the caller), which is
 * inherited by whoever is started to work there. Those of builds that are no more are left in
 * `stale`, a list of paths (owned by the caller).
 */
int image_store_scratch(struct image_store *store, char path[PATH_MAX], int *lock_fd,
			json_t **stale, struct err *err);

/*
 * Takes a file on the store's file system as the image `name`, and its configuration, of which
 * nothing is freed. An image of the same digest stays as it is.
 */
int image_store_add(struct image_store *store, const char *file, const struct image *image,
		    const json_t *config, struct err *err);

/* The image of a name, as paths_image() has them, or -ENOENT with err set. */
int image_store_find(struct image_store *store, const char *name, struct image *image,
		     struct err *err);
/* Its configuration: a new reference, or NULL with err set. */
json_t *image_store_config(struct image_store *store, const struct image *image, struct err *err);

/* Another name for an image. 0 or -errno with err set. */
int image_store_tag(struct image_store *store, const struct image *image, const char *name,
		    struct err *err);

/* The number of images, sorted by name, in *images (owned by the caller: free); or -errno. */
int image_store_list(struct image_store *store, struct image **images, struct err *err);

/* The name, and the image if it has no other. VMs that run from it go on. */
int image_store_remove(struct image_store *store, const char *name, struct err *err);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images as docker and podman move them: archives and registries. An image is a file system here,
 * so it has one layer there. All print what they do and return the process's exit status.
 */
#ifndef MOTE_CLI_IMAGE_ARCHIVE_H
#define MOTE_CLI_IMAGE_ARCHIVE_H

#include "host/image_store.h"

/* To the file, or standard output if it is NULL. */
int image_save(struct image_store *store, const char *name, const char *path, int max_mib);

/* All images of an archive, named as it says; of standard input if `path` is NULL. */
int image_load(struct image_store *store, const char *path, int max_mib);

/* To where the reference tells (docker:// before it is allowed), or NULL: where its name does. */
int image_push(struct image_store *store, const char *name, const char *reference, int max_mib);

#endif

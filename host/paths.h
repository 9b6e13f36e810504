/* SPDX-License-Identifier: Apache-2.0 */
/* Where the files are that belong to mote and to its user. */
#ifndef MOTE_HOST_PATHS_H
#define MOTE_HOST_PATHS_H

#include <limits.h>
#include <stdbool.h>

struct err;

/*
 * Files that belong to mote lie beside its executable (a build tree) or in ../lib/mote of it (an
 * installation). 0 or -ENOENT with err naming the file.
 */
int paths_own(const char *name, char path[PATH_MAX], struct err *err);

/* The user's root images (image_store.h), under the user's data directory. */
int paths_images(char path[PATH_MAX], struct err *err);

/* The directory with one folder a kernel, under the user's cache directory. */
int paths_kernels(char path[PATH_MAX], struct err *err);
/* The directory with one folder a running VM; made if need be, and safe from other users. */
int paths_vms(char path[PATH_MAX], struct err *err);
/* Likewise the one with the jails. */
int paths_jails(char path[PATH_MAX], struct err *err);
/*
 * A root image: the one of this name that `mote image ls` shows, "alpine" for
 * "docker.io/library/alpine:latest", too; or a file (*is_file), if the name begins with '/' or '.'
 * or contains a slash and there is one. 0; -ENOENT or -errno with err set.
 */
int paths_image(const char *name, char path[PATH_MAX], bool *is_file, struct err *err);
/* A kernel by its name, or by its path if that contains a slash. */
int paths_kernel(const char *name, char path[PATH_MAX], struct err *err);

#endif

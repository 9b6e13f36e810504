/* SPDX-License-Identifier: Apache-2.0 */
/* mote image build: what rootfs-tools/image/build-image.sh makes, taken into the store. */
#ifndef MOTE_CLI_IMAGE_BUILD_H
#define MOTE_CLI_IMAGE_BUILD_H

#include <stdbool.h>

#include "host/image_store.h"

struct image_build {
	const char *kind;   /* "dir", "tar", "debian", "pull", "dockerfile" or an OCI transport */
	const char *source; /* as it was named */
	const char *detail; /* packages, a reference, a Dockerfile, or of an OCI image what follows
			       its path */
	int source_fd;	    /* what is at the path, opened once (the caller's), or -1 */
	const char *name;
	const char *format; /* "erofs" or "ext4" */
	int max_mib;	    /* of files */
	bool is_quiet;	    /* about the digest */
};

#define IMAGE_MAX_MIB (16 << 10) /* usually */

/* The process's exit status; progress and errors are printed. */
int image_build(struct image_store *store, const struct image_build *build);

/* From the registry that the reference names, for `mote run`; 0, or -EIO, of which all is said. */
int image_pull(const char *reference, struct err *err);

/*
 * What an image's configuration (OCI image specification, "Image Configuration") says about running
 * commands, as the store keeps it: a new reference to {"entrypoint", "cmd", "env", "workdir",
 * "user", "stop_signal", "history", "oci"}, each only if it is there; or NULL with err set. Empty
 * text stands for none. "oci" is the configuration itself but for its layers and history.
 */
json_t *image_build_config(const char *text, size_t length, struct err *err);

#endif

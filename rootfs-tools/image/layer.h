/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tarball, or a layer of an OCI image (image specification, "Image Layer Filesystem Changeset"),
 * unpacked into a root directory. Changes the working directory.
 */
#ifndef MOTE_IMAGE_LAYER_H
#define MOTE_IMAGE_LAYER_H

#include <archive.h>
#include <stdbool.h>

#include "base/err.h"

struct layer_target {
	int root;	   /* the directory, the caller's */
	bool is_layer;	   /* whiteouts are such */
	bool has_lower;	   /* and may be of what layers before it have put there */
	unsigned left_out; /* devices that the kernel did not let us make: counted up */
};

/*
 * ustar, pax, GNU and old tarballs, plain or compressed with gzip, bzip2, xz or zstd, and nothing
 * else that libarchive knows; or with `raw` any bytes, compressed so. NULL for want of memory.
 */
struct archive *layer_reader(bool raw);

/* err_set() with the reader's or writer's cause, of `object` if that is not "". */
int layer_error(struct archive *archive, const char *object, struct err *err);

/* Other extended attributes are only of the machine that made them. */
bool layer_keeps_attribute(const char *name);

/* Of an archive that was opened with layer_reader(). 0 or -errno with err set. */
int layer_unpack(struct archive *in, struct layer_target *target, struct err *err);

#endif

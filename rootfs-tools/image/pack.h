/* SPDX-License-Identifier: Apache-2.0 */
/* An image's file system as a tarball, which is its one layer in an archive or a registry. */
#ifndef MOTE_IMAGE_PACK_H
#define MOTE_IMAGE_PACK_H

#include <archive.h>
#include <stdint.h>

#include "base/err.h"
#include "rootfs-tools/image/image_fs.h"

/* The same files give the same bytes, whoever writes them. The caller's; NULL for want of memory.
 */
struct archive *pack_writer(void);

/*
 * All files, of at most `max` bytes together with what is said of them. Counts the sockets, which a
 * tarball cannot hold. 0 or -errno with err set; -EFBIG if they are more.
 */
int pack_files(const struct image_fs *fs, struct archive *out, uint64_t max, unsigned *sockets,
	       struct err *err);

#endif

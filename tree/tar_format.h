/* SPDX-License-Identifier: Apache-2.0 */
/* The format of tar streams, for those who read them and those who write them. */
#ifndef MOTE_TREE_TAR_FORMAT_H
#define MOTE_TREE_TAR_FORMAT_H

#include <stdint.h>

#include "tree/tar.h"

/* A header's fields, at their places (POSIX, "ustar Interchange Format"). */
struct tar_header {
	char name[100];
	char mode[8];
	char uid[8];
	char gid[8];
	char size[12];
	char mtime[12];
	char checksum[8];
	char type;
	char link[100];
	char magic[8]; /* with the version */
	char user[32];
	char group[32];
	char major[8];
	char minor[8];
	char prefix[155];
	char padding[12];
};

_Static_assert(sizeof(struct tar_header) == TAR_BLOCK, "a header is a block");

#define GNU_LONG_NAME 'L'
#define GNU_LONG_LINK 'K'
#define PAX_NEXT 'x'
#define PAX_GLOBAL 'g'
/* Before the name of an extended attribute, in a pax header. */
#define ATTRIBUTE_PREFIX "SCHILY.xattr."
#define BASE_256 0x80
#define OCTAL_SIZE_MAX UINT64_C(077777777777)
#define OCTAL_ID_MAX 07777777

/* With blanks in its own place. */
uint64_t tar_checksum(const struct tar_header *header);
/* From the end of what has that size to the end of its block. */
uint64_t tar_padding(uint64_t size);

#endif

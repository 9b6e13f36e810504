/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel images: an uncompressed ELF vmlinux, entered by PVH when it carries the note and by the
 * 64-bit boot protocol otherwise, or a bzImage of protocol 2.12 or later with a 64-bit entry
 * (Documentation/arch/x86/boot.rst; the PVH ABI: Xen's docs/misc/pvh.pandoc).
 */
#ifndef MOTE_VMM_BOOT_KERNEL_IMAGE_H
#define MOTE_VMM_BOOT_KERNEL_IMAGE_H

#include <asm/bootparam.h>
#include <stdint.h>

struct err;
struct guest_memory;

#define KERNEL_IMAGE_SEGMENTS 16

enum kernel_entry {
	KERNEL_ENTRY_PVH, /* 32-bit protected mode, rbx = start info */
	KERNEL_ENTRY_64,  /* long mode, rsi = zero page */
};

struct kernel_segment {
	uint64_t addr;	      /* guest physical */
	uint64_t offset;      /* in the file */
	uint64_t file_size;   /* bytes to load */
	uint64_t memory_size; /* >= file_size; the rest is zero */
};

struct kernel_image {
	int fd;	    /* owned */
	char *path; /* owned */
	enum kernel_entry entry_kind;
	uint64_t entry; /* guest physical */
	struct kernel_segment segments[KERNEL_IMAGE_SEGMENTS];
	unsigned int segment_count;
	uint64_t end;		    /* first guest address behind all segments */
	struct setup_header header; /* of a bzImage, else zero */
};

/*
 * Opens the image and checks everything that can be checked without guest memory. 0 or -errno with
 * err naming the file and the field; on failure there is nothing to close.
 */
int kernel_image_open(struct kernel_image *image, const char *path, struct err *err);
void kernel_image_close(struct kernel_image *image);

/* Loads the segments. -EFBIG with err set if guest memory is too small. */
int kernel_image_load(const struct kernel_image *image, struct guest_memory *memory,
		      struct err *err);

#endif

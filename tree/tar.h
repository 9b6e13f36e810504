/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams of tar (POSIX ustar and pax, what GNU tar adds for long names and large numbers, and
 * extended attributes as star has them), read and written piece by piece. Also the host's side
 * uses this.
 */
#ifndef MOTE_TREE_TAR_H
#define MOTE_TREE_TAR_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tree/attributes.h"

struct err;

#define TAR_BLOCK 512

enum tar_type {
	TAR_FILE = '0',
	TAR_HARD_LINK = '1',
	TAR_SYMLINK = '2',
	TAR_CHARACTER_DEVICE = '3',
	TAR_BLOCK_DEVICE = '4',
	TAR_DIRECTORY = '5',
	TAR_FIFO = '6',
};

struct tar_entry {
	enum tar_type type;
	char path[PATH_MAX];
	char link[PATH_MAX]; /* of links: where to */
	mode_t mode;	     /* permissions alone */
	uid_t uid;
	gid_t gid;
	uint64_t size; /* of what follows */
	int64_t mtime; /* seconds */
	uint32_t mtime_ns;
	unsigned int major;
	unsigned int minor;
	const struct attributes *attributes; /* NULL: none; of the reader until the next entry */
};

/* Gives up to `size` bytes: how many, 0 at the end, -1 if it has failed. */
typedef ssize_t tar_read_function(void *opaque, void *data, size_t size);

struct tar_reader {
	tar_read_function *read;
	void *opaque;
	uint64_t left;	  /* of the entry's data */
	uint64_t padding; /* behind them */
	struct attributes attributes;
};

/* 1 with *entry filled, 0 at the end, negative with err set. What was left of the last is skipped.
 */
int tar_next(struct tar_reader *reader, struct tar_entry *entry, struct err *err);
/* Data of the entry: how much, 0 at their end, negative with err set. */
ssize_t tar_data(struct tar_reader *reader, void *data, size_t size, struct err *err);

/* What the reader has kept for an entry. */
void tar_reader_free(struct tar_reader *reader);

/* Takes all of the bytes; -1 if nobody wants them any more. */
typedef int tar_write_function(void *opaque, const void *data, size_t size);

struct tar_writer {
	tar_write_function *write;
	void *opaque;
};

/* 0 or -1: the write function's. An entry is followed by `size` bytes, then tar_pad. */
int tar_put(struct tar_writer *writer, const struct tar_entry *entry);
int tar_pad(struct tar_writer *writer, uint64_t size);
int tar_finish(struct tar_writer *writer);

#endif

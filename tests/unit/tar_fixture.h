/* SPDX-License-Identifier: Apache-2.0 */
/* A stream of tar in memory, and the directory "in" that it is unpacked into. */
#ifndef MOTE_TESTS_UNIT_TAR_FIXTURE_H
#define MOTE_TESTS_UNIT_TAR_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "tree/tar.h"
#include "tree/tree.h"

#define TAR_ARCHIVE_MAX (16 << 20)

extern uint8_t tar_archive[TAR_ARCHIVE_MAX];
extern size_t tar_archive_size; /* what was written */
extern size_t tar_archive_at;	/* what was read of it */
extern size_t tar_chunk;	/* the most that is read at once */
extern struct tar_writer tar_fixture_writer;
extern struct tar_reader tar_fixture_reader;
extern struct err tar_err;
extern struct tree_counts tar_counts;

/* Nothing in the stream, and empty directories "tree", "in" and "outside". */
void tar_fixture_set_up(void);

/* The stream's ends. */
int tar_fixture_put(void *opaque, const void *data, size_t size);
ssize_t tar_fixture_get(void *opaque, void *data, size_t size);

void tar_fixture_add(enum tar_type type, const char *path, const char *link, const char *data);
/* What is at the path, as tree_open() has it: 0 or -1. */
int tar_fixture_pack(const char *path, bool follow);
/* Into the directory "in"; by another name, unless it is NULL. */
int tar_fixture_unpack(const char *name, bool plain);

void assert_file(const char *path, const char *text);

#endif

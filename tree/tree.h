/* SPDX-License-Identifier: Apache-2.0 */
/* File trees to and from streams of tar. Also the host's side uses this. */
#ifndef MOTE_TREE_TREE_H
#define MOTE_TREE_TREE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct err;
struct tar_reader;
struct tar_writer;

struct tree_counts {
	uint64_t files; /* of all kinds */
	uint64_t bytes;
	uint64_t left_out; /* devices and fifos that `plain` does not take */
};

struct tree_options {
	bool own; /* everything belongs to uid and gid, whatever the stream says */
	/*
	 * No devices, no setuid and setgid bits; with the umask. What root unpacks belongs to the
	 * owner of the file that it replaces, or of the directory.
	 */
	bool plain;
	uid_t uid;
	gid_t gid;
	uint64_t files_max; /* 0: any number */
	/*
	 * What is there is an older state of the same: a file that has the same size, time and mode
	 * already is left alone, and a directory gives way to a file, as a file does to a
	 * directory. Otherwise neither of the two takes the other's place.
	 */
	bool update;
};

/*
 * Unpacks the stream below the directory. No path, link or symbolic link in it leads to a place
 * outside. A file appears, or replaces another, when all of it is there. Directories get their
 * times behind what comes into them, if the stream is in the order of a walk. 0 or -1 with failure
 * set.
 */
int tree_unpack(int dir, struct tar_reader *reader, const struct tree_options *options,
		struct tree_counts *counts, struct err *err);

/*
 * The same for a stream of one file or tree, as tree_pack makes it, which becomes `name` in the
 * directory, whatever the stream calls it.
 */
int tree_unpack_as(int dir, const char *name, struct tar_reader *reader,
		   const struct tree_options *options, struct tree_counts *counts, struct err *err);

/*
 * Removes `name` in the directory, if it is there, with all that is below it. No symbolic link is
 * followed. 0, or -1 with errno set and perhaps a part of it gone.
 */
int tree_remove(int dir, const char *name);

/*
 * Opens what tree_pack is to pack, the only time that its path is looked up; a symbolic link is
 * one unless `follow`. *name is the path's last part. A descriptor, or negative with err set.
 */
int tree_open(const char *path, bool follow, char name[NAME_MAX + 1], struct err *err);

/*
 * Packs a file or tree that is open, `name` being the first part of every path in the stream.
 * Sockets are left out, hard links become files of their own. A file that does not know its size,
 * as those of procfs, is as long as what can be read of it; one that becomes shorter on the way is
 * an error, one that grows is what it was at its beginning. 0, or negative with err set.
 */
int tree_pack(int fd, const char *name, struct tar_writer *writer, struct tree_counts *counts,
	      struct err *err);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extended attributes of one file, as a tar stream brings them or takes them along. Their values
 * are any bytes. Also the host's side uses this.
 */
#ifndef MOTE_TREE_ATTRIBUTES_H
#define MOTE_TREE_ATTRIBUTES_H

#include <stdbool.h>
#include <stddef.h>

/* Of one file: its names, each with a zero (that is Linux's bound, too), and all together. */
#define ATTRIBUTES_NAMES_MAX 65536
#define ATTRIBUTES_MAX (1 << 20)

/* Zeroes: none. */
struct attributes {
	char *data; /* owned */
	size_t size;
	size_t room;
	size_t names; /* bytes of names, with their zeroes */
};

struct attribute {
	const char *name;
	const void *value;
	size_t size;
};

/* A copy of it. 0; -E2BIG past a bound, of that of Linux for a name or value, too; -ENOMEM. */
int attributes_add(struct attributes *attributes, const char *name, const void *value, size_t size);

/* The one at *at, which begins with 0; false at the end. It is valid until one is added. */
bool attributes_next(const struct attributes *attributes, size_t *at, struct attribute *attribute);

/* None again; the memory is kept for those of the next file. */
void attributes_clear(struct attributes *attributes);
void attributes_free(struct attributes *attributes);

/*
 * What goes from one machine to another: users' own, and file capabilities unless `plain`, as they
 * are power that only the owner of the receiving machine gives. ACLs name users of the machine
 * that they were made on, and all others are its kernel's.
 */
bool attributes_keep(const char *name, bool plain);

/* Adds those of an open file or directory that go elsewhere. 0 or -errno. */
int attributes_read(int fd, bool plain, struct attributes *attributes);

/*
 * Sets those that are kept on an open file or directory. A file system that knows none of their
 * kind goes without. 0, or -errno with *failed being the one.
 */
int attributes_write(int fd, bool plain, const struct attributes *attributes,
		     struct attribute *failed);

/* Whether an open file has all that are kept, with these values; it may have others. */
bool attributes_are_there(int fd, bool plain, const struct attributes *attributes);

#endif

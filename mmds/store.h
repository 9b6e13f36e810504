/* SPDX-License-Identifier: Apache-2.0 */
/* The document: as its owner gives it, and as the guest reads it. */
#ifndef MOTE_MMDS_STORE_H
#define MOTE_MMDS_STORE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct err;
struct mmds;

struct store {
	json_t *data; /* owned; NULL: there has been none yet. Keys are in order. */
	size_t limit; /* of its text */
	size_t flags; /* that jansson prints it with */
};

enum store_format {
	STORE_JSON,
	STORE_IMDS, /* EC2's: a string as it is, of an object its keys */
};

enum store_result {
	STORE_FOUND,
	STORE_ABSENT,
	STORE_NOT_SHOWN, /* what is neither string nor object has no IMDS format */
	STORE_NO_MEMORY,
};

/*
 * Replaces the document, or changes it as RFC 7396 says. 0; -EMSGSIZE if it would be larger than
 * the limit, -ENODATA if there is none to be changed, -ENOMEM: with err set, and nothing changed.
 */
int mmds_put(struct mmds *mmds, const json_t *data, struct err *err);
int mmds_patch(struct mmds *mmds, const json_t *patch, struct err *err);
/* The whole as JSON, to be freed; NULL without memory. */
char *mmds_text(const struct mmds *mmds);

void store_init(struct store *store, size_t limit);
void store_close(struct store *store);
int store_put(struct store *store, const json_t *data, struct err *err);
int store_patch(struct store *store, const json_t *patch, struct err *err);

/*
 * What is at a path, such as /latest/meta-data: a JSON pointer (RFC 6901) in which slashes may be
 * repeated and stand at the end. With STORE_FOUND *text is to be freed.
 */
enum store_result store_read(const struct store *store, const char *path, enum store_format format,
			     char **text, size_t *size);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* A kind of JSON body, of the API's requests and in the configuration file: how it is read, and
 * what is done with it. */
#ifndef MOTE_API_SOCKET_BODY_H
#define MOTE_API_SOCKET_BODY_H

#include <jansson.h>
#include <stddef.h>

struct control;
struct err;
struct field;

struct body {
	const struct field *fields;
	size_t size; /* of their struct, which begins as zeroes */
	/* May take what the struct owns; what its fields own is freed otherwise. */
	int (*set)(struct control *control, void *config, struct err *err);
	/* A change of this struct, which owns nothing; no field is required. NULL: it is none. */
	const void *(*before)(const struct control *control);
	/* The sentence if no field is given but those that are required; NULL: that is fine. */
	const char *nothing;
	/* Takes the object as it is, in place of all others. */
	int (*take)(struct control *control, const json_t *object, struct err *err);
};

/* Its setter takes a `struct type`. What else it has follows. */
#define BODY(name, table, type, setter, ...)                                                       \
	static int set_##name(struct control *control, void *config, struct err *err)              \
	{                                                                                          \
		return setter(control, (struct type *)config, err);                                \
	}                                                                                          \
	const struct body body_##name = { table, sizeof(struct type), set_##name, ##__VA_ARGS__ }

/* 0 or -errno with err naming the field; a call that fails changes nothing. */
int body_apply(const struct body *body, struct control *control, const json_t *object,
	       struct err *err);

#endif

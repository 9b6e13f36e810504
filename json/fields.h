/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON objects to structs, strictly, by a table of their fields: unknown fields, wrong types,
 * values out of range and missing fields are errors that name the field.
 */
#ifndef MOTE_JSON_FIELDS_H
#define MOTE_JSON_FIELDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

enum field_type {
	FIELD_STRING,  /* char *, owned by the struct; of at least min bytes */
	FIELD_STRINGS, /* char **: a list of such, ended by NULL */
	FIELD_BOOL,    /* bool */
	FIELD_INTEGER, /* int64_t, between min and max */
	FIELD_CHOICE,  /* int: the index into choices */
	FIELD_OBJECT,  /* a struct, by `fields` */
	FIELD_TEXTS,   /* char *: an object of strings, as JSON; owned by the struct */
	FIELD_ABSENT,  /* known to Firecracker; mote takes only null or the first of choices */
};

/* A table ends with a NULL name. */
struct field {
	const char *name;
	enum field_type type;
	bool required;
	size_t offset; /* in the struct */
	int64_t min;
	int64_t max;
	const char *const *choices; /* NULL-terminated */
	const struct field *fields;
	size_t given;	     /* the offset of a bool that tells that it was there; 0 none */
	bool first_left_out; /* of choices, when written */
	bool null_if_absent; /* written as null where it is as good as not given, be it 0 */
	/* Of the last entry: what no other is for is no error, but a line in the log. */
	bool others_ignored;
};

#define FIELD_AT(type, member) .offset = offsetof(struct type, member)

/* Null stands for a field that is not given. 0 or -EINVAL with err set. */
int fields_read(const json_t *object, const struct field *fields, void *to, struct err *err);
/* The same, but no field is required. */
int fields_read_some(const json_t *object, const struct field *fields, void *to, struct err *err);

/*
 * The other way: an object that fields_read takes, owned by the caller; NULL without memory. What
 * is not required and as good as not given is null or left out: no string, an object of such or one
 * whose required integer is 0, an integer out of its range.
 */
json_t *fields_write(const struct field *fields, const void *from);

#endif

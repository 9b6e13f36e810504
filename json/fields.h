/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON objects to structs, strictly, by a table of their fields: unknown fields, wrong types,
 * values out of range and missing fields are errors that name the field by its path
 * ("drives[1].rate_limiter.ops.size").
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
	FIELD_BOOL,    /* bool */
	FIELD_INTEGER, /* int64_t or uint32_t, between min and max */
	FIELD_CHOICE,  /* int: the index into choices */
	FIELD_WORD,    /* anything that `parse` and `print` make of a string */
	FIELD_OBJECT,  /* a struct, by `fields` */
	/*
	 * A pointer to entries, each by `each`; owned by the struct. There is one of zeroes after
	 * the last, which ends a list that has no count. At most max entries; 0: any number.
	 */
	FIELD_LIST,
	/*
	 * An array of structs in the struct. In JSON it is a list of objects, each by `each`, whose
	 * first field is a FIELD_KEY. Those of zeroes are not written.
	 */
	FIELD_SLOTS,
	FIELD_KEY,    /* not in the struct: choices has the name of each entry of the array */
	FIELD_TEXTS,  /* char *: an object of strings, as JSON; owned by the struct */
	FIELD_EMPTY,  /* not in the struct: null or an empty list, or the sentence `why` */
	FIELD_ABSENT, /* known to Firecracker; mote takes only null or the first of choices */
};

#define FIELD_WORD_SIZE 80

/* A table ends with a NULL name. */
struct field {
	const char *name; /* of an entry of a list, not looked at */
	enum field_type type;
	bool required;
	size_t offset; /* in the struct */
	size_t size;   /* of what is there */
	int64_t min;
	int64_t max;
	const char *const *choices; /* NULL-terminated */
	const struct field *fields;
	const struct field *each; /* an entry; offsets are in it */
	size_t count; /* of a FIELD_LIST, the offset of a size_t: how many there are; 0 none */
	size_t given; /* the offset of a bool that tells that it was there; 0 none */
	/*
	 * Of a FIELD_WORD; the text is NULL of what is no string. Sentences do not name the field.
	 */
	int (*parse)(const struct field *field, const char *text, void *to, struct err *err);
	void (*print)(const struct field *field, const void *from, char text[FIELD_WORD_SIZE]);
	const char *why;
	bool first_left_out; /* of choices, when written */
	bool null_if_absent; /* written as null where it is as good as not given, be it 0 */
	/* Of the last entry: what becomes of fields that no other is for. */
	enum { OTHERS_REFUSED, OTHERS_LOGGED, OTHERS_IGNORED } others;
};

#define FIELD_AT(type, member)                                                                     \
	.offset = offsetof(struct type, member), .size = sizeof(((struct type *)NULL)->member)
/* Of a FIELD_LIST that has a count. */
#define FIELD_COUNTED(type, member, number)                                                        \
	.offset = offsetof(struct type, member), .count = offsetof(struct type, number)

/*
 * Null stands for a field that is not given. 0 or -errno with err set and part of the struct
 * filled, which the caller frees in any case.
 */
int fields_read(const json_t *object, const struct field *fields, void *to, struct err *err);
/* The same, but no field is required. */
int fields_read_some(const json_t *object, const struct field *fields, void *to, struct err *err);

/* Whether a field is given, other than null; with besides_required, one that is not required. */
bool fields_given(const json_t *object, const struct field *fields, bool besides_required);

/* Frees what the struct owns by its table, and forgets it; the rest stays. */
void fields_free(const struct field *fields, void *config);

/*
 * The other way: an object that fields_read takes, owned by the caller; NULL without memory. What
 * is not required and as good as not given is null or left out: no string, an object of such or one
 * whose required integer is 0, an integer out of its range.
 */
json_t *fields_write(const struct field *fields, const void *from);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All that the API, the configuration file and GET /vm/config know of, as one table. In which
 * states of the VM something is possible, control knows.
 */
#ifndef MOTE_API_SOCKET_RESOURCES_H
#define MOTE_API_SOCKET_RESOURCES_H

#include <http_parser.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "api-socket/http.h"

struct body;
struct control;
struct err;
struct metrics;

/* The methods that there are, in the order in which they are told. */
enum resource_method { ON_GET, ON_PUT, ON_PATCH, ON_DELETE, RESOURCE_METHODS };

/* What a method does with a resource; of zeroes where the resource does not take it. */
struct operation {
	/* One of these. */
	const struct body *body; /* is applied, and answered 204 */
	json_t *(*describe)(const struct control *control, const char *id); /* NULL: no memory */
	int (*remove)(struct control *control, const char *id, struct err *err);
	/* Answers with a text of its own, or what is answered 400 with err's sentence. */
	int (*answer)(struct control *control, const struct http_request *request,
		      struct http_answer *answer, struct err *err);
	enum http_stream stream;
	const char *missing; /* why there is no such thing */

	/* Its requests' counters, offsets in struct metrics. */
	bool counted;
	size_t count;
	size_t fails; /* 0: there is none */
};

struct resource {
	const char *path;	/* a last part of "{}" stands for an id; NULL: it has none */
	const char *id_field;	/* of the body, which must be the same as the id; NULL none */
	const char *deprecated; /* a field of the body, whose use is told; NULL none */
	const char *current;	/* of its values the only one that is not; NULL: all are */

	/*
	 * In the configuration file, and in /vm/config: the body of PUT. Without one only null and
	 * an empty list are taken. NULL: it is in neither.
	 */
	const char *section;
	bool list;     /* of such bodies */
	bool early;    /* takes effect before the others, which may log and count */
	bool left_out; /* of /vm/config, if none of its fields is given */
	const char
		*file; /* in the file it may be the path of one that has it, which is called so */
	/* What is configured, the first at 0; NULL: no more. */
	const void *(*configured)(const struct control *control, unsigned int index);

	struct operation operations[RESOURCE_METHODS];
};

/* Sections take effect and are told in this order. Ends with one that has no path and section. */
extern const struct resource resources[];

bool operation_exists(const struct operation *operation);
enum http_method resource_method(enum resource_method method);

/* What a request means. */
struct meaning {
	const struct resource *resource;
	const struct operation *operation;
	const char *id; /* in the path; empty if it has none */
};

/*
 * 0, or -errno with err set. The operation is there also if only the id is wrong; NULL where there
 * is none.
 */
int resources_find(struct meaning *meaning, enum http_method method, const char *path,
		   struct err *err);

/* Counts a request in Firecracker's counters. NULL is not counted. */
void operation_count(const struct operation *operation, struct metrics *metrics, bool failed);

/* The whole configuration; as a configuration file it makes the same VM. */
json_t *resources_describe(const struct control *control, const char *id);

#endif

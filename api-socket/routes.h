/* SPDX-License-Identifier: Apache-2.0 */
/* What the API answers to, as one table. */
#ifndef MOTE_API_SOCKET_ROUTES_H
#define MOTE_API_SOCKET_ROUTES_H

#include <http_parser.h>
#include <jansson.h>

#include "api-socket/http.h"

struct body;
struct control;
struct err;

struct route {
	enum http_method method;
	const char *path;	/* a last part of "{}" stands for an id */
	const char *id_field;	/* of the body, which must be the same as the id; NULL none */
	const char *deprecated; /* a field of the body, whose use is told; NULL none */
	const char *current;	/* of its values the only one that is not; NULL: all are */
	/* One of these. */
	const struct body *body; /* is applied, and answered 204 */
	json_t *(*describe)(const struct control *control, const char *id); /* NULL: no memory */
	int (*remove)(struct control *control, const char *id, struct err *err);
	/* Answers with a text of its own, or what is answered 400 with err's sentence. */
	int (*answer)(struct control *control, const struct http_request *request,
		      struct http_answer *answer, struct err *err);
	enum http_stream stream;
	const char *missing; /* why there is no such thing */
};

/* Ends with a NULL path. */
extern const struct route routes[];

/* The route, with *id pointing behind its last slash; NULL with err set. */
const struct route *routes_find(enum http_method method, const char *path, const char **id,
				struct err *err);

#endif

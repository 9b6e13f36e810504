/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An answer of the API, as far as its client needs HTTP/1.1 (RFC 9112), without any I/O: bytes of
 * the server, which may send anything, to a status and a body.
 */
#ifndef MOTE_HOST_API_READER_H
#define MOTE_HOST_API_READER_H

#include <http_parser.h>
#include <stdbool.h>
#include <stddef.h>

struct err;

#define API_BODY_MAX (16 << 20) /* bytes of an answer that is kept */
#define API_TYPE_SIZE 64

struct api_answer {
	unsigned int status;
	char type[API_TYPE_SIZE]; /* of the body, as "application/json"; cut; empty if not said */
	char *body;		  /* owned, with a zero behind it; NULL none */
	size_t body_len;
	bool streamed; /* it went to an api_sink */
};

/* Takes a part of a body. 0, or -errno with err set, which is then what the request ends with. */
typedef int api_sink(void *opaque, const char *data, size_t len, struct err *err);

struct api_reader {
	http_parser parser;
	struct api_answer *answer; /* not owned */
	api_sink *sink;
	void *opaque;
	struct err *err; /* of the call that is under way */
	int rc;		 /* what ended the parsing, if it was one of our callbacks */
	bool in_body;
	bool complete;
	bool excess; /* bytes behind the answer, which belong to no request */
	bool is_type;
	bool in_value;
	char name[sizeof("Content-Type")];
	size_t name_len;
	size_t type_len;
};

/*
 * Begins with an answer, which is zeroed, and which the caller frees in any case. The body of one
 * with a status of 200 and a type other than JSON goes to the sink as it comes, if there is one.
 */
void api_reader_start(struct api_reader *reader, struct api_answer *answer, api_sink *sink,
		      void *opaque);

/* 1 when the answer is complete, 0 if more is needed, -errno with err set. */
int api_reader_feed(struct api_reader *reader, const char *data, size_t len, struct err *err);
/* The same at the end of the connection, which is the end of some answers; never 0. */
int api_reader_end(struct api_reader *reader, struct err *err);

/* Whether the connection can take one more request. */
bool api_reader_keeps_alive(const struct api_reader *reader);

/* Whether the body is JSON. */
bool api_answer_is_json(const struct api_answer *answer);
/* 0 if the request has succeeded, else -EINVAL with the server's sentence, made printable. */
int api_answer_check(const struct api_answer *answer, const char *method, const char *path,
		     struct err *err);
/* Safe on a zeroed object. */
void api_answer_free(struct api_answer *answer);

#endif

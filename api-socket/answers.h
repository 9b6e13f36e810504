/* SPDX-License-Identifier: Apache-2.0 */
/* Answers with a body, and those that are no description of the VM. */
#ifndef MOTE_API_SOCKET_ANSWERS_H
#define MOTE_API_SOCKET_ANSWERS_H

#include <jansson.h>

struct control;
struct err;
struct http_answer;
struct http_request;

/* Takes the object; NULL is an internal error. */
void answer_json(struct http_answer *answer, unsigned int status, json_t *body);

/* The totals of all counters, in Prometheus' format for who wants text. */
int answer_metrics(struct control *control, const struct http_request *request,
		   struct http_answer *answer, struct err *err);
/* The metadata as its owner has given it. */
int answer_metadata(struct control *control, const struct http_request *request,
		    struct http_answer *answer, struct err *err);

#endif

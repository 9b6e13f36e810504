/* SPDX-License-Identifier: Apache-2.0 */
/* A client of a VMM's API socket: one request at a time, on a connection that is kept. */
#ifndef MOTE_HOST_API_CLIENT_H
#define MOTE_HOST_API_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

#include "host/api_reader.h"

struct err;

struct api_client {
	char path[108]; /* as long as a Unix socket's can be, with the terminating zero */
	int fd;		/* owned; -1: connected at the next request */
	bool used;	/* for a request already */
	int timeout_ms; /* for a whole answer; of a stream, for its beginning. May be changed. */
};

#define API_CLIENT_TIMEOUT_MS 60000

/* Connects. 0 or -errno with err set and nothing to close. */
int api_client_open(struct api_client *client, const char *path, struct err *err);
void api_client_close(struct api_client *client);

/*
 * Sends a request with a body of JSON (NULL: none) and fills *answer, which the caller frees in any
 * case. A stream goes to the sink as it comes, until its end; without a sink it must end within the
 * time, and be no longer than API_BODY_MAX. 0 whatever the status, or -errno with err set, after
 * which the next request begins with a new connection.
 */
int api_client_request(struct api_client *client, const char *method, const char *path,
		       const char *body, size_t body_len, struct api_answer *answer, api_sink *sink,
		       void *opaque, struct err *err);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The API of one microVM: requests to answers, by the table in resources.c. Main thread. */
#ifndef MOTE_API_SOCKET_API_H
#define MOTE_API_SOCKET_API_H

#include <event2/event.h>
#include <stdint.h>

#include "api-socket/http.h"

struct control;
struct err;
struct vm_end;

struct api {
	struct control *control;    /* not owned */
	const char *id;		    /* not owned */
	struct http_server *server; /* owned; NULL: there is none */
	uint64_t console_seen;	    /* bytes of the console that its readers have been sent */
	struct event *console_notified;
	struct event *console_timer;
};

/*
 * Serves at path, or, if that is NULL, nowhere: records (base/record.h) are written all the same.
 * body_max is in bytes. 0 or -errno with err set and nothing to close.
 */
int api_open(struct api *api, struct control *control, const char *id, const char *path,
	     size_t body_max, struct err *err);
/* Safe on a zeroed object. */
void api_close(struct api *api);

/* opaque is a struct api. */
http_handler api_handle;

/* Tells who reads /events, and who reads the records. */
void api_publish_state(struct api *api);
void api_publish_phases(struct api *api);
/* It is the end of all streams, too: waits a while for those who are slow to read them. */
void api_publish_end(struct api *api, const struct vm_end *end);

#endif

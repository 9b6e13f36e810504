/* SPDX-License-Identifier: Apache-2.0 */
/* The API of one microVM: requests to answers, by a table of routes (routes.c). Main thread. */
#ifndef MOTE_API_SOCKET_API_H
#define MOTE_API_SOCKET_API_H

#include "api-socket/http.h"

struct control;
struct vm_end;

/* The version of Firecracker's API that is served. */
#define API_FIRECRACKER_VERSION "1.17.0"

struct api {
	struct control *control;    /* not owned */
	const char *id;		    /* not owned */
	struct http_server *server; /* not owned; NULL: nobody reads events */
};

/* opaque is a struct api. */
http_handler api_handle;

/* The state has changed, or the VM has ended: tells who reads /events. */
void api_publish_state(struct api *api);
void api_publish_end(struct api *api, const struct vm_end *end);

#endif

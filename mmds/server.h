/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata service on a Unix socket: for who reaches it by another way than a network
 * interface, as a guest does by vsock. Memory and connections are bounded. Main thread.
 */
#ifndef MOTE_MMDS_SERVER_H
#define MOTE_MMDS_SERVER_H

#include <event2/event.h>

struct err;
struct mmds;
struct server;

#define SERVER_CONNECTIONS 30 /* more of them wait */
#define SERVER_REQUEST_MAX 4096
/* One on which nothing moves for so long is closed. */
#define SERVER_IDLE_S 10

/*
 * Listens at path, 0600, which is removed by server_close; base and mmds must live longer. 0 or
 * -errno with err set.
 */
int server_open(struct server **server, struct mmds *mmds, const char *path,
		struct event_base *base, struct err *err);
/* NULL is allowed. */
void server_close(struct server *server);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Stream sockets of the Unix domain that have a path in the file system (unix(7)). */
#ifndef MOTE_BASE_UNIX_SOCKET_H
#define MOTE_BASE_UNIX_SOCKET_H

#include <stddef.h>
#include <sys/un.h>

/* What a path takes with its terminating zero. */
#define UNIX_SOCKET_PATH_SIZE sizeof(((struct sockaddr_un *)NULL)->sun_path)

/* Closed on exec; `flags` as SOCK_NONBLOCK. Owned by the caller; -errno. */
int unix_socket_open(int flags);

/*
 * Each 0 or -errno: -ENAMETOOLONG for a path that does not fit, -EINVAL for an empty one, which
 * would be an abstract name, and so anybody's. One that does not block connects at once or not at
 * all: -EAGAIN is a full backlog.
 */
int unix_socket_connect(int fd, const char *path);
int unix_socket_bind(int fd, const char *path);

/*
 * Makes way for a socket at `path`: what is there goes if it is a socket that nobody listens on. 0,
 * also if there is nothing; -ENOTSOCK if it is something else, -EADDRINUSE if a program listens on
 * it, -errno if it cannot be told or removed.
 */
int unix_socket_remove_stale(const char *path);

#endif

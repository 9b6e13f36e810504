/* SPDX-License-Identifier: Apache-2.0 */
/* The host's side of the socket device: the Unix sockets and the line that opens a connection. */
#ifndef MOTE_VIRTIO_VSOCK_HOST_H
#define MOTE_VIRTIO_VSOCK_HOST_H

#include <stdint.h>
#include <sys/types.h>

struct err;

/* "CONNECT <port>\n" may be so long. */
#define VSOCK_COMMAND_MAX 32

struct vsock_listener {
	int fd; /* owned; non-blocking */
	char *path;
	dev_t device; /* what was created at path */
	ino_t inode;
};

/*
 * Creates the socket at path, 0600. One that nobody listens on is replaced; one on which `replaces`
 * (may be NULL) listens is taken over from it, which closes that. 0 or -errno with err set; on
 * failure there is nothing to close, and `replaces` is as it was.
 */
int vsock_listener_open(struct vsock_listener *listener, const char *path,
			struct vsock_listener *replaces, struct err *err);
/* Removes the socket unless something else has taken its place. Safe on a closed object. */
void vsock_listener_close(struct vsock_listener *listener);

/* A connection to who listens at a path: a non-blocking descriptor, or -errno. */
int vsock_host_connect(const char *path);
/* A connection to who listens on "<path>_<port>": a non-blocking descriptor, or -errno. */
int vsock_host_dial(const char *path, uint32_t port);

struct vsock_command {
	uint8_t used;
	char line[VSOCK_COMMAND_MAX];
};

/*
 * Reads a client's command line and nothing behind it. 1 with *port set, 0 if more must come, or
 * -errno if it is not one or the client has gone.
 */
int vsock_command_read(struct vsock_command *command, int fd, uint32_t *port);

/* Tells the client that the guest has accepted. 0 or -errno. */
int vsock_command_answer(int fd, uint32_t host_port);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio socket device whose host side is Unix sockets (virtio 1.2, 5.10). A host program
 * connects to uds_path, writes "CONNECT <port>\n" and reads "OK <host port>\n", then has the stream
 * to the guest's port. A guest that connects to CID 2, port P, reaches who listens on
 * "<uds_path>_<P>". Streams only.
 */
#ifndef MOTE_VIRTIO_VSOCK_VSOCK_H
#define MOTE_VIRTIO_VSOCK_VSOCK_H

#include <event2/event.h>
#include <stdint.h>

#include "virtio/core/device.h"

struct err;
struct vsock;

/* The others are reserved (virtio 1.2, 5.10.4). */
#define VSOCK_GUEST_CID_MIN 3
#define VSOCK_GUEST_CID_MAX (UINT32_MAX - 1)

struct vsock_config {
	uint64_t guest_cid;   /* VSOCK_GUEST_CID_MIN to _MAX */
	const char *uds_path; /* its directory must exist */
	/* The device that is closed if this one opens: its socket at the same path is taken over;
	   or NULL. Neither is attached. */
	struct vsock *replaces;
};

/*
 * Creates the listening socket, 0600; replaces a stale one, but neither a live one nor another kind
 * of file. The device is freed by virtio_device_close, which removes the socket it made. 0 or
 * -errno with err set; on failure *vsock is NULL and nothing is left behind.
 */
int vsock_open(struct vsock **vsock, const struct vsock_config *config, struct err *err);
struct virtio_device *vsock_device(struct vsock *vsock);
/* Of a virtio_device that is one. */
struct vsock *vsock_of(struct virtio_device *device);

#endif

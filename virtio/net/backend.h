/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a network device's frames come from and go to: a tap device or passt. A frame here is what
 * the virtqueues carry: a struct virtio_net_hdr_v1, then the Ethernet frame.
 */
#ifndef MOTE_VIRTIO_NET_BACKEND_H
#define MOTE_VIRTIO_NET_BACKEND_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct err;

#define NET_HEADER_SIZE 12 /* virtio 1.2, 5.1.6.1 */
#define NET_FRAME_MIN (NET_HEADER_SIZE + 14)
#define NET_FRAME_MAX (NET_HEADER_SIZE + 14 + 4 + 65535)

struct net_backend;

struct net_backend_ops {
	/*
	 * Sends a frame: 0, 1 if it was for something on the way to the host, -EAGAIN if the host
	 * cannot take it now (the descriptor becomes writable when it can), or -errno if it is
	 * lost.
	 */
	int (*send)(struct net_backend *backend, const struct iovec *iov, unsigned int count);
	/*
	 * Sends what is left of frames taken earlier: 0, or -EAGAIN if it must wait for the
	 * descriptor to become writable. NULL if there never is any.
	 */
	int (*flush)(struct net_backend *backend);
	/*
	 * Receives a frame into iov, which has room for NET_FRAME_MAX; num_buffers is not set. Its
	 * size, -EAGAIN if there is none (the descriptor becomes readable when there is), or
	 * -errno.
	 */
	ssize_t (*receive)(struct net_backend *backend, const struct iovec *iov,
			   unsigned int count);
	/* Tells the host which offloads the driver takes (VIRTIO_NET_F_GUEST_*). -errno. */
	int (*set_offloads)(struct net_backend *backend, uint64_t driver_features);
	void (*close)(struct net_backend *backend);
	/*
	 * In how many nanoseconds `receive` has a frame of which the descriptor does not tell; 0
	 * now, -1 if nothing is planned. What the device has sent may change it. NULL if never.
	 */
	int64_t (*wait)(struct net_backend *backend);
};

struct net_backend {
	const struct net_backend_ops *ops;
	int fd;		   /* owned; non-blocking, for the event loop */
	uint64_t features; /* what of VIRTIO_NET_F_* the host makes possible */
};

/*
 * Each makes a backend, freed by its close(). 0 or -errno with err set; id names the interface in
 * it.
 */
int net_tap_open(struct net_backend **backend, const char *id, const char *tap, struct err *err);
/* Another backend on a tap that is open already. */
int net_tap_share(struct net_backend **backend, const char *id, const struct net_backend *other,
		  struct err *err);
/*
 * fd -1: connects to the socket at path; else takes over that descriptor, which must have been
 * inherited (without FD_CLOEXEC).
 */
int net_passt_open(struct net_backend **backend, const char *id, const char *path, int fd,
		   struct err *err);

#endif

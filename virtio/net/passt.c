/* SPDX-License-Identifier: Apache-2.0 */
/*
 * passt's stream protocol, which is QEMU's "-netdev stream": each Ethernet frame behind its length
 * as 32 bits, big endian. There are no offloads, so the virtio header is ours to add and drop.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/unix_socket.h"
#include "virtio/net/backend.h"

#define LENGTH_SIZE sizeof(uint32_t)
#define ETHERNET_MAX (NET_FRAME_MAX - NET_HEADER_SIZE)
#define IN_SIZE (LENGTH_SIZE + ETHERNET_MAX)

struct passt {
	struct net_backend backend;
	bool broken;  /* the peer is gone or speaks something else */
	size_t in_at; /* the unparsed bytes of `in` */
	size_t in_end;
	size_t out_at; /* the unsent bytes of `out` */
	size_t out_end;
	uint8_t in[IN_SIZE];
	uint8_t out[LENGTH_SIZE + NET_FRAME_MAX]; /* the rest of a frame that was sent in part */
};

static struct passt *passt_of(struct net_backend *backend)
{
	return (struct passt *)backend;
}

static int break_with(struct passt *passt, int error)
{
	passt->broken = true;
	return -error;
}

static int flush(struct passt *passt)
{
	while (passt->out_at < passt->out_end) {
		ssize_t n = send(passt->backend.fd, passt->out + passt->out_at,
				 passt->out_end - passt->out_at, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? -EAGAIN : break_with(passt, errno);
		passt->out_at += (size_t)n;
	}
	passt->out_at = passt->out_end = 0;
	return 0;
}

/* Copies what is behind the first `skip` bytes of iov; returns how much. */
static size_t gather(uint8_t *to, const struct iovec *iov, unsigned int count, size_t skip)
{
	size_t copied = 0;

	for (unsigned int i = 0; i < count; i++) {
		size_t from = skip < iov[i].iov_len ? skip : iov[i].iov_len;

		memcpy(to + copied, (const uint8_t *)iov[i].iov_base + from, iov[i].iov_len - from);
		copied += iov[i].iov_len - from;
		skip -= from;
	}
	return copied;
}

static int passt_send(struct net_backend *backend, const struct iovec *iov, unsigned int count)
{
	struct passt *passt = passt_of(backend);
	uint32_t length;
	int rc;

	if (passt->broken)
		return -EPIPE;
	rc = flush(passt);
	if (rc < 0)
		return rc;
	passt->out_end =
		LENGTH_SIZE + gather(passt->out + LENGTH_SIZE, iov, count, NET_HEADER_SIZE);
	length = htonl((uint32_t)(passt->out_end - LENGTH_SIZE));
	memcpy(passt->out, &length, sizeof(length));
	rc = flush(passt);
	return rc == -EAGAIN ? 0 : rc;
}

static int passt_flush(struct net_backend *backend)
{
	return flush(passt_of(backend)) == -EAGAIN ? -EAGAIN : 0;
}

/* The length of the first whole frame in `in`, 0 if there is none, or -errno. */
static int next_frame(const struct passt *passt)
{
	uint32_t length;

	if (passt->in_end - passt->in_at < LENGTH_SIZE)
		return 0;
	memcpy(&length, passt->in + passt->in_at, sizeof(length));
	length = ntohl(length);
	if (length == 0 || length > ETHERNET_MAX)
		return -EPROTO;
	return passt->in_end - passt->in_at - LENGTH_SIZE < length ? 0 : (int)length;
}

static int read_more(struct passt *passt)
{
	ssize_t n;

	if (passt->in_at > 0) {
		memmove(passt->in, passt->in + passt->in_at, passt->in_end - passt->in_at);
		passt->in_end -= passt->in_at;
		passt->in_at = 0;
	}
	do {
		n = recv(passt->backend.fd, passt->in + passt->in_end, IN_SIZE - passt->in_end,
			 MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? -EAGAIN : break_with(passt, errno);
	if (n == 0)
		return break_with(passt, EPIPE);
	passt->in_end += (size_t)n;
	return 0;
}

static void scatter(const struct iovec *iov, size_t offset, const uint8_t *from, size_t size)
{
	for (; size > 0; iov++) {
		size_t room = offset < iov->iov_len ? iov->iov_len - offset : 0;
		size_t n = size < room ? size : room;

		memcpy((uint8_t *)iov->iov_base + (offset < iov->iov_len ? offset : 0), from, n);
		offset = offset > iov->iov_len ? offset - iov->iov_len : 0;
		from += n;
		size -= n;
	}
}

static ssize_t passt_receive(struct net_backend *backend, const struct iovec *iov,
			     unsigned int count)
{
	static const uint8_t header[NET_HEADER_SIZE];
	struct passt *passt = passt_of(backend);
	int length;

	(void)count;
	if (passt->broken)
		return -EPIPE;
	while ((length = next_frame(passt)) == 0) {
		int rc = read_more(passt);

		if (rc < 0)
			return rc;
	}
	if (length < 0)
		return break_with(passt, EPROTO);
	scatter(iov, 0, header, sizeof(header));
	scatter(iov, sizeof(header), passt->in + passt->in_at + LENGTH_SIZE, (size_t)length);
	passt->in_at += LENGTH_SIZE + (size_t)length;
	return NET_HEADER_SIZE + length;
}

static int passt_set_offloads(struct net_backend *backend, uint64_t features)
{
	(void)backend;
	(void)features;
	return 0;
}

static void passt_close(struct net_backend *backend)
{
	fd_close(&backend->fd);
	free(backend);
}

static const struct net_backend_ops passt_ops = { passt_send, passt_flush, passt_receive,
						  passt_set_offloads, passt_close };

static int connect_to(int *fd, const char *id, const char *path, struct err *err)
{
	int rc = unix_socket_open(0);

	*fd = rc < 0 ? -1 : rc;
	if (rc >= 0)
		rc = unix_socket_connect(*fd, path);
	if (rc == -ENAMETOOLONG)
		return err_set(err, ENAMETOOLONG,
			       "network interface %s: %s: longer than a socket's path may be", id,
			       path);
	return rc < 0 ? err_sys(err, -rc, "network interface %s: passt's socket %s", id, path) : 0;
}

/*
 * The descriptors that this process has opened are closed on exec, and so cannot be mistaken for
 * one that it was given.
 */
static int check_socket(int fd, const char *id, struct err *err)
{
	int flags = fcntl(fd, F_GETFD);
	int type = 0;
	socklen_t size = sizeof(type);

	if (flags < 0 || flags & FD_CLOEXEC)
		return err_set(err, EBADF, "network interface %s: descriptor %d: not inherited", id,
			       fd);
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_STREAM)
		return err_set(err, EINVAL,
			       "network interface %s: descriptor %d: not a stream socket", id, fd);
	return fcntl(fd, F_SETFD, FD_CLOEXEC) < 0
		       ? err_sys(err, errno, "network interface %s: descriptor %d", id, fd)
		       : 0;
}

int net_passt_open(struct net_backend **backend, const char *id, const char *path, int given,
		   struct err *err)
{
	CLEANUP_FD int fd = -1;
	struct passt *passt;
	int rc = given >= 0 ? check_socket(given, id, err) : connect_to(&fd, id, path, err);

	if (rc == 0 && given >= 0)
		fd = given;
	*backend = NULL;
	if (rc < 0)
		return rc;
	passt = calloc(1, sizeof(*passt));
	if (!passt)
		return err_sys(err, ENOMEM, "network interface %s", id);
	passt->backend.ops = &passt_ops;
	passt->backend.fd = fd_take(&fd);
	*backend = &passt->backend;
	return 0;
}

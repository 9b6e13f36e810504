/* SPDX-License-Identifier: Apache-2.0 */
/* Documentation/networking/tuntap.rst; the header of each frame is the tap's own (IFF_VNET_HDR). */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/err.h"
#include "base/fd.h"
#include "virtio/net/backend.h"

#define TUN_DEVICE "/dev/net/tun"
#define BIT(n) (UINT64_C(1) << (n))

_Static_assert(sizeof(struct virtio_net_hdr_v1) == NET_HEADER_SIZE, "virtio 1.2, 5.1.6");

static int tap_send(struct net_backend *backend, const struct iovec *iov, unsigned int count)
{
	ssize_t n;

	do {
		n = writev(backend->fd, iov, (int)count);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static ssize_t tap_receive(struct net_backend *backend, const struct iovec *iov, unsigned int count)
{
	ssize_t n;

	do {
		n = readv(backend->fd, iov, (int)count);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static int tap_set_offloads(struct net_backend *backend, uint64_t features)
{
	unsigned long offloads = 0;

	/* Segments of the guest's size need its checksumming (5.1.3.1). */
	if (features & BIT(VIRTIO_NET_F_GUEST_CSUM)) {
		offloads |= TUN_F_CSUM;
		if (features & BIT(VIRTIO_NET_F_GUEST_TSO4))
			offloads |= TUN_F_TSO4;
		if (features & BIT(VIRTIO_NET_F_GUEST_TSO6))
			offloads |= TUN_F_TSO6;
		if (features & BIT(VIRTIO_NET_F_GUEST_UFO))
			offloads |= TUN_F_UFO;
	}
	return ioctl(backend->fd, TUNSETOFFLOAD, offloads) < 0 ? -errno : 0;
}

static void tap_close(struct net_backend *backend)
{
	fd_close(&backend->fd);
	free(backend);
}

static const struct net_backend_ops tap_ops = { tap_send, NULL, tap_receive, tap_set_offloads,
						tap_close };

static int open_device(int *fd, const char *id, const char *tap, struct err *err)
{
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	const int header_size = NET_HEADER_SIZE;

	if (strlen(tap) == 0 || strlen(tap) >= sizeof(request.ifr_name))
		return err_set(err, EINVAL, "network interface %s: %s: not a device's name", id,
			       tap);
	/* TUNSETIFF would make a device of its own, which nothing on the host knows. */
	if (if_nametoindex(tap) == 0)
		return err_set(err, ENODEV, "network interface %s: there is no tap device %s", id,
			       tap);
	memcpy(request.ifr_name, tap, strlen(tap) + 1);
	*fd = open(TUN_DEVICE, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (*fd < 0)
		return err_sys(err, errno, "network interface %s: " TUN_DEVICE, id);
	if (ioctl(*fd, TUNSETIFF, &request) < 0)
		return errno == EBUSY
			       ? err_set(err, EBUSY,
					 "network interface %s: tap device %s: in use by another "
					 "process",
					 id, tap)
			       : err_sys(err, errno, "network interface %s: tap device %s", id,
					 tap);
	if (ioctl(*fd, TUNSETVNETHDRSZ, &header_size) < 0)
		return err_sys(err, errno, "network interface %s: tap device %s: TUNSETVNETHDRSZ",
			       id, tap);
	return 0;
}

static int make_backend(struct net_backend **backend, const char *id, int *fd, struct err *err)
{
	*backend = calloc(1, sizeof(**backend));
	if (!*backend)
		return err_sys(err, ENOMEM, "network interface %s", id);
	(*backend)->ops = &tap_ops;
	(*backend)->fd = fd_take(fd);
	(*backend)->features = BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) |
			       BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) |
			       BIT(VIRTIO_NET_F_HOST_UFO) | BIT(VIRTIO_NET_F_GUEST_TSO4) |
			       BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_UFO);
	return 0;
}

int net_tap_open(struct net_backend **backend, const char *id, const char *tap, struct err *err)
{
	CLEANUP_FD int fd = -1;
	int rc = open_device(&fd, id, tap, err);

	*backend = NULL;
	return rc < 0 ? rc : make_backend(backend, id, &fd, err);
}

int net_tap_share(struct net_backend **backend, const char *id, const struct net_backend *other,
		  struct err *err)
{
	CLEANUP_FD int fd = fcntl(other->fd, F_DUPFD_CLOEXEC, 3);

	*backend = NULL;
	if (fd < 0)
		return err_sys(err, errno, "network interface %s", id);
	return make_backend(backend, id, &fd, err);
}

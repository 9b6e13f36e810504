/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a socket device is saved: nothing of its connections, whose other ends are programs of
 * the host. A restored device tells the guest by an event that they are gone (virtio 1.2,
 * 5.10.6.7), and gives it nothing else before the driver has taken that: a connection of before
 * could else be taken for one of afterwards, or a new one go with the old ones. The driver has
 * taken it when it makes a buffer available again: Linux's does so when all its sockets are reset.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/err.h"
#include "base/state.h"
#include "virtio/vsock/internal.h"

void vsock_save(const struct virtio_device *device, struct state_writer *out)
{
	const struct vsock *vsock = (const struct vsock *)device;

	state_put_u64(out, vsock->table.guest_cid);
	/* A socket of the guest keeps its port of before until its program closes it. */
	state_put_u32(out, vsock->table.last_port);
}

int vsock_restore(struct virtio_device *device, struct state_reader *in, uint32_t version,
		  struct err *err)
{
	struct vsock *vsock = vsock_of(device);
	const uint64_t cid = state_get_u64(in);
	const uint32_t last_port = state_get_u32(in);
	int rc = virtio_device_read_all(device, in, err);

	(void)version;
	if (rc < 0)
		return rc;
	if (cid < VSOCK_GUEST_CID_MIN || cid > VSOCK_GUEST_CID_MAX)
		return err_set(err, EINVAL, "vsock: saved guest CID %" PRIu64, cid);
	if (last_port < VSOCK_HOST_PORTS_START || last_port >= VSOCK_HOST_PORTS_END)
		return err_set(err, EINVAL, "vsock: saved port %" PRIu32, last_port);
	if (device->active &&
	    (!device->queues[VSOCK_RX_QUEUE].ready || !device->queues[VSOCK_TX_QUEUE].ready))
		return err_set(err, EINVAL,
			       "vsock: saved status DRIVER_OK without a receive and a transmit "
			       "queue");
	vsock->config.guest_cid = htole64(cid);
	vsock->table.guest_cid = cid;
	vsock->table.last_port = last_port;
	/* A driver without that queue cannot be told. */
	vsock->transport_reset = device->active && device->queues[VSOCK_EVENT_QUEUE].ready
					 ? VSOCK_EVENT_DUE
					 : VSOCK_EVENT_NONE;
	return 0;
}

/* A buffer for the event: 1, 0 if there is none and the driver will notify, -EPROTO. */
static int get_buffer(struct virtq *queue, struct virtq_chain *chain, struct iovec *iov)
{
	int rc = virtq_pop(queue, chain, iov, VIRTQ_SIZE_MAX);

	if (rc == 0 && virtq_enable_notify(queue))
		rc = virtq_pop(queue, chain, iov, VIRTQ_SIZE_MAX);
	return rc;
}

static void put_event(struct vsock *vsock)
{
	static const struct virtio_vsock_event event = { VIRTIO_VSOCK_EVENT_TRANSPORT_RESET };
	struct virtq *queue = &vsock->device.queues[VSOCK_EVENT_QUEUE];
	struct iovec iov[VIRTQ_SIZE_MAX];
	struct virtq_chain chain;
	const uint8_t *from = (const uint8_t *)&event;
	unsigned int count;
	int rc = get_buffer(queue, &chain, iov);

	if (rc < 0)
		virtio_device_fail(&vsock->device, "event queue: %s", virtq_error(queue));
	if (rc <= 0)
		return;
	if (chain.out_count > 0 || chain.in_len < sizeof(event)) {
		virtio_device_fail(&vsock->device, "an event buffer that cannot hold an event");
		return;
	}
	count = vsock_slice(iov, iov, chain.in_count, 0, sizeof(event));
	for (unsigned int i = 0; i < count; i++) {
		memcpy(iov[i].iov_base, from, iov[i].iov_len);
		from += iov[i].iov_len;
	}
	virtq_push(queue, chain.head, sizeof(event));
	vsock->transport_reset = VSOCK_EVENT_PUT;
	vsock->available_then = virtq_available(queue);
	virtio_device_publish(&vsock->device, queue);
}

void vsock_serve_event(struct vsock *vsock)
{
	struct virtq *queue = &vsock->device.queues[VSOCK_EVENT_QUEUE];

	if (vsock->transport_reset == VSOCK_EVENT_DUE)
		put_event(vsock);
	if (vsock->transport_reset == VSOCK_EVENT_PUT &&
	    virtq_enable_notify_beyond(queue, vsock->available_then))
		vsock->transport_reset = VSOCK_EVENT_NONE;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* From the queues to the backend and back. */
#include <errno.h>
#include <linux/virtio_config.h>
#include <string.h>

#include "base/clock.h"
#include "virtio/net/internal.h"

/* Frames that one turn of the event loop handles in one direction, so that others get theirs. */
#define BATCH 128

/* When others had their turn. Not event_active(): the loop runs what is active until nothing is. */
void net_resume_soon(struct event *timer)
{
	const struct timeval at_once = { 0 };

	evtimer_add(timer, &at_once);
}

static void resume_after(struct event *timer, int64_t wait_ns)
{
	const struct timeval wait = {
		.tv_sec = wait_ns / 1000000000,
		.tv_usec = wait_ns % 1000000000 / 1000 + 1,
	};

	evtimer_add(timer, &wait);
}

void net_log_lost(struct net *net, const char *what, int error)
{
	log_guest_line(&net->log_limit, LOG_WARN, "%s: %s: %s", net->name, what,
		       strerrordesc_np(error));
}

/* True if the limiter lets the next frame pass now; else the timer is set. */
static bool may_pass(struct rate_limiter *limiter, struct event *timer, uint64_t *throttled)
{
	int64_t wait;

	if (!rate_limiter_limits(limiter))
		return true;
	wait = rate_limiter_wait(limiter, clock_ns());
	if (wait == 0)
		return true;
	(*throttled)++;
	resume_after(timer, wait);
	return false;
}

/*
 * To the guest. A frame is read straight into its buffers when they have room for any frame; when
 * they do not, it is read aside first, because the tap would cut what does not fit. One that is
 * aside comes before all others.
 */
static ssize_t receive(struct net *net)
{
	const struct iovec *iov;
	unsigned int count;
	ssize_t size;

	iov = net_rx_buffers_iov(&net->rx, NET_FRAME_MAX, &count);
	if (net->bounced == 0 && iov)
		return net->front->ops->receive(net->front, iov, count);
	if (net->bounced == 0) {
		const struct iovec aside = { net->bounce, sizeof(net->bounce) };

		size = net->front->ops->receive(net->front, &aside, 1);
		if (size < 0)
			return size;
		net->bounced = (size_t)size;
	}
	switch (net_rx_buffers_copy(&net->rx, net->bounce, net->bounced)) {
	case NET_RX_COPIED:
		size = (ssize_t)net->bounced;
		net->bounced = 0;
		return size;
	case NET_RX_NEVER:
		net->bounced = 0;
		net->metrics.rx_fails++;
		return 0;
	default:
		return -ENOBUFS;
	}
}

/* Takes one frame in: 1, 0 if it was dropped, -EAGAIN or -ENOBUFS if there is nothing to do now. */
static int take_frame(struct net *net)
{
	ssize_t size = receive(net);

	if (size == -EAGAIN) {
		net->rx_readable = false;
		return -EAGAIN;
	}
	if (size == -ENOBUFS) {
		net->metrics.no_rx_avail_buffer++;
		return -ENOBUFS;
	}
	if (size < 0) {
		/* A tap that is down says so each time; it becomes readable when it is up. */
		net->rx_readable = false;
		net->metrics.tap_read_fails++;
		net_log_lost(net, "receiving a frame", (int)-size);
		return -EAGAIN;
	}
	if (size < NET_FRAME_MIN)
		return 0;
	net_rx_buffers_return(&net->rx, (size_t)size);
	rate_limiter_charge(&net->rx_limiter, (uint64_t)size);
	net->metrics.rx_packets_count++;
	net->metrics.rx_bytes_count += (uint64_t)size;
	return 1;
}

/* Nanoseconds until there is a frame of which the descriptor does not tell, or -1. */
static int64_t front_wait(struct net *net)
{
	return net->front->ops->wait ? net->front->ops->wait(net->front) : -1;
}

void net_serve_rx(struct net *net)
{
	struct virtq *queue = &net->device.queues[NET_RX_QUEUE];
	int frames = 0, rc = 0;
	int64_t wait;

	while ((net->rx_readable || net->bounced > 0 || front_wait(net) == 0) && rc >= 0) {
		if (frames++ == BATCH) {
			net_resume_soon(net->rx_resume);
			break;
		}
		if (!may_pass(&net->rx_limiter, net->rx_resume,
			      &net->metrics.rx_rate_limiter_throttled))
			break;
		rc = net_rx_buffers_fill(&net->rx, queue, NET_FRAME_MAX);
		if (rc >= 0)
			rc = take_frame(net);
		/* Buffers that came between the fill and the wish to hear of them. */
		if (rc == -ENOBUFS && virtq_enable_notify(queue))
			rc = 0;
	}
	virtio_device_publish(&net->device, queue);
	if (rc == -EPROTO)
		virtio_device_fail(&net->device, "receive queue: %s", virtq_error(queue));
	/* What is there already waits for buffers, the limit or the next turn. */
	wait = front_wait(net);
	if (wait > 0)
		resume_after(net->front_timer, wait);
}

/* A source that is not the guest's own; counted as Firecracker does, not dropped. */
static void check_source(struct net *net, const struct virtq_chain *chain)
{
	size_t at = NET_HEADER_SIZE + NET_MAC_SIZE;

	if (!(net->device.features >> VIRTIO_NET_F_MAC & 1))
		return;
	for (unsigned int i = 0; i < chain->out_count; i++) {
		const struct iovec *iov = &chain->iov[i];

		if (at + NET_MAC_SIZE <= iov->iov_len) {
			if (memcmp((const uint8_t *)iov->iov_base + at, net->config.mac,
				   NET_MAC_SIZE) != 0)
				net->metrics.tx_spoofed_mac_count++;
			return;
		}
		if (at < iov->iov_len)
			return; /* in pieces: no driver does that */
		at -= iov->iov_len;
	}
}

/* Sends or drops a frame: 0, or -EAGAIN if it has to wait. */
static int send_frame(struct net *net, const struct virtq_chain *chain)
{
	int rc;

	if (chain->out_len < NET_FRAME_MIN || chain->out_len > NET_FRAME_MAX) {
		net->metrics.tx_malformed_frames++;
		return 0;
	}
	rc = net->front->ops->send(net->front, chain->iov, chain->out_count);
	if (rc == -EAGAIN)
		return rc;
	/* What stays here is none of the network's. */
	if (rc > 0)
		return 0;
	check_source(net, chain);
	rate_limiter_charge(&net->tx_limiter, chain->out_len);
	if (rc < 0) {
		net->metrics.tx_fails++;
		net->metrics.tap_write_fails++;
		net_log_lost(net, "sending a frame", -rc);
		return 0;
	}
	net->metrics.tx_packets_count++;
	net->metrics.tx_bytes_count += chain->out_len;
	return 0;
}

static int next_to_send(struct net *net, struct virtq *queue)
{
	if (net->tx_pending.iov)
		return 1;
	return virtq_pop(queue, &net->tx_pending, net->tx_iov, VIRTQ_SIZE_MAX);
}

void net_serve_tx(struct net *net)
{
	struct virtq *queue = &net->device.queues[NET_TX_QUEUE];
	int frames = 0, rc = 0;

	virtq_disable_notify(queue);
	while (net->tx_writable) {
		if (frames++ == BATCH) {
			net_resume_soon(net->tx_resume);
			break;
		}
		if (!may_pass(&net->tx_limiter, net->tx_resume,
			      &net->metrics.tx_rate_limiter_throttled))
			break;
		rc = next_to_send(net, queue);
		if (rc == 0 && !virtq_enable_notify(queue))
			break;
		if (rc < 0)
			break;
		if (rc == 0)
			continue;
		if (send_frame(net, &net->tx_pending) == -EAGAIN) {
			net->tx_writable = false;
			break;
		}
		virtq_push(queue, net->tx_pending.head, 0);
		net->tx_pending.iov = NULL;
	}
	virtio_device_publish(&net->device, queue);
	if (rc < 0)
		virtio_device_fail(&net->device, "transmit queue: %s", virtq_error(queue));
	else if (front_wait(net) >= 0 && net->device.queues[NET_RX_QUEUE].ready)
		net_serve_rx(net);
}

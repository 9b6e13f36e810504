/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/net/net.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "virtio/net/backend.h"
#include "virtio/net/rx_buffers.h"

#define QUEUE_RX 0
#define QUEUE_TX 1
#define QUEUE_SIZE 256
#define BIT(n) (UINT64_C(1) << (n))

/* Frames that one turn of the event loop handles in one direction, so that others get theirs. */
#define BATCH 128

struct net {
	struct virtio_device device; /* first; its lock guards all that follows */
	char name[96];
	char *tap; /* owned; NULL for passt */
	struct virtio_net_config config;
	struct net_backend *backend; /* owned */
	struct net_backend *front;   /* what is used: the same, or something before it */
	struct net_metrics metrics;
	struct log_limit log_limit;

	struct net_rx_buffers rx;
	bool rx_readable; /* the descriptor may have frames: it is watched for edges only */
	struct rate_limiter rx_limiter;
	bool paused;
	uint8_t bounce[NET_FRAME_MAX]; /* a frame that the buffers at hand might not hold */
	size_t bounced;		       /* its size; 0 none */

	struct virtq_chain tx_pending; /* popped, but not to be sent yet; iov NULL: none */
	struct iovec tx_iov[VIRTQ_SIZE_MAX];
	bool tx_writable;
	struct rate_limiter tx_limiter;

	/* Main thread only. */
	struct event *ready; /* the descriptor, edge-triggered */
	struct event *rx_resume;
	struct event *tx_resume;
	struct event
		*front_timer; /* when the front has something that the descriptor does not tell */
};

struct virtio_device *net_device(struct net *net)
{
	return &net->device;
}

struct net *net_of(struct virtio_device *device)
{
	return (struct net *)device;
}

/* When others had their turn. Not event_active(): the loop runs what is active until nothing is. */
static void resume_soon(struct event *timer)
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

static void log_lost(struct net *net, const char *what, int error)
{
	log_guest_line(&net->log_limit, LOG_WARN, "%s: %s: %s", net->name, what,
		       strerrordesc_np(error));
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
		log_lost(net, "receiving a frame", (int)-size);
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

static void serve_rx(struct net *net)
{
	struct virtq *queue = &net->device.queues[QUEUE_RX];
	int frames = 0, rc = 0;
	int64_t wait;

	if (net->paused)
		return;
	while ((net->rx_readable || net->bounced > 0 || front_wait(net) == 0) && rc >= 0) {
		if (frames++ == BATCH) {
			resume_soon(net->rx_resume);
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

	if (!(net->device.features & BIT(VIRTIO_NET_F_MAC)))
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
		log_lost(net, "sending a frame", -rc);
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

static void serve_tx(struct net *net)
{
	struct virtq *queue = &net->device.queues[QUEUE_TX];
	int frames = 0, rc = 0;

	virtq_disable_notify(queue);
	while (net->tx_writable) {
		if (frames++ == BATCH) {
			resume_soon(net->tx_resume);
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
	else if (front_wait(net) >= 0 && net->device.queues[QUEUE_RX].ready)
		serve_rx(net);
}

static void net_notified(struct virtio_device *device, unsigned int queue)
{
	struct net *net = net_of(device);

	if (queue == QUEUE_RX) {
		net->metrics.rx_queue_event_count++;
		serve_rx(net);
	} else {
		net->metrics.tx_queue_event_count++;
		serve_tx(net);
	}
}

static int net_activate(struct virtio_device *device)
{
	struct net *net = net_of(device);
	int rc = net->front->ops->set_offloads(net->front, device->driver_features);

	if (rc < 0) {
		metric_add(&net->metrics.activate_fails, 1);
		log_lost(net, "offloads", -rc);
		return rc;
	}
	net_rx_buffers_reset(&net->rx, virtio_has_feature(device, VIRTIO_NET_F_MRG_RXBUF));
	return 0;
}

static bool net_reset(struct virtio_device *device)
{
	struct net *net = net_of(device);

	net->bounced = 0;
	net->tx_pending.iov = NULL;
	return true;
}

static void on_ready(evutil_socket_t fd, short events, void *opaque)
{
	struct net *net = opaque;
	bool active;

	(void)fd;
	pthread_mutex_lock(&net->device.lock);
	active = net->device.active;
	if (events & EV_READ) {
		net->metrics.rx_tap_event_count++;
		net->rx_readable = true;
		if (active && net->device.queues[QUEUE_RX].ready)
			serve_rx(net);
	}
	if (events & EV_WRITE) {
		net->tx_writable =
			!net->front->ops->flush || net->front->ops->flush(net->front) == 0;
		if (net->device.active && net->device.queues[QUEUE_TX].ready)
			serve_tx(net);
	}
	pthread_mutex_unlock(&net->device.lock);
}

static void on_rx_resume(evutil_socket_t fd, short events, void *opaque)
{
	struct net *net = opaque;

	(void)fd;
	(void)events;
	pthread_mutex_lock(&net->device.lock);
	if (net->device.active && net->device.queues[QUEUE_RX].ready) {
		net->metrics.rx_event_rate_limiter_count++;
		serve_rx(net);
	}
	pthread_mutex_unlock(&net->device.lock);
}

static void on_front_timer(evutil_socket_t fd, short events, void *opaque)
{
	struct net *net = opaque;

	(void)fd;
	(void)events;
	pthread_mutex_lock(&net->device.lock);
	if (net->device.active && net->device.queues[QUEUE_RX].ready)
		serve_rx(net);
	pthread_mutex_unlock(&net->device.lock);
}

static void on_tx_resume(evutil_socket_t fd, short events, void *opaque)
{
	struct net *net = opaque;

	(void)fd;
	(void)events;
	pthread_mutex_lock(&net->device.lock);
	if (net->device.active && net->device.queues[QUEUE_TX].ready) {
		net->metrics.tx_rate_limiter_event_count++;
		serve_tx(net);
	}
	pthread_mutex_unlock(&net->device.lock);
}

static int net_attach(struct virtio_device *device, const struct virtio_host *host, struct err *err)
{
	struct net *net = net_of(device);

	net->ready = event_new(host->base, net->backend->fd,
			       EV_READ | EV_WRITE | EV_PERSIST | EV_ET, on_ready, net);
	net->rx_resume = evtimer_new(host->base, on_rx_resume, net);
	net->tx_resume = evtimer_new(host->base, on_tx_resume, net);
	net->front_timer = evtimer_new(host->base, on_front_timer, net);
	if (net->ready && net->rx_resume && net->tx_resume && net->front_timer &&
	    event_add(net->ready, NULL) == 0)
		return 0;
	return err_set(err, ENOMEM, "%s: no memory for its events", net->name);
}

static void free_event(struct event **event)
{
	if (*event)
		event_free(*event);
	*event = NULL;
}

static bool net_detach(struct virtio_device *device, int64_t until_ns)
{
	struct net *net = net_of(device);

	(void)until_ns;
	free_event(&net->ready);
	free_event(&net->rx_resume);
	free_event(&net->tx_resume);
	free_event(&net->front_timer);
	return true;
}

static void net_close(struct virtio_device *device)
{
	struct net *net = net_of(device);

	virtio_device_release(device);
	if (net->backend)
		net->backend->ops->close(net->backend);
	free(net->tap);
	free(net);
}

static const struct virtio_ops ops = {
	.attach = net_attach,
	.activate = net_activate,
	.reset = net_reset,
	.notified = net_notified,
	.detach = net_detach,
	.close = net_close,
	.counters = net_metric_table,
};

static int open_backend(struct net *net, const struct net_config *config, struct err *err)
{
	const struct net *replaced = config->replaces;

	if (!config->tap)
		return net_passt_open(&net->backend, config->id, config->passt_socket,
				      config->passt_fd, err);
	net->tap = strdup(config->tap);
	if (!net->tap)
		return err_sys(err, ENOMEM, "%s", net->name);
	/* The tap takes one user, so its descriptor is shared until the old interface is closed. */
	if (replaced && replaced->tap && strcmp(replaced->tap, config->tap) == 0)
		return net_tap_share(&net->backend, config->id, replaced->backend, err);
	return net_tap_open(&net->backend, config->id, config->tap, err);
}

static void configure(struct net *net, const struct net_config *config)
{
	struct virtio_device *device = &net->device;

	device->features = net->backend->features | BIT(VIRTIO_NET_F_MRG_RXBUF);
	if (config->mac) {
		device->features |= BIT(VIRTIO_NET_F_MAC);
		memcpy(net->config.mac, config->mac, NET_MAC_SIZE);
	}
	if (config->mtu) {
		device->features |= BIT(VIRTIO_NET_F_MTU);
		net->config.mtu = config->mtu;
	}
	device->counters = &net->metrics;
	device->config = &net->config;
	device->config_size = offsetof(struct virtio_net_config, speed);
	rate_limiter_init(&net->rx_limiter, &config->rx_limiter, clock_ns());
	rate_limiter_init(&net->tx_limiter, &config->tx_limiter, clock_ns());
}

int net_open(struct net **net, const struct net_config *config, struct err *err)
{
	const uint16_t sizes[] = { QUEUE_SIZE, QUEUE_SIZE };
	struct net *opened = calloc(1, sizeof(*opened));
	int rc;

	*net = NULL;
	if (!opened)
		return err_sys(err, ENOMEM, "network interface %s", config->id);
	snprintf(opened->name, sizeof(opened->name), "network interface %s", config->id);
	rc = virtio_device_open(&opened->device, &ops, VIRTIO_ID_NET, opened->name, sizes, 2, err);
	/* Last: a descriptor that was inherited for it is closed with it. */
	if (rc == 0)
		rc = open_backend(opened, config, err);
	if (rc < 0) {
		net_close(&opened->device);
		return rc;
	}
	opened->front = opened->backend;
	configure(opened, config);
	opened->tx_writable = true;
	*net = opened;
	return 0;
}

struct net_backend *net_backend(struct net *net)
{
	return net->backend;
}

void net_set_front(struct net *net, struct net_backend *front)
{
	net->front = front ? front : net->backend;
}

void net_pause(struct net *net, bool paused)
{
	pthread_mutex_lock(&net->device.lock);
	net->paused = paused;
	pthread_mutex_unlock(&net->device.lock);
	if (!paused && net->rx_resume)
		resume_soon(net->rx_resume);
}

void net_set_limiters(struct net *net, const struct rate_limiter_config *rx,
		      const struct rate_limiter_config *tx)
{
	pthread_mutex_lock(&net->device.lock);
	if (rx)
		rate_limiter_init(&net->rx_limiter, rx, clock_ns());
	if (tx)
		rate_limiter_init(&net->tx_limiter, tx, clock_ns());
	pthread_mutex_unlock(&net->device.lock);
	/* Whoever waits for the old limits looks at the new ones now. */
	if (net->rx_resume)
		resume_soon(net->rx_resume);
	if (net->tx_resume)
		resume_soon(net->tx_resume);
}

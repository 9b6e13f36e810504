/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/net/net.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/state.h"
#include "virtio/net/internal.h"

#define QUEUE_SIZE 256
#define MTU_MIN 68 /* 5.1.4.1 */
#define BIT(n) (UINT64_C(1) << (n))

struct virtio_device *net_device(struct net *net)
{
	return &net->device;
}

struct net *net_of(struct virtio_device *device)
{
	return (struct net *)device;
}

static void net_notified(struct virtio_device *device, unsigned int queue)
{
	struct net *net = net_of(device);

	if (queue == NET_RX_QUEUE) {
		net->metrics.rx_queue_event_count++;
		net_serve_rx(net);
	} else {
		net->metrics.tx_queue_event_count++;
		net_serve_tx(net);
	}
}

static int net_activate(struct virtio_device *device)
{
	struct net *net = net_of(device);
	int rc = net->front->ops->set_offloads(net->front, device->driver_features);

	if (rc < 0) {
		metric_add(&net->metrics.activate_fails, 1);
		net_log_lost(net, "offloads", -rc);
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

static bool net_freeze(struct virtio_device *device, int64_t until_ns)
{
	struct net *net = net_of(device);

	(void)until_ns;
	if (!device->active)
		return true;
	net_rx_buffers_give_back(&net->rx);
	if (net->tx_pending.iov)
		virtq_unpop(&device->queues[NET_TX_QUEUE], 1);
	net->tx_pending.iov = NULL;
	return true;
}

/* A frame that was read from the host and waits for buffers is one that the network loses. */
static void net_save(const struct virtio_device *device, struct state_writer *out)
{
	const struct net *net = (const struct net *)device;
	const int64_t now = clock_ns();

	state_put_bytes(out, net->config.mac, sizeof(net->config.mac));
	state_put_u16(out, net->config.mtu);
	rate_limiter_save(&net->rx_limiter, out, now);
	rate_limiter_save(&net->tx_limiter, out, now);
}

static int net_restore(struct virtio_device *device, struct state_reader *in, uint32_t version,
		       struct err *err)
{
	struct net *net = net_of(device);
	struct virtio_net_config config = net->config;
	struct rate_limiter rx, tx;
	const int64_t now = clock_ns();
	int rc;

	(void)version;
	state_get_bytes(in, config.mac, sizeof(config.mac));
	config.mtu = state_get_u16(in);
	if (rate_limiter_restore(&rx, in, now) < 0 || rate_limiter_restore(&tx, in, now) < 0)
		return err_set(err, EINVAL, "%s: saved rate limiter that cannot be", net->name);
	rc = virtio_device_read_all(device, in, err);
	if (rc < 0)
		return rc;
	if ((device->features & BIT(VIRTIO_NET_F_MTU)) && config.mtu < MTU_MIN)
		return err_set(err, EINVAL, "%s: saved MTU %u", net->name, config.mtu);
	rc = device->active ? net->front->ops->set_offloads(net->front, device->driver_features)
			    : 0;
	if (rc < 0)
		return err_sys(err, -rc, "%s: offloads", net->name);
	net_rx_buffers_reset(&net->rx, virtio_has_feature(device, VIRTIO_NET_F_MRG_RXBUF));
	net->config = config;
	net->rx_limiter = rx;
	net->tx_limiter = tx;
	return 0;
}

static bool runs(const struct net *net, enum net_queue queue)
{
	return virtio_device_runs(&net->device) && net->device.queues[queue].ready;
}

static void on_ready(evutil_socket_t fd, short events, void *opaque)
{
	struct net *net = opaque;

	(void)fd;
	pthread_mutex_lock(&net->device.lock);
	if (events & EV_READ) {
		net->metrics.rx_tap_event_count++;
		net->rx_readable = true;
		if (runs(net, NET_RX_QUEUE))
			net_serve_rx(net);
	}
	if (events & EV_WRITE) {
		net->tx_writable =
			!net->front->ops->flush || net->front->ops->flush(net->front) == 0;
		if (runs(net, NET_TX_QUEUE))
			net_serve_tx(net);
	}
	pthread_mutex_unlock(&net->device.lock);
}

static void on_rx_resume(evutil_socket_t fd, short events, void *opaque)
{
	struct net *net = opaque;

	(void)fd;
	(void)events;
	pthread_mutex_lock(&net->device.lock);
	if (runs(net, NET_RX_QUEUE)) {
		net->metrics.rx_event_rate_limiter_count++;
		net_serve_rx(net);
	}
	pthread_mutex_unlock(&net->device.lock);
}

static void on_front_timer(evutil_socket_t fd, short events, void *opaque)
{
	struct net *net = opaque;

	(void)fd;
	(void)events;
	pthread_mutex_lock(&net->device.lock);
	if (runs(net, NET_RX_QUEUE))
		net_serve_rx(net);
	pthread_mutex_unlock(&net->device.lock);
}

static void on_tx_resume(evutil_socket_t fd, short events, void *opaque)
{
	struct net *net = opaque;

	(void)fd;
	(void)events;
	pthread_mutex_lock(&net->device.lock);
	if (runs(net, NET_TX_QUEUE)) {
		net->metrics.tx_rate_limiter_event_count++;
		net_serve_tx(net);
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
	.freeze = net_freeze,
	.state_version = 1,
	.save = net_save,
	.restore = net_restore,
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
	const uint16_t sizes[NET_QUEUES] = { QUEUE_SIZE, QUEUE_SIZE };
	struct net *opened = calloc(1, sizeof(*opened));
	int rc;

	*net = NULL;
	if (!opened)
		return err_sys(err, ENOMEM, "network interface %s", config->id);
	snprintf(opened->name, sizeof(opened->name), "network interface %s", config->id);
	rc = virtio_device_open(&opened->device, &ops, VIRTIO_ID_NET, opened->name, sizes,
				NET_QUEUES, err);
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
		net_resume_soon(net->rx_resume);
	if (net->tx_resume)
		net_resume_soon(net->tx_resume);
}

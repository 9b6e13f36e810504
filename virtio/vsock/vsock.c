/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/vsock/vsock.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "virtio/vsock/connection.h"
#include "virtio/vsock/internal.h"

#define QUEUE_SIZE 256

/* In one turn of the event loop. */
#define TURN_PACKETS 256
#define TURN_BYTES (1u << 20)
#define TURN_CLIENTS 32

static const struct timeval at_once;
static const struct timeval accept_retry = { .tv_sec = 1 };

const struct metric vsock_metric_table[] = {
	METRIC(vsock_metrics, activate_fails),
	METRIC(vsock_metrics, rx_queue_event_count),
	METRIC(vsock_metrics, tx_queue_event_count),
	METRIC(vsock_metrics, rx_packets_count),
	METRIC(vsock_metrics, tx_packets_count),
	METRIC(vsock_metrics, rx_bytes_count),
	METRIC(vsock_metrics, tx_bytes_count),
	METRIC(vsock_metrics, conns_added),
	METRIC(vsock_metrics, conns_killed),
	METRIC(vsock_metrics, conns_removed),
	METRIC(vsock_metrics, tx_write_fails),
	METRIC(vsock_metrics, rx_read_fails),
	METRIC_NEVER("cfg_fails"),
	METRIC_NEVER("rx_queue_event_fails"),
	METRIC_NEVER("tx_queue_event_fails"),
	METRIC_NEVER("ev_queue_event_fails"),
	METRIC_NEVER("muxer_event_fails"),
	METRIC_NEVER("conn_event_fails"),
	METRIC_NEVER("killq_resync"),
	METRIC_NEVER("tx_flush_fails"),
	METRIC_OWN(vsock_metrics, invalid_packets_count),
	METRIC_OWN(vsock_metrics, rsts_dropped_count),
	{ NULL },
};

struct virtio_device *vsock_device(struct vsock *vsock)
{
	return &vsock->device;
}

struct vsock *vsock_of(struct virtio_device *device)
{
	return (struct vsock *)((char *)device - offsetof(struct vsock, device));
}

static struct vsock *vsock_of_table(struct vsock_table *table)
{
	return (struct vsock *)((char *)table - offsetof(struct vsock, table));
}

/* Ends all connections; the guest that had them does not hear of it. */
static void forget_all(struct vsock *vsock)
{
	const struct vsock_connection *connection;

	vsock->metrics.rsts_dropped_count += vsock->rx.reset_count;
	TAILQ_FOREACH(connection, &vsock->table.all, all)
	vsock->metrics.rsts_dropped_count += connection->state == VSOCK_RESETTING;
	vsock_table_remove_all(&vsock->table);
	vsock_rx_clear(&vsock->rx);
	vsock->tx_waits = false;
	vsock->stale = false;
}

/* Clients wait in the backlog while the guest has no driver or too many of them say nothing. */
static void update_listening(struct vsock *vsock)
{
	bool wanted = vsock->device.active && vsock->transport_reset == VSOCK_EVENT_NONE &&
		      !vsock->accept_fails && vsock->table.handshakes < VSOCK_HANDSHAKES_MAX;

	if (wanted == vsock->listening)
		return;
	vsock->listening = wanted;
	if (wanted)
		event_add(vsock->listen_event, NULL);
	else
		event_del(vsock->listen_event);
}

/* The end of every turn of work: the device may have failed in it. */
static void finish(struct vsock *vsock)
{
	if (!vsock->device.active)
		forget_all(vsock);
	update_listening(vsock);
}

/*
 * Takes the lock. False if the device was stopped or reset in between: a connection that the caller
 * knows may be gone.
 */
static bool enter(struct vsock *vsock)
{
	bool usable;

	pthread_mutex_lock(&vsock->device.lock);
	usable = vsock->device.active && !vsock->stale;
	if (!usable)
		forget_all(vsock);
	return usable;
}

static void leave(struct vsock *vsock)
{
	finish(vsock);
	pthread_mutex_unlock(&vsock->device.lock);
}

/* Not event_active: what activates itself keeps the loop from looking at anything else. */
static void continue_later(struct vsock *vsock)
{
	evtimer_add(vsock->work_event, &at_once);
}

static bool is_for_us(const struct vsock *vsock, const struct vsock_header *header)
{
	return header->type == VIRTIO_VSOCK_TYPE_STREAM &&
	       header->src_cid == vsock->table.guest_cid && header->dst_cid == VSOCK_HOST_CID;
}

/* The number of bytes of its payload. */
static uint32_t receive_packet(struct vsock *vsock, const struct virtq_chain *chain)
{
	struct vsock_header header;
	unsigned int count;

	vsock->metrics.tx_packets_count++;
	if (chain->out_len < VSOCK_HEADER_SIZE) {
		vsock->metrics.invalid_packets_count++;
		return 0;
	}
	vsock_header_read(&header, chain->iov);
	if (header.len > VSOCK_PAYLOAD_MAX || header.len > chain->out_len - VSOCK_HEADER_SIZE) {
		vsock->metrics.invalid_packets_count++;
		return 0;
	}
	count = vsock_slice(chain->iov, chain->iov, chain->out_count, VSOCK_HEADER_SIZE,
			    header.len);
	if (is_for_us(vsock, &header)) {
		if (!vsock_connection_receive(&vsock->table, &header, chain->iov, count))
			vsock_rx_reset(&vsock->rx, &header);
	} else {
		vsock->metrics.invalid_packets_count++;
		if (header.op != VIRTIO_VSOCK_OP_RST)
			vsock_rx_reset(&vsock->rx, &header);
	}
	return header.len;
}

struct turn {
	unsigned int packets; /* and looks for some */
	uint32_t bytes;
};

/* Until there is none, or enough for one turn: 0 or 1; -EPROTO if the device has failed. */
static int pop_packets(struct vsock *vsock, struct virtq *queue, struct turn *turn)
{
	struct iovec iov[VIRTQ_SIZE_MAX];
	struct virtq_chain chain;
	int rc;

	while (turn->packets < TURN_PACKETS && turn->bytes < TURN_BYTES) {
		if (!vsock_rx_has_room_for_reset(&vsock->rx)) {
			vsock->tx_waits = true;
			return 1;
		}
		rc = virtq_pop(queue, &chain, iov, VIRTQ_SIZE_MAX);
		if (rc == 0)
			return 0;
		if (rc < 0) {
			virtio_device_fail(&vsock->device, "tx queue: %s", virtq_error(queue));
			return rc;
		}
		turn->bytes += receive_packet(vsock, &chain);
		turn->packets++;
		virtq_push(queue, chain.head, 0);
	}
	return 1;
}

static void serve_tx(struct vsock *vsock)
{
	struct virtq *queue = &vsock->device.queues[VSOCK_TX_QUEUE];
	struct turn turn = { 0 };
	int rc;

	if (!virtio_device_runs(&vsock->device))
		return;
	vsock->tx_waits = false;
	do {
		virtq_disable_notify(queue);
		rc = pop_packets(vsock, queue, &turn);
		/* Where rings lie on each other there may seem to be more for ever. */
		turn.packets++;
	} while (rc == 0 && virtq_enable_notify(queue));
	if (rc < 0)
		return;
	virtio_device_publish(&vsock->device, queue);
	if (rc > 0 && !vsock->tx_waits)
		continue_later(vsock);
}

static void serve_rx(struct vsock *vsock)
{
	if (!virtio_device_runs(&vsock->device) || vsock->transport_reset != VSOCK_EVENT_NONE)
		return;
	if (vsock_rx_serve(&vsock->rx))
		continue_later(vsock);
	if (vsock->tx_waits && vsock_rx_has_room_for_reset(&vsock->rx))
		continue_later(vsock);
}

/* When all sockets that have events now have been heard: in turns, with one interrupt. */
static void serve_rx_soon(struct vsock *vsock)
{
	if (!TAILQ_EMPTY(&vsock->table.waiting))
		event_active(vsock->serve_event, EV_TIMEOUT, 0);
}

static void notified(struct virtio_device *device, unsigned int queue)
{
	struct vsock *vsock = vsock_of(device);

	if (!vsock->base)
		return;
	if (vsock->stale)
		forget_all(vsock);
	vsock_serve_event(vsock);
	if (queue == VSOCK_TX_QUEUE) {
		vsock->metrics.tx_queue_event_count++;
		serve_tx(vsock);
	} else if (queue == VSOCK_RX_QUEUE) {
		vsock->metrics.rx_queue_event_count++;
	}
	serve_rx(vsock);
	finish(vsock);
}

static int activate(struct virtio_device *device)
{
	struct vsock *vsock = vsock_of(device);

	if (!device->queues[VSOCK_RX_QUEUE].ready || !device->queues[VSOCK_TX_QUEUE].ready) {
		metric_add(&vsock->metrics.activate_fails, 1);
		virtio_device_fail(device, "DRIVER_OK without a receive and a transmit queue");
		return -EINVAL;
	}
	fd_signal(vsock->wake_fd);
	return 0;
}

/* The main thread does the rest before anything else. */
static bool reset(struct virtio_device *device)
{
	struct vsock *vsock = vsock_of(device);

	vsock->stale = true;
	vsock->transport_reset = VSOCK_EVENT_NONE;
	fd_signal(vsock->wake_fd);
	return true;
}

/* What sockets have waits in them; what the guest has sent still goes out. */
static bool freeze(struct virtio_device *device, int64_t until_ns)
{
	struct vsock *vsock = vsock_of(device);

	(void)until_ns;
	/* The buffers may be of the queue of before. */
	if (vsock->stale)
		forget_all(vsock);
	if (device->active)
		vsock_rx_give_back(&vsock->rx);
	return true;
}

static void on_wake(evutil_socket_t fd, short events, void *opaque)
{
	struct vsock *vsock = opaque;

	(void)events;
	fd_unsignal(fd);
	enter(vsock);
	leave(vsock);
}

static void on_work(evutil_socket_t fd, short events, void *opaque)
{
	struct vsock *vsock = opaque;

	(void)fd;
	(void)events;
	if (enter(vsock)) {
		serve_tx(vsock);
		serve_rx(vsock);
	}
	leave(vsock);
}

static void on_serve(evutil_socket_t fd, short events, void *opaque)
{
	struct vsock *vsock = opaque;

	(void)fd;
	(void)events;
	if (enter(vsock))
		serve_rx(vsock);
	leave(vsock);
}

static void on_timer(evutil_socket_t fd, short events, void *opaque)
{
	struct vsock *vsock = opaque;
	struct vsock_connection *connection;

	(void)fd;
	(void)events;
	if (enter(vsock)) {
		while ((connection = vsock_table_expired(&vsock->table)))
			vsock_connection_expire(connection);
		serve_rx(vsock);
	}
	leave(vsock);
}

static void on_readable(evutil_socket_t fd, short events, void *opaque)
{
	struct vsock_connection *connection = opaque;
	struct vsock *vsock = vsock_of_table(connection->table);

	(void)fd;
	(void)events;
	if (enter(vsock)) {
		vsock_connection_readable(connection);
		serve_rx_soon(vsock);
	}
	leave(vsock);
}

static void on_writable(evutil_socket_t fd, short events, void *opaque)
{
	struct vsock_connection *connection = opaque;
	struct vsock *vsock = vsock_of_table(connection->table);

	(void)fd;
	(void)events;
	if (enter(vsock)) {
		vsock_connection_writable(connection);
		serve_rx_soon(vsock);
	}
	leave(vsock);
}

/* False if there is none, or none to be had now. */
static bool accept_client(struct vsock *vsock)
{
	CLEANUP_FD int fd = accept4(vsock->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
		/* It stays in the backlog, for which the event would come again at once. */
		vsock->accept_fails = true;
		evtimer_add(vsock->accept_event, &accept_retry);
	}
	if (fd < 0)
		return false;
	if (vsock_connection_accept(&vsock->table, fd))
		fd_take(&fd);
	return true;
}

static void on_listen(evutil_socket_t fd, short events, void *opaque)
{
	struct vsock *vsock = opaque;

	(void)fd;
	(void)events;
	if (enter(vsock)) {
		for (unsigned int i = 0;
		     i < TURN_CLIENTS && vsock->table.handshakes < VSOCK_HANDSHAKES_MAX; i++) {
			if (!accept_client(vsock))
				break;
		}
	}
	leave(vsock);
}

static void on_accept_retry(evutil_socket_t fd, short events, void *opaque)
{
	struct vsock *vsock = opaque;

	(void)fd;
	(void)events;
	enter(vsock);
	vsock->accept_fails = false;
	leave(vsock);
}

static int attach(struct virtio_device *device, const struct virtio_host *host, struct err *err)
{
	struct vsock *vsock = vsock_of(device);
	struct event_base *base = host->base;

	vsock->base = base;
	vsock->table.base = base;
	vsock->wake_event = event_new(base, vsock->wake_fd, EV_READ | EV_PERSIST, on_wake, vsock);
	vsock->listen_event =
		event_new(base, vsock->listener.fd, EV_READ | EV_PERSIST, on_listen, vsock);
	vsock->work_event = evtimer_new(base, on_work, vsock);
	vsock->serve_event = evtimer_new(base, on_serve, vsock);
	vsock->accept_event = evtimer_new(base, on_accept_retry, vsock);
	vsock->table.timer = evtimer_new(base, on_timer, vsock);
	if (!vsock->wake_event || !vsock->listen_event || !vsock->work_event ||
	    !vsock->serve_event || !vsock->accept_event || !vsock->table.timer ||
	    event_add(vsock->wake_event, NULL) < 0)
		return err_sys(err, ENOMEM, "vsock: events");
	return 0;
}

static void free_event(struct event **event)
{
	if (*event)
		event_free(*event);
	*event = NULL;
}

/* Every connection is closed. */
static bool detach(struct virtio_device *device, int64_t until_ns)
{
	struct vsock *vsock = vsock_of(device);

	(void)until_ns;
	if (!vsock->base)
		return true;
	pthread_mutex_lock(&device->lock);
	forget_all(vsock);
	vsock->listening = false;
	vsock->base = NULL;
	pthread_mutex_unlock(&device->lock);
	free_event(&vsock->wake_event);
	free_event(&vsock->listen_event);
	free_event(&vsock->work_event);
	free_event(&vsock->serve_event);
	free_event(&vsock->accept_event);
	free_event(&vsock->table.timer);
	return true;
}

static void close_vsock(struct virtio_device *device)
{
	struct vsock *vsock = vsock_of(device);

	vsock_listener_close(&vsock->listener);
	virtio_device_release(device);
	fd_close(&vsock->wake_fd);
	free(vsock);
}

static const struct virtio_ops ops = {
	.attach = attach,
	.activate = activate,
	.reset = reset,
	.notified = notified,
	.freeze = freeze,
	.state_version = 1,
	.save = vsock_save,
	.restore = vsock_restore,
	.detach = detach,
	.close = close_vsock,
	.counters = vsock_metric_table,
};

int vsock_open(struct vsock **opened, const struct vsock_config *config, struct err *err)
{
	static const uint16_t sizes[VSOCK_QUEUES] = { QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE };
	struct vsock *vsock;
	int rc;

	*opened = NULL;
	if (config->guest_cid < VSOCK_GUEST_CID_MIN || config->guest_cid > VSOCK_GUEST_CID_MAX)
		return err_set(err, EINVAL,
			       "vsock: guest CID %" PRIu64 " is not between %d and %" PRIu32,
			       config->guest_cid, VSOCK_GUEST_CID_MIN, VSOCK_GUEST_CID_MAX);
	vsock = calloc(1, sizeof(*vsock));
	if (!vsock)
		return err_sys(err, ENOMEM, "vsock");
	vsock->wake_fd = -1;
	rc = virtio_device_open(&vsock->device, &ops, VIRTIO_ID_VSOCK, "vsock", sizes, VSOCK_QUEUES,
				err);
	if (rc == 0) {
		vsock->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (vsock->wake_fd < 0)
			rc = err_sys(err, errno, "vsock: eventfd");
	}
	/* Last: from here on the one that is replaced may be without its socket. */
	if (rc == 0)
		rc = vsock_listener_open(&vsock->listener, config->uds_path,
					 config->replaces ? &config->replaces->listener : NULL,
					 err);
	if (rc < 0) {
		close_vsock(&vsock->device);
		return rc;
	}
	vsock->config.guest_cid = htole64(config->guest_cid);
	vsock->device.counters = &vsock->metrics;
	vsock->device.config = &vsock->config;
	vsock->device.config_size = sizeof(vsock->config);
	vsock_table_init(&vsock->table);
	vsock->table.guest_cid = config->guest_cid;
	vsock->table.uds_path = vsock->listener.path;
	vsock->table.metrics = &vsock->metrics;
	vsock->table.on_readable = on_readable;
	vsock->table.on_writable = on_writable;
	vsock->rx.device = &vsock->device;
	vsock->rx.queue = &vsock->device.queues[VSOCK_RX_QUEUE];
	vsock->rx.table = &vsock->table;
	vsock->rx.metrics = &vsock->metrics;
	*opened = vsock;
	return 0;
}

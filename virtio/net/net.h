/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio network device (virtio 1.2, 5.1): one pair of queues, on a tap device of the host or on
 * a passt process, which needs no privilege.
 */
#ifndef MOTE_VIRTIO_NET_NET_H
#define MOTE_VIRTIO_NET_NET_H

#include <event2/event.h>
#include <stdint.h>

#include "base/metrics.h"
#include "base/rate_limiter.h"
#include "virtio/core/device.h"

struct err;
struct net;
struct net_backend;

#define NET_MAC_SIZE 6

struct net_config {
	const char *id;		  /* names it in the log */
	const char *tap;	  /* the tap device's name, or NULL */
	const char *passt_socket; /* else: the path of passt's stream socket, or */
	int passt_fd;		  /* an inherited socket to passt, taken over on success; -1 none */
	const uint8_t *mac;	  /* NET_MAC_SIZE bytes; NULL: the driver makes one up */
	uint16_t mtu;		  /* 68 to 65535; 0: not told to the driver */
	struct rate_limiter_config rx_limiter; /* to the guest */
	struct rate_limiter_config tx_limiter; /* from the guest */
	/* An interface that the new one replaces: if both are on one tap, it is not opened again.
	 */
	const struct net *replaces;
};

struct net_metrics {
	uint64_t activate_fails;
	uint64_t cfg_fails;
	uint64_t no_rx_avail_buffer;
	uint64_t no_tx_avail_buffer;
	uint64_t rx_queue_event_count;
	uint64_t rx_event_rate_limiter_count;
	uint64_t rx_rate_limiter_throttled;
	uint64_t rx_tap_event_count;
	uint64_t rx_bytes_count;
	uint64_t rx_packets_count;
	uint64_t rx_fails;
	uint64_t tap_read_fails;
	uint64_t tap_write_fails;
	uint64_t tx_bytes_count;
	uint64_t tx_packets_count;
	uint64_t tx_fails;
	uint64_t tx_malformed_frames;
	uint64_t tx_queue_event_count;
	uint64_t tx_rate_limiter_event_count;
	uint64_t tx_rate_limiter_throttled;
	uint64_t tx_spoofed_mac_count;
};

extern const struct metric net_metric_table[];

/*
 * Opens the tap device, which must exist (creating one would need more privilege than using one),
 * or connects to passt. The configuration's strings are copied. The device is freed by
 * virtio_device_close.
 * 0 or -errno with err set; on failure *net is NULL.
 */
int net_open(struct net **net, const struct net_config *config, struct err *err);
struct virtio_device *net_device(struct net *net);
/* Of a virtio_device that is one. */
struct net *net_of(struct virtio_device *device);

/*
 * What the interface is on; and what it uses instead, such as something before it that takes some
 * frames itself. The latter is not owned, and NULL is the interface's own again. Main thread, while
 * it is not attached.
 */
struct net_backend *net_backend(struct net *net);
void net_set_front(struct net *net, struct net_backend *front);

/* New limits, buckets full; NULL leaves one as it is. Main thread. */
void net_set_limiters(struct net *net, const struct rate_limiter_config *rx,
		      const struct rate_limiter_config *tx);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* What a socket device counts. */
#ifndef MOTE_VIRTIO_VSOCK_METRICS_H
#define MOTE_VIRTIO_VSOCK_METRICS_H

#include <stdint.h>

#include "base/metrics.h"

struct vsock_metrics {
	uint64_t activate_fails;
	uint64_t rx_queue_event_count;
	uint64_t tx_queue_event_count;
	uint64_t rx_packets_count; /* to the guest */
	uint64_t tx_packets_count; /* from the guest */
	uint64_t rx_bytes_count;
	uint64_t tx_bytes_count;
	uint64_t conns_added;
	uint64_t conns_killed; /* by time-out or reset */
	uint64_t conns_removed;
	uint64_t tx_write_fails;
	uint64_t rx_read_fails;
	uint64_t invalid_packets_count;
	uint64_t rsts_dropped_count; /* replies that found no room */
};

extern const struct metric vsock_metric_table[];

#endif

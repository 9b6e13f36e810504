/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/net/net.h"

#define NET_METRIC(member) METRIC(net_metrics, member)
const struct metric net_metric_table[] = {
	NET_METRIC(activate_fails),
	NET_METRIC(cfg_fails),
	NET_METRIC(no_rx_avail_buffer),
	NET_METRIC(no_tx_avail_buffer),
	METRIC_NEVER("event_fails"),
	NET_METRIC(rx_queue_event_count),
	NET_METRIC(rx_event_rate_limiter_count),
	NET_METRIC(rx_rate_limiter_throttled),
	NET_METRIC(rx_tap_event_count),
	NET_METRIC(rx_bytes_count),
	NET_METRIC(rx_packets_count),
	METRIC_AS(net_metrics, "rx_count", rx_packets_count),
	NET_METRIC(rx_fails),
	NET_METRIC(tap_read_fails),
	NET_METRIC(tap_write_fails),
	NET_METRIC(tx_bytes_count),
	NET_METRIC(tx_packets_count),
	METRIC_AS(net_metrics, "tx_count", tx_packets_count),
	NET_METRIC(tx_fails),
	NET_METRIC(tx_malformed_frames),
	NET_METRIC(tx_queue_event_count),
	NET_METRIC(tx_rate_limiter_event_count),
	NET_METRIC(tx_rate_limiter_throttled),
	NET_METRIC(tx_spoofed_mac_count),
	METRIC_NEVER("tx_remaining_reqs_count"),
	METRIC_NEVER_TIMED("tap_write_agg"),
	{ NULL },
};

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata service of one VM, Firecracker's MMDS: a JSON document of the owner's, which the
 * guest reads over HTTP at a link-local address of its own network interface. Main thread.
 */
#ifndef MOTE_MMDS_MMDS_H
#define MOTE_MMDS_MMDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/metrics.h"

struct err;
struct mmds;

#define MMDS_SIZE_LIMIT 51200 /* of the document as compact JSON, by default; bytes */
#define MMDS_ADDRESS "169.254.169.254"

enum mmds_version {
	MMDS_V1, /* answers whoever asks */
	MMDS_V2, /* only who has fetched a token before */
};

struct mmds_metrics {
	uint64_t rx_accepted; /* frames for the service's address */
	uint64_t rx_accepted_err;
	uint64_t rx_accepted_unusual;
	uint64_t rx_bad_eth;
	uint64_t rx_count;
	uint64_t rx_invalid_token;
	uint64_t rx_no_token;
	uint64_t tx_bytes;
	uint64_t tx_count;
	uint64_t tx_errors;
	uint64_t tx_frames;
	uint64_t tx_resets; /* mote's own */
	uint64_t connections_created;
	uint64_t connections_destroyed;
};

extern const struct metric mmds_metric_table[];

/* 0 or -errno with err set. mmds_close takes NULL, too. */
int mmds_open(struct mmds **mmds, size_t size_limit, struct err *err);
void mmds_close(struct mmds *mmds);

/* With imds_compat answers have EC2's format, whatever the client accepts. */
void mmds_configure(struct mmds *mmds, enum mmds_version version, bool imds_compat);

const struct mmds_metrics *mmds_metrics(const struct mmds *mmds);

/*
 * The address of its text, in network byte order. False if it is not one that RFC 3927 (2.1) leaves
 * to hosts: 169.254.1.0 to 169.254.254.255.
 */
bool mmds_address_parse(const char *text, uint32_t *address);

#endif

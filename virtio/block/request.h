/* SPDX-License-Identifier: Apache-2.0 */
/* From a chain of descriptors to an I/O, and back to a status (virtio 1.2, 5.2.6). */
#ifndef MOTE_VIRTIO_BLOCK_REQUEST_H
#define MOTE_VIRTIO_BLOCK_REQUEST_H

#include <linux/virtio_blk.h>
#include <stdint.h>
#include <sys/uio.h>

#include "virtio/block/io.h"
#include "virtio/core/queue.h"

struct block_file;

#define BLOCK_ID_SIZE 20
/* Limits of one discard or write-zeroes range, in the configuration space. */
#define BLOCK_RANGE_SECTORS_MAX (UINT32_C(1) << 21)
/* The same for block devices, some of which write each zero. */
#define BLOCK_DEVICE_RANGE_SECTORS_MAX (UINT32_C(1) << 17)

/* A part of a request: what the device reads, or what it writes. */
struct block_part {
	struct iovec *iov;
	unsigned int count;
	uint64_t len;
};

struct block_request {
	struct block_io io;
	bool submitted; /* to an engine */
	uint16_t head;
	uint32_t type; /* from the header, of which this is the only copy */
	uint64_t sector;
	struct block_part out; /* data to the device, the header taken off */
	struct block_part in;  /* data from the device, the status taken off */
	uint8_t *status;       /* in guest memory; NULL the request has no place for it */
	/* bytes to be moved, or of the ranges; what a rate limiter counts */
	uint64_t data_len;
	/* The only copy of a discard's or write-zeroes request's; not checked yet. */
	struct virtio_blk_discard_write_zeroes ranges[BLOCK_RANGES_MAX];
	unsigned int range_count;
};

/*
 * Takes the framing apart, which is the driver's to choose (2.7.4): the header is the first 16
 * bytes of what the device reads, the status the last one of what it writes. The chain's iovecs
 * become the request's and are changed. 0, or -EINVAL if a part is missing; status is set if there
 * is one.
 */
int block_request_parse(struct block_request *request, const struct virtq_chain *chain);

/*
 * Checks the request against the file and the negotiated features, and fills in its I/O.
 * VIRTIO_BLK_S_OK, or the status to answer; GET_ID has no I/O.
 */
uint8_t block_request_check(struct block_request *request, struct block_file *file,
			    uint64_t features);

/* Copies between a buffer and the first len bytes of a part, which has them. */
void block_part_read(const struct block_part *part, void *data, uint64_t len);
void block_part_write(const struct block_part *part, const void *data, uint64_t len);

uint32_t block_range_sectors_max(const struct block_file *file);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* A block device's driver (virtio 1.2, 5.2): one request at a time. */
#ifndef MOTE_TESTS_GUESTS_BLOCK_H
#define MOTE_TESTS_GUESTS_BLOCK_H

#include <linux/virtio_blk.h>

#include "virtio.h"

#define SECTOR_SIZE 512
#define BLOCK_NO_ANSWER 0x100

struct block {
	struct virtio virtio;
	struct virtio_blk_outhdr *header;
	volatile uint8_t *status;
	volatile struct vring_desc *table; /* for the request, if INDIRECT_DESC is negotiated */
	uint32_t used_len;		   /* of the last request */
};

/* The nth block device, not started. */
bool block_find(struct block *block, unsigned int nth);
bool block_start(struct block *block, uint64_t features, uint16_t size);

/* Puts a request into the queue: its head. The header is written before. */
uint16_t block_add(struct block *block, void *data, uint32_t len, bool writable);
/* A request from header to answer: its status, or BLOCK_NO_ANSWER. */
unsigned int block_request(struct block *block, uint32_t type, uint64_t sector, void *data,
			   uint32_t len, bool writable);
uint64_t block_capacity(const struct block *block);

#endif

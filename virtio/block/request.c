/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/block/request.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "virtio/block/file.h"

_Static_assert(sizeof(struct virtio_blk_outhdr) == 16, "virtio 1.2, 5.2.6");
_Static_assert(sizeof(struct virtio_blk_discard_write_zeroes) == 16, "virtio 1.2, 5.2.6");

void block_part_read(const struct block_part *part, void *data, uint64_t len)
{
	uint8_t *to = data;

	for (const struct iovec *iov = part->iov; len > 0; iov++) {
		size_t n = iov->iov_len < len ? iov->iov_len : len;

		memcpy(to, iov->iov_base, n);
		to += n;
		len -= n;
	}
	/* The guest may change it all now, and the compiler must not look again. */
	__asm__ volatile("" ::: "memory");
}

void block_part_write(const struct block_part *part, const void *data, uint64_t len)
{
	const uint8_t *from = data;

	for (const struct iovec *iov = part->iov; len > 0; iov++) {
		size_t n = iov->iov_len < len ? iov->iov_len : len;

		memcpy(iov->iov_base, from, n);
		from += n;
		len -= n;
	}
}

static void drop_front(struct block_part *part, size_t len)
{
	part->len -= len;
	while (part->count > 0 && len >= part->iov->iov_len) {
		len -= part->iov->iov_len;
		part->iov++;
		part->count--;
	}
	if (len > 0) {
		part->iov->iov_base = (uint8_t *)part->iov->iov_base + len;
		part->iov->iov_len -= len;
	}
}

static uint8_t *take_last_byte(struct block_part *part)
{
	struct iovec *last = &part->iov[part->count - 1];

	part->len--;
	if (--last->iov_len == 0)
		part->count--;
	return (uint8_t *)last->iov_base + last->iov_len;
}

static bool has_ranges(uint32_t type)
{
	return type == VIRTIO_BLK_T_DISCARD || type == VIRTIO_BLK_T_WRITE_ZEROES;
}

/* Copies the ranges, none if there are too many or half a one. The bytes that they are of. */
static uint64_t read_ranges(struct block_request *request)
{
	const uint64_t count = request->out.len / sizeof(request->ranges[0]);
	uint64_t sectors = 0;

	if (request->out.len % sizeof(request->ranges[0]) || count > BLOCK_RANGES_MAX)
		return 0;
	block_part_read(&request->out, request->ranges, request->out.len);
	request->range_count = (unsigned int)count;
	for (unsigned int i = 0; i < request->range_count; i++)
		sectors += le32toh(request->ranges[i].num_sectors);
	return sectors * BLOCK_SECTOR_SIZE;
}

int block_request_parse(struct block_request *request, const struct virtq_chain *chain)
{
	struct virtio_blk_outhdr header;

	request->head = chain->head;
	request->out = (struct block_part){ chain->iov, chain->out_count, chain->out_len };
	request->in = (struct block_part){ chain->iov + chain->out_count, chain->in_count,
					   chain->in_len };
	request->status = NULL;
	request->data_len = 0;
	request->range_count = 0;
	if (request->in.len == 0)
		return -EINVAL;
	request->status = take_last_byte(&request->in);
	if (request->out.len < sizeof(header))
		return -EINVAL;
	block_part_read(&request->out, &header, sizeof(header));
	drop_front(&request->out, sizeof(header));
	request->type = le32toh(header.type);
	request->sector = le64toh(header.sector);
	if (request->type == VIRTIO_BLK_T_IN)
		request->data_len = request->in.len;
	else if (request->type == VIRTIO_BLK_T_OUT)
		request->data_len = request->out.len;
	else if (has_ranges(request->type))
		request->data_len = read_ranges(request);
	return 0;
}

static bool within(const struct block_file *file, uint64_t sector, uint64_t sectors)
{
	return sector <= file->sectors && sectors <= file->sectors - sector;
}

static uint8_t check_transfer(struct block_request *request, const struct block_part *part)
{
	struct block_io *io = &request->io;

	if (part->len == 0 || part->len % BLOCK_SECTOR_SIZE ||
	    !within(io->file, request->sector, part->len / BLOCK_SECTOR_SIZE))
		return VIRTIO_BLK_S_IOERR;
	io->iov = part->iov;
	io->iov_count = part->count;
	io->offset = request->sector * BLOCK_SECTOR_SIZE;
	io->len = part->len;
	return VIRTIO_BLK_S_OK;
}

uint32_t block_range_sectors_max(const struct block_file *file)
{
	return file->block_device ? BLOCK_DEVICE_RANGE_SECTORS_MAX : BLOCK_RANGE_SECTORS_MAX;
}

/* 5.2.6.2: flags that are not known are UNSUPP, and so is UNMAP in a discard. */
static uint8_t check_ranges(struct block_request *request)
{
	struct block_io *io = &request->io;
	const uint32_t flags_known =
		io->kind == BLOCK_IO_WRITE_ZEROES ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
	const struct virtio_blk_discard_write_zeroes *from = request->ranges;

	if (request->range_count == 0)
		return VIRTIO_BLK_S_IOERR;
	for (unsigned int i = 0; i < request->range_count; i++) {
		const uint64_t sector = le64toh(from[i].sector);
		const uint32_t sectors = le32toh(from[i].num_sectors);
		const uint32_t flags = le32toh(from[i].flags);

		if (flags & ~flags_known)
			return VIRTIO_BLK_S_UNSUPP;
		if (sectors == 0 || sectors > block_range_sectors_max(io->file) ||
		    !within(io->file, sector, sectors))
			return VIRTIO_BLK_S_IOERR;
		io->ranges[io->range_count++] = (struct block_range){
			.offset = sector * BLOCK_SECTOR_SIZE,
			.len = sectors * BLOCK_SECTOR_SIZE,
			.unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
		};
	}
	return VIRTIO_BLK_S_OK;
}

uint8_t block_request_check(struct block_request *request, struct block_file *file,
			    uint64_t features)
{
	struct block_io *io = &request->io;

	io->file = file;
	io->range = 0;
	io->range_count = 0;
	switch (request->type) {
	case VIRTIO_BLK_T_IN:
		io->kind = BLOCK_IO_READ;
		return check_transfer(request, &request->in);
	case VIRTIO_BLK_T_OUT:
		io->kind = BLOCK_IO_WRITE;
		return file->read_only ? VIRTIO_BLK_S_IOERR
				       : check_transfer(request, &request->out);
	case VIRTIO_BLK_T_FLUSH:
		io->kind = BLOCK_IO_SYNC;
		return VIRTIO_BLK_S_OK;
	case VIRTIO_BLK_T_GET_ID:
		return request->in.len < BLOCK_ID_SIZE ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK;
	case VIRTIO_BLK_T_DISCARD:
		io->kind = BLOCK_IO_DISCARD;
		if (!(features >> VIRTIO_BLK_F_DISCARD & 1) || !file->discard)
			return VIRTIO_BLK_S_UNSUPP;
		return check_ranges(request);
	case VIRTIO_BLK_T_WRITE_ZEROES:
		io->kind = BLOCK_IO_WRITE_ZEROES;
		if (!(features >> VIRTIO_BLK_F_WRITE_ZEROES & 1) || !file->write_zeroes)
			return VIRTIO_BLK_S_UNSUPP;
		return check_ranges(request);
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
}

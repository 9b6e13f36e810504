/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is a request: what the disk can do, the lengths of the chain's descriptors, what is in
 * them, and how much each transfer of the host moves. Descriptors overlap where their lengths say
 * so. Whatever the request is, what is done for it stays within its descriptors and the disk.
 */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/input.h"
#include "virtio/block/file.h"
#include "virtio/block/request.h"

#define GUEST_SIZE 65536u
#define DISK_SECTORS 64u
#define DISK_SIZE (DISK_SECTORS * 512u)
#define DESCRIPTORS_MAX VIRTQ_SIZE_MAX

static uint8_t guest[GUEST_SIZE];
static uint8_t disk[DISK_SIZE];

static void make_chain(struct input *input, struct virtq_chain *chain)
{
	unsigned int out = take(input), in = take(input) % 32;

	out %= 32;
	for (unsigned int i = 0; i < out + in; i++) {
		size_t len = take_u16(input) % 8192u + 1u;
		size_t at = take_u16(input) % (GUEST_SIZE - len);

		chain->iov[i] = (struct iovec){ guest + at, len };
		if (i < out) {
			chain->out_count++;
			chain->out_len += (uint32_t)len;
		} else {
			chain->in_count++;
			chain->in_len += (uint32_t)len;
		}
	}
}

/* The header and ranges at the front, so that the fuzzer finds requests that pass. */
static void fill_chain(struct input *input, const struct virtq_chain *chain)
{
	for (unsigned int i = 0; i < chain->out_count && input->size > 0; i++) {
		size_t n =
			chain->iov[i].iov_len < input->size ? chain->iov[i].iov_len : input->size;

		memcpy(chain->iov[i].iov_base, input->data, n);
		input->data += n;
		input->size -= n;
	}
}

static int64_t transfer(const struct block_step *step, size_t limit)
{
	uint64_t len = 0;

	for (unsigned int i = 0; i < step->iov_count; i++) {
		const struct iovec *iov = &step->iov[i];
		uint8_t *at = iov->iov_base;

		REQUIRE(at >= guest && iov->iov_len <= GUEST_SIZE &&
			at + iov->iov_len <= guest + GUEST_SIZE);
		REQUIRE(step->offset <= DISK_SIZE &&
			iov->iov_len + len <= DISK_SIZE - step->offset);
		if (len + iov->iov_len <= limit) {
			if (step->kind == BLOCK_STEP_READ)
				memcpy(at, disk + step->offset + len, iov->iov_len);
			else
				memcpy(disk + step->offset + len, at, iov->iov_len);
		}
		len += iov->iov_len;
	}
	REQUIRE(len == step->len);
	return (int64_t)(len < limit ? len : limit);
}

static int64_t do_step(const struct block_step *step, struct input *results)
{
	uint8_t result = take(results);

	switch (step->kind) {
	case BLOCK_STEP_READ:
	case BLOCK_STEP_WRITE:
		if (result == 0xff)
			return -EIO;
		if (result == 0xfe)
			return -EINTR;
		return transfer(step, (size_t)result % 64 == 0 ? SIZE_MAX : (size_t)result * 37);
	case BLOCK_STEP_FALLOCATE:
	case BLOCK_STEP_DISCARD:
		REQUIRE(step->len > 0 && step->offset <= DISK_SIZE &&
			step->len <= DISK_SIZE - step->offset);
		return result % 4 == 3 ? -EOPNOTSUPP : 0;
	default:
		return 0;
	}
}

static void execute(struct block_request *request, struct input *results)
{
	struct block_step step;
	uint64_t moved = 0;
	int rc;

	do {
		int64_t result;

		block_io_next(&request->io, &step);
		result = do_step(&step, results);
		if (result > 0)
			moved += (uint64_t)result;
		else if (result == 0 &&
			 (step.kind == BLOCK_STEP_FALLOCATE || step.kind == BLOCK_STEP_DISCARD))
			moved += step.len;
		REQUIRE(moved <= request->data_len);
		rc = block_io_advance(&request->io, result);
		/* An input that never gets on ends here. */
		if (rc > 0 && results->size == 0 && result <= 0 && step.kind <= BLOCK_STEP_WRITE)
			return;
	} while (rc > 0);
	if (rc == 0)
		REQUIRE(moved == request->data_len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct block_request request;
	struct iovec iov[DESCRIPTORS_MAX];
	struct virtq_chain chain = { .iov = iov };
	struct input input = { data, size }, results = { data, size };
	uint8_t flags = take(&input);
	struct block_file file = {
		.fd = -1,
		.lock_fd = -1,
		.sectors = DISK_SECTORS,
		.read_only = flags & 1,
		.block_device = flags & 2,
		.discard = (flags & 5) == 4,
		.write_zeroes = (flags & 9) == 8,
	};
	uint8_t status;

	make_chain(&input, &chain);
	memset(guest, 0, sizeof(guest));
	fill_chain(&input, &chain);
	if (block_request_parse(&request, &chain) < 0) {
		REQUIRE(chain.in_len == 0 || request.status);
		return 0;
	}
	REQUIRE(request.status >= guest && request.status < guest + GUEST_SIZE);
	REQUIRE(request.out.len + 16 == chain.out_len && request.in.len + 1 == chain.in_len);
	status = block_request_check(&request, &file, flags & 16 ? UINT64_MAX : 0);
	REQUIRE(status == VIRTIO_BLK_S_OK || status == VIRTIO_BLK_S_IOERR ||
		status == VIRTIO_BLK_S_UNSUPP);
	if (status != VIRTIO_BLK_S_OK)
		return 0;
	if (request.type == VIRTIO_BLK_T_GET_ID) {
		block_part_write(&request.in, disk, BLOCK_ID_SIZE);
		return 0;
	}
	REQUIRE(!file.read_only || request.type == VIRTIO_BLK_T_IN ||
		request.type == VIRTIO_BLK_T_FLUSH);
	request.io.durable = flags & 32;
	execute(&request, &results);
	return 0;
}

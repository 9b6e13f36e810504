/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that break the rules of virtio 1.2, 5.2.6: each is answered, and the ring goes on. */
#include "cpus.h"
#include "hostile.h"

#define CAPACITY 2048 /* sectors, as the host's test has it */
#define LAST_SECTOR (CAPACITY - 1)
#define FLICKERS 200

static uint8_t *data; /* 64 KiB */
static struct block *const block = &hostile_block;
static struct block read_only;
static struct virtq *queue;
static unsigned int cpus;

void hostile_set_up(const void *zero_page)
{
	data = guest_alloc(65536);
	queue = &block->virtio.queues[0];
	cpus = guest_number(zero_page, "cpus", 1);
}

static void start(void)
{
	hostile_expect("it starts", hostile_target->start(0));
}

static unsigned int request(uint32_t type, uint64_t sector, uint32_t len, bool writable)
{
	return block_request(block, type, sector, data, len, writable);
}

/* A chain as it is; the length that is used of it, or -1 if it does not come back. */
static int64_t raw_request(const struct virtq_buffer *buffers, unsigned int count)
{
	struct vring_used_elem element;
	uint16_t head = virtq_chain(queue, buffers, count);

	*block->status = 0xff;
	virtq_make_available(queue, head);
	virtio_kick(&block->virtio, 0);
	if (!virtq_wait_used(queue, &element) || element.id != head)
		return -1;
	return element.len;
}

static void set_header(uint32_t type, uint64_t sector)
{
	*block->header = (struct virtio_blk_outhdr){ .type = type, .sector = sector };
}

static void header_short(void)
{
	const struct virtq_buffer buffers[] = { { block->header, 15, false },
						{ data, SECTOR_SIZE, true },
						{ block->status, 1, true } };

	start();
	set_header(VIRTIO_BLK_T_IN, 0);
	hostile_expect("answered", raw_request(buffers, 3) == 1);
	hostile_expect("failed", *block->status == VIRTIO_BLK_S_IOERR);
}

static void header_writable(void)
{
	const struct virtq_buffer buffers[] = { { block->header, 16, true },
						{ data, SECTOR_SIZE, true },
						{ block->status, 1, true } };

	start();
	hostile_expect("answered", raw_request(buffers, 3) == 1);
	hostile_expect("failed", *block->status == VIRTIO_BLK_S_IOERR);
}

/* Its framing is the driver's to choose (2.7.4.1): that is no fault. */
static void header_in_bytes(void)
{
	struct virtq_buffer buffers[16];

	start();
	set_header(VIRTIO_BLK_T_IN, 1);
	for (unsigned int i = 0; i < 14; i++)
		buffers[i] = (struct virtq_buffer){ (uint8_t *)block->header + i, 1, false };
	buffers[14] = (struct virtq_buffer){ (uint8_t *)block->header + 14, 2, false };
	buffers[15] = (struct virtq_buffer){ data, SECTOR_SIZE + 1, true };
	hostile_expect("answered", raw_request(buffers, 16) == SECTOR_SIZE + 1);
	hostile_expect("served", data[SECTOR_SIZE] == VIRTIO_BLK_S_OK);
	hostile_expect("read", memcmp(data, "sector 1", 8) == 0);
}

static void status_missing(void)
{
	const struct virtq_buffer write[] = { { block->header, 16, false },
					      { data, SECTOR_SIZE, false } };

	start();
	set_header(VIRTIO_BLK_T_OUT, 0);
	hostile_expect("a write is given back", raw_request(write, 2) == 0);
	hostile_expect("a header alone is given back", raw_request(write, 1) == 0);
}

static void status_alone(void)
{
	const struct virtq_buffer buffers[] = { { block->status, 1, true } };

	start();
	hostile_expect("answered", raw_request(buffers, 1) == 1);
	hostile_expect("failed", *block->status == VIRTIO_BLK_S_IOERR);
}

static void sector_beyond(void)
{
	static const uint64_t sectors[] = { CAPACITY,	     CAPACITY + 1, UINT64_C(1) << 55,
					    UINT64_MAX >> 9, INT64_MAX,	   UINT64_MAX };

	start();
	for (unsigned int i = 0; i < sizeof(sectors) / sizeof(sectors[0]); i++) {
		hostile_expect("read", request(VIRTIO_BLK_T_IN, sectors[i], SECTOR_SIZE, true) ==
					       VIRTIO_BLK_S_IOERR);
		hostile_expect("write", request(VIRTIO_BLK_T_OUT, sectors[i], SECTOR_SIZE, false) ==
						VIRTIO_BLK_S_IOERR);
	}
	hostile_expect("across the end", request(VIRTIO_BLK_T_OUT, LAST_SECTOR, 2 * SECTOR_SIZE,
						 false) == VIRTIO_BLK_S_IOERR);
	hostile_expect("the last one",
		       request(VIRTIO_BLK_T_IN, LAST_SECTOR, SECTOR_SIZE, true) == VIRTIO_BLK_S_OK);
}

static void odd_lengths(void)
{
	static const uint32_t lengths[] = { 1, 511, 513, 1000, 65535 };

	start();
	for (unsigned int i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		hostile_expect("read",
			       request(VIRTIO_BLK_T_IN, 0, lengths[i], true) == VIRTIO_BLK_S_IOERR);
		hostile_expect("write", request(VIRTIO_BLK_T_OUT, 0, lengths[i], false) ==
						VIRTIO_BLK_S_IOERR);
	}
	hostile_expect("read of nothing",
		       request(VIRTIO_BLK_T_IN, 0, 0, true) == VIRTIO_BLK_S_IOERR);
	hostile_expect("write of nothing",
		       request(VIRTIO_BLK_T_OUT, 0, 0, false) == VIRTIO_BLK_S_IOERR);
}

/* A read whose data is the device's to read, and the other way round. */
static void wrong_direction(void)
{
	start();
	hostile_expect("read",
		       request(VIRTIO_BLK_T_IN, 0, SECTOR_SIZE, false) == VIRTIO_BLK_S_IOERR);
	hostile_expect("write",
		       request(VIRTIO_BLK_T_OUT, 0, SECTOR_SIZE, true) == VIRTIO_BLK_S_IOERR);
}

static void unknown_types(void)
{
	static const uint32_t types[] = { 2, 3, 5, 9, 10, 12, 14, 0x100, 0x80000000, UINT32_MAX };

	start();
	for (unsigned int i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		hostile_expect("unsupported",
			       request(types[i], 0, SECTOR_SIZE, true) == VIRTIO_BLK_S_UNSUPP);
}

static void identification_short(void)
{
	start();
	hostile_expect("no room at all",
		       request(VIRTIO_BLK_T_GET_ID, 0, 0, true) == VIRTIO_BLK_S_IOERR);
	hostile_expect("too little",
		       request(VIRTIO_BLK_T_GET_ID, 0, 19, true) == VIRTIO_BLK_S_IOERR);
	hostile_expect("more than enough",
		       request(VIRTIO_BLK_T_GET_ID, 0, 4096, true) == VIRTIO_BLK_S_OK);
}

/* The second drive; the host's test sees that its file is as it was. */
static void write_read_only(void)
{
	start();
	if (!read_only.header)
		hostile_expect("a second drive", block_find(&read_only, 1));
	hostile_expect("it starts", block_start(&read_only, UINT64_MAX, 16));
	hostile_expect("it says so", read_only.virtio.features & BIT(VIRTIO_BLK_F_RO));
	memset(data, 'x', SECTOR_SIZE);
	hostile_expect("write", block_request(&read_only, VIRTIO_BLK_T_OUT, 0, data, SECTOR_SIZE,
					      false) == VIRTIO_BLK_S_IOERR);
	for (uint32_t type = VIRTIO_BLK_T_DISCARD; type <= VIRTIO_BLK_T_WRITE_ZEROES; type += 2) {
		const struct virtio_blk_discard_write_zeroes range = { .num_sectors = 8 };
		unsigned int status;

		memcpy(data, &range, sizeof(range));
		status = block_request(&read_only, type, 0, data, sizeof(range), false);
		hostile_expect("discard",
			       status == VIRTIO_BLK_S_IOERR || status == VIRTIO_BLK_S_UNSUPP);
	}
	hostile_expect("read", block_request(&read_only, VIRTIO_BLK_T_IN, 0, data, SECTOR_SIZE,
					     true) == VIRTIO_BLK_S_OK &&
				       data[0] != 'x');
}

static unsigned int discard(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags,
			    uint32_t len)
{
	struct virtio_blk_discard_write_zeroes *range =
		(struct virtio_blk_discard_write_zeroes *)data;

	for (unsigned int i = 0; i < len / sizeof(*range) + 1; i++)
		range[i] = (struct virtio_blk_discard_write_zeroes){ sector, sectors, flags };
	return request(type, 0, len, false);
}

static void discard_ranges(void)
{
	static const uint32_t types[] = { VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES };

	start();
	for (unsigned int i = 0; i < 2; i++) {
		const uint32_t type = types[i];

		hostile_expect("beyond", discard(type, CAPACITY, 1, 0, 16) == VIRTIO_BLK_S_IOERR);
		hostile_expect("across the end",
			       discard(type, LAST_SECTOR, 2, 0, 16) == VIRTIO_BLK_S_IOERR);
		hostile_expect("overflow",
			       discard(type, UINT64_MAX, 2, 0, 16) == VIRTIO_BLK_S_IOERR);
		hostile_expect("nothing", discard(type, 0, 0, 0, 16) == VIRTIO_BLK_S_IOERR);
		hostile_expect("all", discard(type, 0, UINT32_MAX, 0, 16) == VIRTIO_BLK_S_IOERR);
		hostile_expect("flags",
			       discard(type, 512, 1, 0xfffffffe, 16) == VIRTIO_BLK_S_UNSUPP);
		hostile_expect("no range", discard(type, 512, 1, 0, 0) == VIRTIO_BLK_S_IOERR);
		hostile_expect("part of one", discard(type, 512, 1, 0, 15) == VIRTIO_BLK_S_IOERR);
		hostile_expect("one and a half",
			       discard(type, 512, 1, 0, 24) == VIRTIO_BLK_S_IOERR);
		hostile_expect("too many", discard(type, 512, 1, 0, 17 * 16) == VIRTIO_BLK_S_IOERR);
		hostile_expect("one range often",
			       discard(type, 512, 8, 0, 16 * 16) == VIRTIO_BLK_S_OK);
	}
	hostile_expect("unmap in a discard",
		       discard(VIRTIO_BLK_T_DISCARD, 512, 1, 1, 16) == VIRTIO_BLK_S_UNSUPP);
}

/* Types whose feature was declined. */
static void discard_not_negotiated(void)
{
	hostile_expect("it starts", block_start(block, 0, 16));
	hostile_expect("discard",
		       discard(VIRTIO_BLK_T_DISCARD, 512, 1, 0, 16) == VIRTIO_BLK_S_UNSUPP);
	hostile_expect("write zeroes",
		       discard(VIRTIO_BLK_T_WRITE_ZEROES, 512, 1, 0, 16) == VIRTIO_BLK_S_UNSUPP);
}

/* What is read lands in the rings themselves. */
static void read_into(volatile void *place)
{
	const struct virtq_buffer buffers[] = { { block->header, 16, false },
						{ place, SECTOR_SIZE, true },
						{ block->status, 1, true } };

	start();
	set_header(VIRTIO_BLK_T_IN, 1);
	virtq_make_available(queue, virtq_chain(queue, buffers, 3));
	for (unsigned int i = 0; i < 10; i++)
		virtio_notify(&block->virtio, 0);
}

static void read_into_descriptors(void)
{
	read_into(queue->desc);
}

static void read_into_available(void)
{
	read_into(queue->avail);
}

static void read_into_used(void)
{
	read_into(queue->used);
}

static void status_is_used_index(void)
{
	const struct virtq_buffer buffers[] = { { block->header, 16, false },
						{ data, SECTOR_SIZE, true },
						{ &queue->used->idx, 1, true } };

	start();
	set_header(VIRTIO_BLK_T_IN, 1);
	virtq_make_available(queue, virtq_chain(queue, buffers, 3));
	virtio_notify(&block->virtio, 0);
}

/* Another processor changes the header for as long as the device works on it. */
/* Odd: the other processor changes what the device reads. */
static volatile unsigned int phase, phase_seen;

static void begin_flickering(void)
{
	phase++;
}

/* The other processor may be in the middle of a change: what comes behind must not see it. */
static void end_flickering(void)
{
	phase++;
	while (cpus > 1 && phase_seen != phase)
		__asm__ volatile("pause");
}

/* On the other processor: whether it is to make a change now. */
static bool flickers(void)
{
	unsigned int now = phase;

	if (now % 2)
		return true;
	phase_seen = now;
	__asm__ volatile("pause");
	return false;
}

static void flicker(unsigned int index)
{
	volatile struct virtio_blk_outhdr *header = block->header;
	uint32_t i = 0;

	(void)index;
	for (;;) {
		if (!flickers())
			continue;
		header->type = i % 2 ? VIRTIO_BLK_T_IN : UINT32_MAX;
		header->sector = i % 3 ? 1 : UINT64_MAX >> (i % 64);
		i++;
	}
}

static void header_changes(void)
{
	static bool running;

	if (!running && cpus > 1)
		cpus_start(cpus - 1, flicker);
	running = true;
	start();
	begin_flickering();
	for (unsigned int i = 0; i < FLICKERS; i++) {
		unsigned int status = request(VIRTIO_BLK_T_IN, 1, SECTOR_SIZE, true);

		hostile_expect("an answer", status <= VIRTIO_BLK_S_UNSUPP);
	}
	end_flickering();
}

/* Another processor changes the descriptors and the index while the device takes them. */
static void flicker_ring(unsigned int index)
{
	uint32_t i = 0;

	(void)index;
	for (;;) {
		if (!flickers())
			continue;
		queue->desc[i % 16].len = i * 0x10001;
		queue->desc[i % 16].flags = (uint16_t)(i & 7);
		queue->desc[i % 16].addr = (uint64_t)data + (i % 7 == 0 ? UINT64_C(1) << 40 : 0);
		queue->avail->ring[i % 16] = (uint16_t)(i % 17);
		i++;
	}
}

static void ring_changes(void)
{
	static bool running;

	if (!running && cpus > 1)
		cpus_start(cpus - 1, flicker_ring);
	running = true;
	for (unsigned int i = 0; i < 10; i++) {
		start();
		begin_flickering();
		for (unsigned int j = 0; j < 10; j++) {
			queue->avail->idx = (uint16_t)(queue->used->idx + 8);
			virtio_notify(&block->virtio, 0);
		}
		end_flickering();
	}
}

const struct hostile_case hostile_cases[] = {
	{ "header-short", RUNS_ON, header_short },
	{ "header-writable", RUNS_ON, header_writable },
	{ "header-in-bytes", RUNS_ON, header_in_bytes },
	{ "status-missing", RUNS_ON, status_missing },
	{ "status-alone", RUNS_ON, status_alone },
	{ "sector-beyond", RUNS_ON, sector_beyond },
	{ "odd-lengths", RUNS_ON, odd_lengths },
	{ "wrong-direction", RUNS_ON, wrong_direction },
	{ "unknown-types", RUNS_ON, unknown_types },
	{ "identification-short", RUNS_ON, identification_short },
	{ "write-read-only", RUNS_ON, write_read_only },
	{ "discard-ranges", RUNS_ON, discard_ranges },
	{ "discard-not-negotiated", RUNS_ON, discard_not_negotiated },
	{ "read-into-descriptors", EITHER, read_into_descriptors },
	{ "read-into-available", EITHER, read_into_available },
	{ "read-into-used", EITHER, read_into_used },
	{ "status-is-used-index", EITHER, status_is_used_index },
	{ "header-changes", RUNS_ON, header_changes },
	{ "ring-changes", EITHER, ring_changes },
	{ NULL },
};

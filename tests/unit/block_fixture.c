/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/block_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_mmio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"

struct driver driver;
struct block *block;
struct block_config block_config;
struct held_engine held;

void create_image(const char *name, unsigned int sectors)
{
	size_t size = (size_t)sectors * SECTOR;
	uint8_t *data = malloc(size + 1);

	fill_pattern(data, size);
	write_file(name, data, size);
	free(data);
}

void block_set_up(enum block_engine_kind engine)
{
	memset(&block_config, 0, sizeof(block_config));
	memset(&held, 0, sizeof(held));
	block_config.id = "rootfs";
	block_config.path = IMAGE;
	block_config.engine = engine;
	create_image(IMAGE, IMAGE_SECTORS);
	driver_open(&driver);
}

void open_block(void)
{
	struct err err;

	ck_assert_msg(block_open(&block, &block_config, &err) == 0, "%s", err.text);
	driver_attach(&driver, block_device(block));
	driver_start(&driver, ALL_FEATURES, 0);
}

void block_tear_down(void)
{
	if (block) {
		held.stuck = false;
		ck_assert(virtio_device_detach(block_device(block), 0));
		if (held.real)
			held.real->ops->close(held.real);
		virtio_device_close(block_device(block));
	}
	block = NULL;
	driver_close(&driver);
	unlink(IMAGE);
}

uint8_t *guest(uint64_t addr, uint64_t len)
{
	return driver_memory(&driver, addr, len);
}

void put_header(uint64_t addr, uint32_t type, uint64_t sector)
{
	const struct virtio_blk_outhdr header = { .type = type, .sector = sector };

	memcpy(guest(addr, sizeof(header)), &header, sizeof(header));
}

uint8_t submit(const struct driver_buffer *buffers, unsigned int count, uint32_t *written)
{
	uint32_t used, len;
	uint16_t head;

	*guest(STATUS, 1) = NO_STATUS;
	head = driver_add(&driver, 0, buffers, count);
	driver_notify(&driver, 0);
	driver_wait_used(&driver, 0, &used, &len);
	ck_assert_uint_eq(used, head);
	if (written)
		*written = len;
	return *guest(STATUS, 1);
}

static unsigned int usual_framing(struct driver_buffer buffers[3], uint64_t header, uint64_t data,
				  uint32_t len, bool in, uint64_t status)
{
	unsigned int count = 0;

	buffers[count++] = (struct driver_buffer){ header, 16, false };
	if (len > 0)
		buffers[count++] = (struct driver_buffer){ data, len, in };
	buffers[count++] = (struct driver_buffer){ status, 1, true };
	return count;
}

static bool is_in(uint32_t type)
{
	return type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
}

uint8_t request(uint32_t type, uint64_t sector, uint32_t len, uint32_t *written)
{
	struct driver_buffer buffers[3];

	put_header(HEADER, type, sector);
	return submit(buffers, usual_framing(buffers, HEADER, DATA, len, is_in(type), STATUS),
		      written);
}

uint16_t add_request(uint64_t header, uint64_t data, uint32_t len, bool in, uint64_t status)
{
	struct driver_buffer buffers[3];

	return driver_add(&driver, 0, buffers,
			  usual_framing(buffers, header, data, len, in, status));
}

void put_range(unsigned int index, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	const struct virtio_blk_discard_write_zeroes range = { .sector = sector,
							       .num_sectors = sectors,
							       .flags = flags };

	memcpy(guest(RANGES + index * sizeof(range), sizeof(range)), &range, sizeof(range));
}

uint8_t request_ranges(uint32_t type, unsigned int count)
{
	struct driver_buffer buffers[3];

	put_header(HEADER, type, 0);
	return submit(
		buffers,
		usual_framing(buffers, HEADER, RANGES,
			      count * (uint32_t)sizeof(struct virtio_blk_discard_write_zeroes),
			      false, STATUS),
		NULL);
}

void image_read(void *data, size_t len, uint64_t offset)
{
	CLEANUP_FD int fd = open(IMAGE, O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fd_pread_exact(fd, data, len, offset), 0);
}

static bool held_has_room(const struct block_engine *engine)
{
	(void)engine;
	return held.count < HELD_MAX;
}

static void held_submit(struct block_engine *engine, struct block_io *io)
{
	engine->in_flight++;
	held.held[held.count++] = io;
}

static bool held_poll(struct block_engine *engine)
{
	(void)engine;
	while (held.lets_go && held.count > 0)
		held_done(0);
	return false;
}

static void held_cancel(struct block_engine *engine)
{
	(void)engine;
	while (!held.stuck && held.count > 0)
		held_done(-ECANCELED);
}

static void held_close(struct block_engine *engine)
{
	(void)engine;
}

static int held_set_file(struct block_engine *engine, int fd)
{
	(void)engine;
	held.file = fd;
	return 0;
}

void use_held_engine(void)
{
	static const struct block_engine_ops ops = {
		.has_room = held_has_room,
		.submit = held_submit,
		.poll = held_poll,
		.cancel = held_cancel,
		.set_file = held_set_file,
		.close = held_close,
	};

	/* What the real one's results go to. */
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	held.real = block->engine;
	held.engine = *held.real;
	held.engine.ops = &ops;
	block->engine = &held.engine;
}

void use_real_engine(void)
{
	block->engine = held.real;
	held.real = NULL;
}

void held_done(int result)
{
	struct block_io *io = held.held[0];

	held.count--;
	held.engine.in_flight--;
	memmove(held.held, held.held + 1, sizeof(held.held[0]) * held.count);
	held.engine.done(held.engine.opaque, io, result);
}

int open_fails(const char *path, const char *sentence)
{
	struct block *other = NULL;
	struct block_config config = block_config;
	struct err err;
	int rc;

	config.path = path;
	rc = block_open(&other, &config, &err);
	ck_assert_int_lt(rc, 0);
	ck_assert_ptr_null(other);
	ck_assert_str_eq(err.text, sentence);
	return rc;
}

uint64_t config_value(size_t offset, size_t size)
{
	uint64_t value = 0;

	for (size_t i = 0; i < size; i++) {
		uint8_t byte;

		virtio_mmio_ops.read(&driver.mmio, VIRTIO_MMIO_CONFIG + offset + i, &byte, 1);
		value |= (uint64_t)byte << (8 * i);
	}
	return value;
}

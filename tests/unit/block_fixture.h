/* SPDX-License-Identifier: Apache-2.0 */
/* A block device with a driver, and requests to it. One at a time, as a test is a process. */
#ifndef MOTE_TESTS_UNIT_BLOCK_FIXTURE_H
#define MOTE_TESTS_UNIT_BLOCK_FIXTURE_H

#include <linux/virtio_blk.h>

#include "tests/unit/driver.h"
#include "tests/unit/support.h"
#include "virtio/block/block.h"
#include "virtio/block/internal.h"

#define SECTOR 512u
#define SHARED "all that only read it can share it"
#define IMAGE "disk.img"
#define IMAGE_SECTORS 2048u

/* Where the requests are in guest memory. */
#define HEADER DRIVER_DATA
#define RANGES (DRIVER_DATA + 0x100)
#define STATUS (DRIVER_DATA + 0x800)
#define DATA (DRIVER_DATA + 0x10000)

#define NO_STATUS 0xee

#define ALL_FEATURES (~UINT64_C(0))
#define BLK_FEATURE(bit) (UINT64_C(1) << VIRTIO_BLK_F_##bit)

extern struct driver driver;
extern struct block *block;
extern struct block_config block_config;

/* Creates the image, with a pattern in it. */
void create_image(const char *name, unsigned int sectors);
/* Fills in the configuration; the tests change it before open_block. */
void block_set_up(enum block_engine_kind engine);
/* Opens, attaches and starts. */
void open_block(void);
void block_tear_down(void);

void put_header(uint64_t addr, uint32_t type, uint64_t sector);
uint8_t *guest(uint64_t addr, uint64_t len);
/* Submits a chain and waits for it. The status at STATUS; *written may be NULL. */
uint8_t submit(const struct driver_buffer *buffers, unsigned int count, uint32_t *written);
/* A request with its header at HEADER and `len` bytes at DATA, usual framing. */
uint8_t request(uint32_t type, uint64_t sector, uint32_t len, uint32_t *written);
/* The usual framing of one, without submitting it. Returns the head. */
uint16_t add_request(uint64_t header, uint64_t data, uint32_t len, bool in, uint64_t status);
void put_range(unsigned int index, uint64_t sector, uint32_t sectors, uint32_t flags);
uint8_t request_ranges(uint32_t type, unsigned int count);

/* That block_open() refuses the file, leaves no device, and says this; its -errno. */
int open_fails(const char *path, const char *sentence);
/* A field of the configuration space, as the driver reads it. */
uint64_t config_value(size_t offset, size_t size);
#define CONFIG(member)                                                                             \
	config_value(offsetof(struct virtio_blk_config, member),                                   \
		     sizeof(((struct virtio_blk_config *)NULL)->member))

/* len bytes of the image. */
void image_read(void *data, size_t len, uint64_t offset);

/* An engine that keeps what it is given until a test lets it go. */
#define HELD_MAX 512
struct held_engine {
	struct block_engine engine;
	struct block_io *held[HELD_MAX];
	unsigned int count;
	int file;		   /* the last that it was given */
	bool lets_go;		   /* at the next poll */
	bool stuck;		   /* as on a disk that does not answer: cancelling ends nothing */
	struct block_engine *real; /* whose place it has */
};
extern struct held_engine held;
/* To be called after open_block; and puts the device's own back. */
void use_held_engine(void);
void use_real_engine(void);
/* Ends the oldest one. */
void held_done(int result);

#endif

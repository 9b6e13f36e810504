/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks at what came from the host's files, when told to: 'k' and 'i' print a line of the next page
 * of the kernel and of the initrd, 'r' reads a sector of the drive and 'w' writes it, which print
 * the request's status. 'q' ends it.
 */
#include "block.h"

#define RAMDISK_IMAGE 0x218 /* in the zero page */
#define PAGE 4096
#define PAGES 4
#define LINE 16
#define SECTOR 8

/* Of the kernel's file: initialised, whole pages, and nothing that runs. */
static const char own[PAGES][PAGE] __attribute__((aligned(PAGE))) = {
	"kernel's page 0",
	"kernel's page 1",
	"kernel's page 2",
	"kernel's page 3",
};

static struct block block;

static void print_line(const volatile char *from)
{
	char line[LINE + 1] = "";

	for (int i = 0; i < LINE && from[i] != '\n'; i++)
		line[i] = from[i];
	guest_put(line);
	guest_put("\n");
}

static void print_status(uint32_t type, void *data, bool read)
{
	char digit[] = { (char)('0' + block_request(&block, type, SECTOR, data, SECTOR_SIZE, read)),
			 '\n', '\0' };

	guest_put(digit);
}

void guest_main(void *zero_page)
{
	const char *initrd =
		(const char *)(uint64_t) * (volatile uint32_t *)((char *)zero_page + RAMDISK_IMAGE);
	unsigned int kernel_page = 0, initrd_page = 0;
	void *data = guest_alloc(SECTOR_SIZE);

	if (block_find(&block, 0) && !block_start(&block, 0, 16))
		return;
	guest_put("ready\n");
	for (;;) {
		switch (guest_get()) {
		case 'k':
			print_line(own[kernel_page++ % PAGES]);
			break;
		case 'i':
			print_line(initrd + (initrd_page++ % PAGES) * PAGE);
			break;
		case 'r':
			print_status(VIRTIO_BLK_T_IN, data, true);
			break;
		case 'w':
			print_status(VIRTIO_BLK_T_OUT, data, false);
			break;
		case 'q':
			return;
		}
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The input is a kernel file: opened, and loaded into a small guest if it is accepted. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/guest_memory.h"
#include "tests/fuzz/fuzz.h"
#include "vmm/boot/kernel_image.h"
#include "vmm/boot/layout.h"

#define MEMORY_SIZE (UINT64_C(32) << 20)
#define SAMPLE 64

static int file = -1;
static char path[32];

static void write_input(const uint8_t *data, size_t size)
{
	if (file < 0) {
		file = memfd_create("kernel", MFD_CLOEXEC);
		REQUIRE(file >= 0);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	}
	REQUIRE(ftruncate(file, 0) == 0);
	REQUIRE(lseek(file, 0, SEEK_SET) == 0);
	REQUIRE(fd_write_all(file, data, size) == 0);
}

/* The ends of what came from the file, and the zeros behind. */
static void check_segment(const struct guest_memory *memory, const struct kernel_segment *segment,
			  const uint8_t *data)
{
	const uint8_t *at = guest_memory_range(memory, segment->addr, segment->memory_size);
	uint64_t size = segment->file_size;
	uint64_t zeros = segment->memory_size - size;

	REQUIRE(at);
	for (uint64_t i = 0; i < size && i < SAMPLE; i++) {
		REQUIRE(at[i] == data[segment->offset + i]);
		REQUIRE(at[size - 1 - i] == data[segment->offset + size - 1 - i]);
	}
	for (uint64_t i = 0; i < zeros && i < SAMPLE; i++)
		REQUIRE(at[size + i] == 0 && at[size + zeros - 1 - i] == 0);
}

static void check_image(const struct kernel_image *image, size_t size)
{
	bool entry_is_loaded = false;

	REQUIRE(image->segment_count >= 1 && image->segment_count <= KERNEL_IMAGE_SEGMENTS);
	for (unsigned int i = 0; i < image->segment_count; i++) {
		const struct kernel_segment *segment = &image->segments[i];

		REQUIRE(segment->offset + segment->file_size <= size);
		REQUIRE(segment->addr >= LAYOUT_HIGH_MEMORY);
		REQUIRE(segment->addr + segment->memory_size <= image->end);
		if (image->entry >= segment->addr &&
		    image->entry < segment->addr + segment->file_size)
			entry_is_loaded = true;
	}
	REQUIRE(entry_is_loaded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct guest_memory memory;
	struct kernel_image image;
	struct err err = { "" };

	write_input(data, size);
	if (kernel_image_open(&image, path, &err) < 0) {
		REQUIRE(strstr(err.text, path));
		return 0;
	}
	check_image(&image, size);
	REQUIRE(guest_memory_open(&memory, MEMORY_SIZE, LAYOUT_MMIO_GAP_START, LAYOUT_MMIO_GAP_END,
				  HUGE_PAGES_NONE, &err) == 0);
	if (kernel_image_load(&image, &memory, &err) == 0) {
		for (unsigned int i = 0; i < image.segment_count; i++)
			check_segment(&memory, &image.segments[i], data);
	}
	guest_memory_close(&memory);
	kernel_image_close(&image);
	return 0;
}

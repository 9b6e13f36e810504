/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/platform/boot_timer.h"

#include <string.h>

static void boot_timer_read(void *device, uint64_t offset, uint8_t *data, unsigned int len)
{
	(void)device;
	(void)offset;
	memset(data, 0, len);
}

static void boot_timer_write(void *device, uint64_t offset, const uint8_t *data, unsigned int len)
{
	struct boot_timer *timer = device;

	if (offset == 0 && len == 1 && data[0] == BOOT_TIMER_VALUE)
		timer->reached(timer->opaque);
}

const struct io_ops boot_timer_ops = { boot_timer_read, boot_timer_write };

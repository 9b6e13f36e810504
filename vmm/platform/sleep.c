/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/platform/sleep.h"

#include <string.h>

#define CONTROL 0
#define SLP_TYP_SHIFT 2
#define SLP_TYP_MASK 0x7
#define SLP_EN 0x20

static void sleep_read(void *device, uint64_t offset, uint8_t *data, unsigned int len)
{
	(void)device;
	(void)offset;
	memset(data, 0, len);
}

static void sleep_write(void *device, uint64_t offset, const uint8_t *data, unsigned int len)
{
	struct sleep_registers *sleep = device;
	uint8_t value = data[0];

	if (offset == CONTROL && len == 1 && (value & SLP_EN) &&
	    ((value >> SLP_TYP_SHIFT) & SLP_TYP_MASK) == SLEEP_TYPE_S5)
		sleep->power_off(sleep->opaque);
}

const struct io_ops sleep_registers_ops = { sleep_read, sleep_write };

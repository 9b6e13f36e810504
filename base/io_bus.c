/* SPDX-License-Identifier: Apache-2.0 */
#include "base/io_bus.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

int io_bus_add(struct io_bus *bus, uint64_t base, uint64_t size, const struct io_ops *ops,
	       void *device)
{
	if (size == 0 || base + (size - 1) < base)
		return -EINVAL;
	if (bus->count == IO_BUS_DEVICES)
		return -ENOSPC;
	for (unsigned int i = 0; i < bus->count; i++) {
		const struct io_range *range = &bus->ranges[i];

		if (base <= range->base + (range->size - 1) && range->base <= base + (size - 1))
			return -EEXIST;
	}
	bus->ranges[bus->count++] = (struct io_range){ base, size, ops, device };
	return 0;
}

static const struct io_range *find(const struct io_bus *bus, uint64_t addr, unsigned int len)
{
	for (unsigned int i = 0; i < bus->count; i++) {
		const struct io_range *range = &bus->ranges[i];

		if (addr >= range->base && addr - range->base < range->size &&
		    len <= range->size - (addr - range->base))
			return range;
	}
	return NULL;
}

bool io_bus_read(const struct io_bus *bus, uint64_t addr, uint8_t *data, unsigned int len)
{
	const struct io_range *range = find(bus, addr, len);

	memset(data, 0xff, len);
	if (!range)
		return false;
	range->ops->read(range->device, addr - range->base, data, len);
	return true;
}

bool io_bus_write(const struct io_bus *bus, uint64_t addr, const uint8_t *data, unsigned int len)
{
	const struct io_range *range = find(bus, addr, len);

	if (!range)
		return false;
	range->ops->write(range->device, addr - range->base, data, len);
	return true;
}

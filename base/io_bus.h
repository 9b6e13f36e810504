/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An address space of devices: I/O ports or memory-mapped registers. Filled while the VM is being
 * configured, read-only once vCPUs run, so that look-ups take no lock. Accesses come from vCPU
 * threads, several at once; a device locks itself.
 */
#ifndef MOTE_BASE_IO_BUS_H
#define MOTE_BASE_IO_BUS_H

#include <stdbool.h>
#include <stdint.h>

#define IO_BUS_DEVICES 40

/*
 * offset is from the device's base; len is 1 to 8 (KVM splits an access that crosses pages into odd
 * sizes) and the access lies inside the device.
 */
struct io_ops {
	void (*read)(void *device, uint64_t offset, uint8_t *data, unsigned int len);
	void (*write)(void *device, uint64_t offset, const uint8_t *data, unsigned int len);
};

struct io_range {
	uint64_t base;
	uint64_t size;
	const struct io_ops *ops;
	void *device; /* not owned */
};

struct io_bus {
	struct io_range ranges[IO_BUS_DEVICES];
	unsigned int count;
};

/* 0, -EINVAL for an empty or overflowing range, -EEXIST for an overlap, -ENOSPC. */
int io_bus_add(struct io_bus *bus, uint64_t base, uint64_t size, const struct io_ops *ops,
	       void *device);

/* False if no device claims the whole access: reads then give all ones, writes go nowhere. */
bool io_bus_read(const struct io_bus *bus, uint64_t addr, uint8_t *data, unsigned int len);
bool io_bus_write(const struct io_bus *bus, uint64_t addr, const uint8_t *data, unsigned int len);

#endif

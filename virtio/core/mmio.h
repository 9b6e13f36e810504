/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio over MMIO, version 2 (virtio 1.2, 4.2): the registers of one device as a device on the
 * MMIO bus. QueueNotify reaches the device through ioeventfds, not through here.
 */
#ifndef MOTE_VIRTIO_CORE_MMIO_H
#define MOTE_VIRTIO_CORE_MMIO_H

#include <stdint.h>

#include "base/io_bus.h"

struct err;
struct state_reader;
struct state_writer;
struct virtio_device;

#define VIRTIO_MMIO_SIZE UINT64_C(4096)

struct virtio_mmio {
	struct virtio_device *device; /* not owned; its lock guards what follows, too */
	uint8_t *page;		      /* what the driver reads without an exit; NULL none */
	uint32_t features_select;
	uint32_t driver_features_select;
	uint32_t queue_select;
};

/*
 * Shows the registers and the configuration space in a page of VIRTIO_MMIO_SIZE bytes, which the
 * guest can read but not write, and keeps it up to date until virtio_mmio_hide(). The interrupt
 * handler's read of InterruptStatus is then no exit. Before the vCPUs run; behind their end.
 */
void virtio_mmio_show(struct virtio_mmio *mmio, void *page);
void virtio_mmio_hide(struct virtio_mmio *mmio);

/* One section: the registers and, as virtio_device_save() and _restore() say, the device. */
void virtio_mmio_save(const struct virtio_mmio *mmio, struct state_writer *out);
int virtio_mmio_restore(struct virtio_mmio *mmio, struct state_reader *in, struct err *err);

extern const struct io_ops virtio_mmio_ops; /* of a struct virtio_mmio */

#endif

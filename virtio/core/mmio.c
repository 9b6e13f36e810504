/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/core/mmio.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "base/array.h"
#include "base/log.h"
#include "virtio/core/device.h"
#include "virtio/core/internal.h"

#define MAGIC 0x74726976u
#define VERSION 2u
#define VENDOR 0x45544f4du /* "MOTE" */

#define MMIO_STATE_VERSION 1

static uint64_t offered(const struct virtio_device *device)
{
	return device->features | VIRTIO_COMMON_FEATURES;
}

static struct virtq *selected(struct virtio_mmio *mmio)
{
	struct virtio_device *device = mmio->device;

	return mmio->queue_select < device->queue_count ? &device->queues[mmio->queue_select]
							: NULL;
}

static uint32_t read_register(struct virtio_mmio *mmio, uint64_t offset)
{
	struct virtio_device *device = mmio->device;
	const struct virtq *queue = selected(mmio);

	switch (offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return MAGIC;
	case VIRTIO_MMIO_VERSION:
		return VERSION;
	case VIRTIO_MMIO_DEVICE_ID:
		return device->type;
	case VIRTIO_MMIO_VENDOR_ID:
		return VENDOR;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return mmio->features_select > 1
			       ? 0
			       : (uint32_t)(offered(device) >> (32 * mmio->features_select));
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return queue ? queue->max_size : 0;
	case VIRTIO_MMIO_QUEUE_READY:
		return queue && queue->ready;
	case VIRTIO_MMIO_STATUS:
		return device->status;
	case VIRTIO_MMIO_CONFIG_GENERATION:
		return atomic_load(&device->config_generation);
	/* No shared memory regions: length and base are all ones (4.2.2). */
	case VIRTIO_MMIO_SHM_LEN_LOW:
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH:
		return UINT32_MAX;
	default:
		return 0;
	}
}

static void refuse(struct virtio_device *device, const char *what)
{
	log_guest_line(&device->log_limit, LOG_WARN, "%s: the driver's access is ignored: %s",
		       device->name, what);
}

/* 2.1 and 3.1.1: bits are only added, in their order; 0 resets. */
static void write_status(struct virtio_device *device, uint32_t value)
{
	const uint8_t kept = device->status & VIRTIO_CONFIG_S_NEEDS_RESET;

	if (value == 0) {
		virtio_device_reset(device);
		return;
	}
	if ((value | kept) > UINT8_MAX || (device->status & ~kept & ~value)) {
		refuse(device, "status bits that were set cannot be cleared one by one");
		return;
	}
	if (!virtio_status_in_order(value)) {
		refuse(device, "status bits out of their order");
		return;
	}
	value &= ~(uint32_t)device->status;
	if (value & VIRTIO_CONFIG_S_FAILED)
		device->status |= VIRTIO_CONFIG_S_FAILED;
	device->status |= value & (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	if (value & VIRTIO_CONFIG_S_FEATURES_OK) {
		if (!virtio_features_good(device->features, device->driver_features)) {
			refuse(device, "features that were not offered, or without VERSION_1");
			return;
		}
		device->status |= VIRTIO_CONFIG_S_FEATURES_OK;
	}
	if (value & VIRTIO_CONFIG_S_DRIVER_OK) {
		device->status |= VIRTIO_CONFIG_S_DRIVER_OK;
		virtio_device_activate(device);
	}
}

/* Linux asks for a queue's set-up between FEATURES_OK and DRIVER_OK, and so does 3.1.1. */
static bool configurable(const struct virtio_device *device)
{
	const uint8_t relevant = VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK |
				 VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED;

	return (device->status & relevant) == VIRTIO_CONFIG_S_FEATURES_OK;
}

static void set_low(uint64_t *addr, uint32_t value)
{
	*addr = (*addr & ~(uint64_t)UINT32_MAX) | value;
}

static void set_high(uint64_t *addr, uint32_t value)
{
	*addr = (*addr & UINT32_MAX) | (uint64_t)value << 32;
}

static void write_queue_register(struct virtio_mmio *mmio, uint64_t offset, uint32_t value)
{
	struct virtio_device *device = mmio->device;
	struct virtq *queue = selected(mmio);

	if (!queue || !configurable(device)) {
		refuse(device, queue ? "queue set-up outside of its time"
				     : "set-up of a queue that does not exist");
		return;
	}
	if (offset == VIRTIO_MMIO_QUEUE_READY) {
		queue->ready = value == 1 && virtq_valid(queue, device->memory);
		if (value == 1 && !queue->ready)
			refuse(device, "a queue with a bad size or address");
		return;
	}
	/* 4.2.2.2: not to be touched while QueueReady is set. */
	if (queue->ready) {
		refuse(device, "set-up of a queue that is ready");
		return;
	}
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM:
		/* 0 is no valid size, so that what does not fit is refused at QueueReady. */
		queue->size = value <= UINT16_MAX ? (uint16_t)value : 0;
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
		set_low(&queue->desc_addr, value);
		break;
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		set_high(&queue->desc_addr, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
		set_low(&queue->avail_addr, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		set_high(&queue->avail_addr, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
		set_low(&queue->used_addr, value);
		break;
	default:
		set_high(&queue->used_addr, value);
		break;
	}
}

static void write_features(struct virtio_mmio *mmio, uint32_t value)
{
	struct virtio_device *device = mmio->device;

	if ((device->status & (VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK)) !=
	    VIRTIO_CONFIG_S_DRIVER)
		refuse(device, "features outside of their negotiation");
	else if (mmio->driver_features_select == 0)
		set_low(&device->driver_features, value);
	else if (mmio->driver_features_select == 1)
		set_high(&device->driver_features, value);
	else if (value != 0)
		refuse(device, "features beyond bit 63");
}

static void write_register(struct virtio_mmio *mmio, uint64_t offset, uint32_t value)
{
	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		mmio->features_select = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		write_features(mmio, value);
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		mmio->driver_features_select = value;
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		mmio->queue_select = value;
		break;
	case VIRTIO_MMIO_STATUS:
		write_status(mmio->device, value);
		break;
	case VIRTIO_MMIO_QUEUE_NUM:
	case VIRTIO_MMIO_QUEUE_READY:
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
	case VIRTIO_MMIO_QUEUE_USED_LOW:
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		write_queue_register(mmio, offset, value);
		break;
	default:
		/* Also QueueNotify of a queue that does not exist: ioeventfds take the others. */
		break;
	}
}

static void read_config(struct virtio_device *device, uint64_t offset, uint8_t *data,
			unsigned int len)
{
	memset(data, 0, len);
	if (offset >= device->config_size)
		return;
	if (len > device->config_size - offset)
		len = (unsigned int)(device->config_size - offset);
	memcpy(data, (const uint8_t *)device->config + offset, len);
}

/*
 * 2.5.1: the generation is shown before the configuration that has it, so that a driver that reads
 * across a change sees two generations, or hears of the change by the interrupt that follows.
 */
static void refresh(void *opaque)
{
	static const uint16_t offsets[] = {
		VIRTIO_MMIO_MAGIC_VALUE,       VIRTIO_MMIO_VERSION,
		VIRTIO_MMIO_DEVICE_ID,	       VIRTIO_MMIO_VENDOR_ID,
		VIRTIO_MMIO_DEVICE_FEATURES,   VIRTIO_MMIO_QUEUE_NUM_MAX,
		VIRTIO_MMIO_QUEUE_READY,       VIRTIO_MMIO_STATUS,
		VIRTIO_MMIO_SHM_LEN_LOW,       VIRTIO_MMIO_SHM_LEN_HIGH,
		VIRTIO_MMIO_SHM_BASE_LOW,      VIRTIO_MMIO_SHM_BASE_HIGH,
		VIRTIO_MMIO_CONFIG_GENERATION,
	};
	struct virtio_mmio *mmio = opaque;
	const struct virtio_device *device = mmio->device;

	for (size_t i = 0; i < ARRAY_SIZE(offsets); i++)
		__atomic_store_n((uint32_t *)(void *)(mmio->page + offsets[i]),
				 read_register(mmio, offsets[i]), __ATOMIC_RELEASE);
	if (device->config_size > 0)
		memcpy(mmio->page + VIRTIO_MMIO_CONFIG, device->config, device->config_size);
}

void virtio_mmio_show(struct virtio_mmio *mmio, void *page)
{
	struct virtio_device *device = mmio->device;
	atomic_uint *isr;

	mmio->page = page;
	pthread_mutex_lock(&device->lock);
	isr = (atomic_uint *)(void *)(mmio->page + VIRTIO_MMIO_INTERRUPT_STATUS);
	atomic_store(isr, atomic_load(device->isr));
	device->isr = isr;
	device->changed = refresh;
	device->changed_opaque = mmio;
	refresh(mmio);
	pthread_mutex_unlock(&device->lock);
}

void virtio_mmio_hide(struct virtio_mmio *mmio)
{
	struct virtio_device *device = mmio->device;

	if (!mmio->page)
		return;
	pthread_mutex_lock(&device->lock);
	device->isr = &device->own_isr;
	device->changed = NULL;
	pthread_mutex_unlock(&device->lock);
	mmio->page = NULL;
}

void virtio_mmio_save(const struct virtio_mmio *mmio, struct state_writer *out)
{
	size_t section = state_begin(out, VIRTIO_STATE_MMIO, MMIO_STATE_VERSION);

	state_put_u32(out, mmio->features_select);
	state_put_u32(out, mmio->driver_features_select);
	state_put_u32(out, mmio->queue_select);
	virtio_device_save(mmio->device, out);
	state_end(out, section);
}

int virtio_mmio_restore(struct virtio_mmio *mmio, struct state_reader *in, struct err *err)
{
	struct virtio_device *device = mmio->device;
	struct virtio_mmio saved = *mmio;
	struct state_section section, nested;
	struct state_reader rest;
	int rc = virtio_state_section(in, &section, device->name, VIRTIO_STATE_MMIO,
				      MMIO_STATE_VERSION, err);

	if (rc < 0)
		return rc;
	saved.features_select = state_get_u32(&section.body);
	saved.driver_features_select = state_get_u32(&section.body);
	saved.queue_select = state_get_u32(&section.body);
	/* The device is looked at first when nothing else can be wrong. */
	rest = section.body;
	(void)state_next(&rest, &nested);
	rc = virtio_device_read_all(device, &rest, err);
	if (rc == 0)
		rc = virtio_device_restore(device, &section.body, err);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&device->lock);
	*mmio = saved;
	if (mmio->page)
		refresh(mmio);
	pthread_mutex_unlock(&device->lock);
	return 0;
}

static void mmio_read(void *opaque, uint64_t offset, uint8_t *data, unsigned int len)
{
	struct virtio_mmio *mmio = opaque;
	struct virtio_device *device = mmio->device;
	uint32_t value = 0;

	if (offset >= VIRTIO_MMIO_CONFIG) {
		pthread_mutex_lock(&device->lock);
		read_config(device, offset - VIRTIO_MMIO_CONFIG, data, len);
		pthread_mutex_unlock(&device->lock);
		return;
	}
	memset(data, 0, len);
	/* 4.2.2.2: registers are accessed as aligned 32-bit words. */
	if (len != sizeof(value) || offset % sizeof(value))
		return;
	/* Without the lock, because it is read at every interrupt. */
	if (offset == VIRTIO_MMIO_INTERRUPT_STATUS) {
		value = atomic_load(device->isr);
	} else {
		pthread_mutex_lock(&device->lock);
		value = read_register(mmio, offset);
		pthread_mutex_unlock(&device->lock);
	}
	memcpy(data, &value, sizeof(value));
}

static void mmio_write(void *opaque, uint64_t offset, const uint8_t *data, unsigned int len)
{
	struct virtio_mmio *mmio = opaque;
	struct virtio_device *device = mmio->device;
	uint32_t value;

	/* No field of a configuration space is the driver's to write, with the features offered. */
	if (offset >= VIRTIO_MMIO_CONFIG || len != sizeof(value) || offset % sizeof(value))
		return;
	memcpy(&value, data, sizeof(value));
	if (offset == VIRTIO_MMIO_INTERRUPT_ACK) {
		atomic_fetch_and(device->isr, ~value);
		return;
	}
	pthread_mutex_lock(&device->lock);
	/* Another vCPU's write meets a reset that goes on. */
	if (!device->resetting)
		write_register(mmio, offset, value);
	if (mmio->page)
		refresh(mmio);
	pthread_mutex_unlock(&device->lock);
}

const struct io_ops virtio_mmio_ops = { mmio_read, mmio_write };

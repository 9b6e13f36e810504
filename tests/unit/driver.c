/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/driver.h"

#include <check.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"

#define RINGS_SPACING UINT64_C(0x10000)
#define WAIT_MS 20000

void driver_open(struct driver *driver)
{
	struct err err;

	memset(driver, 0, sizeof(*driver));
	ck_assert_msg(guest_memory_open(&driver->memory, DRIVER_MEMORY, UINT64_C(3) << 30,
					UINT64_C(4) << 30, HUGE_PAGES_NONE, &err) == 0,
		      "%s", err.text);
	driver->base = event_base_new();
	ck_assert_ptr_nonnull(driver->base);
	driver->loop = pthread_self();
	pthread_mutex_init(&driver->lock, NULL);
	pthread_cond_init(&driver->changed, NULL);
}

static void hold(void *opaque, bool begins)
{
	struct driver *driver = opaque;

	pthread_mutex_lock(&driver->lock);
	driver->holds += begins ? 1 : -1;
	pthread_cond_broadcast(&driver->changed);
	pthread_mutex_unlock(&driver->lock);
}

void driver_close(struct driver *driver)
{
	guest_memory_close(&driver->memory);
	if (driver->base)
		event_base_free(driver->base);
	memset(driver, 0, sizeof(*driver));
}

void driver_attach(struct driver *driver, struct virtio_device *device)
{
	const struct virtio_host host = { .memory = &driver->memory, .base = driver->base };
	struct err err;

	ck_assert_msg(virtio_device_attach(device, &host, &err) == 0, "%s", err.text);
	driver->device = device;
	driver->mmio.device = device;
	device->hold = hold;
	device->hold_opaque = driver;
}

uint32_t driver_read(struct driver *driver, uint64_t offset)
{
	uint32_t value;

	virtio_mmio_ops.read(&driver->mmio, offset, (uint8_t *)&value, sizeof(value));
	return value;
}

void driver_write(struct driver *driver, uint64_t offset, uint32_t value)
{
	virtio_mmio_ops.write(&driver->mmio, offset, (const uint8_t *)&value, sizeof(value));
}

static void start_queue(struct driver *driver, unsigned int index, uint16_t wanted)
{
	struct driver_queue *queue = &driver->queues[index];
	const uint64_t desc = DRIVER_RINGS + index * RINGS_SPACING;
	uint8_t *host = driver_memory(driver, desc, RINGS_SPACING);
	unsigned int size;
	uint64_t avail, used;

	driver_write(driver, VIRTIO_MMIO_QUEUE_SEL, index);
	size = wanted ? wanted : driver_read(driver, VIRTIO_MMIO_QUEUE_NUM_MAX);
	memset(host, 0, RINGS_SPACING);
	memset(queue, 0, sizeof(*queue));
	vring_init(&queue->vring, size, host, 4096);
	avail = desc + (uint64_t)((uint8_t *)queue->vring.avail - host);
	used = desc + (uint64_t)((uint8_t *)queue->vring.used - host);
	driver_write(driver, VIRTIO_MMIO_QUEUE_NUM, size);
	driver_write(driver, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)desc);
	driver_write(driver, VIRTIO_MMIO_QUEUE_DESC_HIGH, (uint32_t)(desc >> 32));
	driver_write(driver, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)avail);
	driver_write(driver, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, (uint32_t)(avail >> 32));
	driver_write(driver, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)used);
	driver_write(driver, VIRTIO_MMIO_QUEUE_USED_HIGH, (uint32_t)(used >> 32));
	driver_write(driver, VIRTIO_MMIO_QUEUE_READY, 1);
	ck_assert_uint_eq(driver_read(driver, VIRTIO_MMIO_QUEUE_READY), 1);
}

static void add_status(struct driver *driver, uint32_t bits)
{
	driver_write(driver, VIRTIO_MMIO_STATUS, driver_read(driver, VIRTIO_MMIO_STATUS) | bits);
	ck_assert_uint_eq(driver_read(driver, VIRTIO_MMIO_STATUS) & bits, bits);
}

void driver_start(struct driver *driver, uint64_t features, uint16_t size)
{
	uint64_t offered = 0;

	driver_reset(driver);
	add_status(driver, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	add_status(driver, VIRTIO_CONFIG_S_DRIVER);
	for (uint32_t half = 0; half < 2; half++) {
		driver_write(driver, VIRTIO_MMIO_DEVICE_FEATURES_SEL, half);
		offered |= (uint64_t)driver_read(driver, VIRTIO_MMIO_DEVICE_FEATURES)
			   << (32 * half);
	}
	features = offered & (features | UINT64_C(1) << VIRTIO_F_VERSION_1);
	for (uint32_t half = 0; half < 2; half++) {
		driver_write(driver, VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
		driver_write(driver, VIRTIO_MMIO_DRIVER_FEATURES,
			     (uint32_t)(features >> (32 * half)));
	}
	add_status(driver, VIRTIO_CONFIG_S_FEATURES_OK);
	for (unsigned int i = 0; i < driver->device->queue_count; i++)
		start_queue(driver, i, size);
	add_status(driver, VIRTIO_CONFIG_S_DRIVER_OK);
}

void driver_reset(struct driver *driver)
{
	driver_write(driver, VIRTIO_MMIO_STATUS, 0);
	pthread_mutex_lock(&driver->lock);
	while (driver->holds > 0) {
		if (!pthread_equal(pthread_self(), driver->loop)) {
			pthread_cond_wait(&driver->changed, &driver->lock);
			continue;
		}
		pthread_mutex_unlock(&driver->lock);
		event_base_loop(driver->base, EVLOOP_ONCE);
		pthread_mutex_lock(&driver->lock);
	}
	pthread_mutex_unlock(&driver->lock);
	ck_assert_uint_eq(driver_read(driver, VIRTIO_MMIO_STATUS), 0);
}

void *driver_memory(struct driver *driver, uint64_t addr, uint64_t len)
{
	void *host = guest_memory_range(&driver->memory, addr, len);

	ck_assert_ptr_nonnull(host);
	return host;
}

uint16_t driver_add(struct driver *driver, unsigned int index, const struct driver_buffer *buffers,
		    unsigned int count)
{
	struct driver_queue *queue = &driver->queues[index];
	struct vring *vring = &queue->vring;
	uint16_t head = queue->free_head;
	uint16_t slot = (uint16_t)(vring->avail->idx % vring->num);

	for (unsigned int i = 0; i < count; i++) {
		vring_desc_t *desc = &vring->desc[queue->free_head];

		queue->free_head = (uint16_t)((queue->free_head + 1) % vring->num);
		desc->addr = buffers[i].addr;
		desc->len = buffers[i].len;
		desc->flags = (uint16_t)((buffers[i].writable ? VRING_DESC_F_WRITE : 0) |
					 (i + 1 < count ? VRING_DESC_F_NEXT : 0));
		desc->next = queue->free_head;
	}
	vring->avail->ring[slot] = head;
	__atomic_store_n(&vring->avail->idx, (uint16_t)(vring->avail->idx + 1), __ATOMIC_RELEASE);
	return head;
}

void driver_notify(struct driver *driver, unsigned int queue)
{
	const uint64_t one = 1;

	ck_assert_int_eq(write(driver->device->notify_fds[queue], &one, sizeof(one)), sizeof(one));
}

void driver_run(struct driver *driver)
{
	ck_assert_int_ge(event_base_loop(driver->base, EVLOOP_NONBLOCK), 0);
}

bool driver_used(struct driver *driver, unsigned int index, uint32_t *head, uint32_t *len)
{
	struct driver_queue *queue = &driver->queues[index];
	const struct vring *vring = &queue->vring;
	const vring_used_elem_t *element = &vring->used->ring[queue->seen_used % vring->num];

	if (__atomic_load_n(&vring->used->idx, __ATOMIC_ACQUIRE) == queue->seen_used)
		return false;
	*head = element->id;
	*len = element->len;
	queue->seen_used++;
	return true;
}

void driver_wait_used(struct driver *driver, unsigned int queue, uint32_t *head, uint32_t *len)
{
	const struct timeval tick = { .tv_usec = 100000 };
	int64_t end = clock_ms() + WAIT_MS;

	while (!driver_used(driver, queue, head, len)) {
		ck_assert_msg(clock_ms() < end, "waited in vain for a used buffer");
		event_base_loopexit(driver->base, &tick);
		ck_assert_int_ge(event_base_loop(driver->base, EVLOOP_ONCE), 0);
	}
}

bool driver_interrupted(struct driver *driver)
{
	uint64_t count;

	return read(driver->device->irq_fd, &count, sizeof(count)) == sizeof(count);
}

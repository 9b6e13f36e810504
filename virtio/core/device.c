/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/core/device.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "virtio/core/batching.h"

int virtio_device_open(struct virtio_device *device, const struct virtio_ops *ops, uint32_t type,
		       const char *name, const uint16_t *queue_sizes, unsigned int queue_count,
		       struct err *err)
{
	memset(device, 0, sizeof(*device));
	device->ops = ops;
	device->type = type;
	device->name = name;
	device->queue_count = queue_count;
	device->isr = &device->own_isr;
	device->irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (unsigned int i = 0; i < VIRTIO_QUEUES_MAX; i++)
		device->notify_fds[i] = -1;
	pthread_mutex_init(&device->lock, NULL);
	for (unsigned int i = 0; i < queue_count && device->irq_fd >= 0; i++) {
		device->queues[i].max_size = queue_sizes[i];
		virtq_reset(&device->queues[i]);
		device->notify_fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (device->notify_fds[i] < 0)
			break;
	}
	if (device->irq_fd < 0 || device->notify_fds[queue_count - 1] < 0) {
		int rc = err_sys(err, errno, "%s: eventfd", name);

		virtio_device_release(device);
		return rc;
	}
	return 0;
}

void virtio_device_release(struct virtio_device *device)
{
	if (!device->ops)
		return;
	fd_close(&device->irq_fd);
	for (unsigned int i = 0; i < VIRTIO_QUEUES_MAX; i++)
		fd_close(&device->notify_fds[i]);
	pthread_mutex_destroy(&device->lock);
	memset(device, 0, sizeof(*device));
}

static void on_notify(evutil_socket_t fd, short events, void *opaque)
{
	struct virtio_device *device = opaque;
	unsigned int queue = 0;
	uint16_t before, chains = 0;

	(void)events;
	while (device->notify_fds[queue] != fd)
		queue++;
	pthread_mutex_lock(&device->lock);
	if (virtio_device_runs(device) && device->queues[queue].ready) {
		before = device->queues[queue].next_avail;
		device->ops->notified(device, queue);
		chains = (uint16_t)(device->queues[queue].next_avail - before);
	}
	pthread_mutex_unlock(&device->lock);
	if (device->batching)
		batching_notified(device->batching, chains);
}

static int watch(struct virtio_device *device, struct event_base *base, struct err *err)
{
	for (unsigned int i = 0; i < device->queue_count; i++) {
		/* Edge-triggered: each notification is an edge, and nobody need read the eventfd.
		 */
		device->notify_events[i] =
			event_new(base, device->notify_fds[i], EV_READ | EV_PERSIST | EV_ET,
				  on_notify, device);
		if (!device->notify_events[i] || event_add(device->notify_events[i], NULL) < 0)
			return err_set(err, ENOMEM, "%s: no memory for its events", device->name);
	}
	return 0;
}

int virtio_device_attach(struct virtio_device *device, const struct virtio_host *host,
			 struct err *err)
{
	int rc;

	device->memory = host->memory;
	device->batching = host->batching;
	rc = watch(device, host->base, err);
	if (rc == 0 && device->ops->attach)
		rc = device->ops->attach(device, host, err);
	if (rc < 0)
		(void)virtio_device_detach(device, 0);
	return rc;
}

bool virtio_device_detach(struct virtio_device *device, int64_t until_ns)
{
	bool settled = !device->ops->detach || device->ops->detach(device, until_ns);

	for (unsigned int i = 0; i < device->queue_count; i++) {
		if (device->notify_events[i])
			event_free(device->notify_events[i]);
		device->notify_events[i] = NULL;
	}
	return settled;
}

void virtio_device_close(struct virtio_device *device)
{
	if (device && virtio_device_detach(device, 0))
		device->ops->close(device);
}

bool virtio_device_has_driver(struct virtio_device *device)
{
	bool active;

	pthread_mutex_lock(&device->lock);
	active = device->active;
	pthread_mutex_unlock(&device->lock);
	return active;
}

static void look_at_queues(struct virtio_device *device)
{
	for (unsigned int i = 0; i < device->queue_count; i++)
		fd_signal(device->notify_fds[i]);
}

bool virtio_device_freeze(struct virtio_device *device, int64_t until_ns)
{
	bool frozen = true;

	pthread_mutex_lock(&device->lock);
	if (device->ops->freeze)
		frozen = device->ops->freeze(device, until_ns);
	device->frozen = frozen;
	pthread_mutex_unlock(&device->lock);
	return frozen;
}

void virtio_device_thaw(struct virtio_device *device)
{
	pthread_mutex_lock(&device->lock);
	device->frozen = false;
	pthread_mutex_unlock(&device->lock);
	look_at_queues(device);
}

static void changed(struct virtio_device *device)
{
	if (device->changed)
		device->changed(device->changed_opaque);
}

static void interrupt(struct virtio_device *device, unsigned int cause)
{
	atomic_fetch_or(device->isr, cause);
	fd_signal(device->irq_fd);
	if (device->interrupts)
		__atomic_fetch_add(&device->interrupts->triggers, 1, __ATOMIC_RELAXED);
}

void virtio_device_publish(struct virtio_device *device, struct virtq *queue)
{
	if (virtq_publish(queue))
		interrupt(device, VIRTIO_ISR_QUEUE);
}

void virtio_device_fail(struct virtio_device *device, const char *fmt, ...)
{
	char text[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	device->broken_count++;
	log_guest_line(&device->log_limit, LOG_WARN,
		       "%s: the driver broke a rule, the device needs a reset: %s", device->name,
		       text);
	device->active = false;
	device->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	changed(device);
	if (device->status & VIRTIO_CONFIG_S_DRIVER_OK)
		interrupt(device, VIRTIO_ISR_CONFIG);
}

void virtio_device_config_changed(struct virtio_device *device)
{
	atomic_fetch_add(&device->config_generation, 1);
	changed(device);
	if (device->status & VIRTIO_CONFIG_S_DRIVER_OK)
		interrupt(device, VIRTIO_ISR_CONFIG);
}

bool virtio_status_in_order(uint32_t status)
{
	const uint8_t order[] = { VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER,
				  VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_DRIVER_OK };
	uint8_t before = 0;

	for (unsigned int i = 0; i < sizeof(order); i++) {
		if ((status & order[i]) && (status & before) != before)
			return false;
		before |= order[i];
	}
	return true;
}

void virtio_device_activate(struct virtio_device *device)
{
	for (unsigned int i = 0; i < device->queue_count; i++) {
		if (device->queues[i].ready)
			virtq_start(&device->queues[i], device->memory, device->driver_features);
	}
	device->active = true;
	if (device->ops->activate && device->ops->activate(device) < 0) {
		device->active = false;
		device->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
		return;
	}
	/* What the driver notified too early, and the main thread's first look at the device. */
	look_at_queues(device);
}

static void finish_reset(struct virtio_device *device)
{
	for (unsigned int i = 0; i < device->queue_count; i++)
		virtq_reset(&device->queues[i]);
	device->driver_features = 0;
	device->status = 0;
	atomic_store(device->isr, 0);
}

void virtio_device_reset(struct virtio_device *device)
{
	device->active = false;
	if (!device->ops->reset || device->ops->reset(device)) {
		finish_reset(device);
		return;
	}
	device->resetting = true;
	if (device->hold)
		device->hold(device->hold_opaque, true);
}

void virtio_device_reset_done(struct virtio_device *device)
{
	device->resetting = false;
	finish_reset(device);
	changed(device);
	if (device->hold)
		device->hold(device->hold_opaque, false);
}

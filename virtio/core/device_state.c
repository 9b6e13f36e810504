/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device as bytes and back. The bytes may be anybody's: each value is checked as the transport
 * would check it, before any of them counts.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_config.h>

#include "base/err.h"
#include "base/fd.h"
#include "virtio/core/device.h"
#include "virtio/core/internal.h"

#define DEVICE_VERSION 1

#define STATUS_BITS                                                                                \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |      \
	 VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED)

struct saved {
	uint8_t status;
	uint64_t features;
	uint64_t driver_features;
	uint32_t isr;
	uint32_t config_generation;
	uint32_t queue_count;
	struct virtq queues[VIRTIO_QUEUES_MAX];
	struct state_section own; /* the device type's */
};

void virtio_device_save(struct virtio_device *device, struct state_writer *out)
{
	size_t common = state_begin(out, VIRTIO_STATE_DEVICE, DEVICE_VERSION);
	size_t own;

	state_put_u8(out, device->status);
	state_put_u64(out, device->features);
	state_put_u64(out, device->driver_features);
	state_put_u32(out, atomic_load(device->isr));
	state_put_u32(out, atomic_load(&device->config_generation));
	state_put_u32(out, device->queue_count);
	for (unsigned int i = 0; i < device->queue_count; i++)
		virtq_save(&device->queues[i], out);
	own = state_begin(out, device->type, device->ops->state_version);
	if (device->ops->save)
		device->ops->save(device, out);
	state_end(out, own);
	state_end(out, common);
}

int virtio_state_section(struct state_reader *in, struct state_section *section, const char *name,
			 uint32_t kind, uint32_t version, struct err *err)
{
	if (!state_next(in, section))
		return err_set(err, EINVAL, "%s: its saved state is cut off", name);
	if (section->kind != kind)
		return err_set(err, EINVAL,
			       "%s: its saved state is of kind %" PRIu32 " instead of %" PRIu32,
			       name, section->kind, kind);
	if (section->version == 0 || section->version > version)
		return err_set(err, EINVAL,
			       "%s: its saved state has version %" PRIu32
			       ", and this program knows version %" PRIu32,
			       name, section->version, version);
	return 0;
}

int virtio_device_read_all(const struct virtio_device *device, const struct state_reader *in,
			   struct err *err)
{
	return state_is_done(in) ? 0
				 : err_set(err, EINVAL,
					   "%s: its saved state is cut off, or has a value or a "
					   "size that it cannot have",
					   device->name);
}

static int read_saved(const struct virtio_device *device, struct state_reader *in,
		      struct saved *saved, struct err *err)
{
	int rc;

	saved->status = state_get_u8(in);
	saved->features = state_get_u64(in);
	saved->driver_features = state_get_u64(in);
	saved->isr = state_get_u32(in);
	saved->config_generation = state_get_u32(in);
	saved->queue_count = state_get_u32(in);
	if (!in->failed && saved->queue_count != device->queue_count)
		return err_set(err, EINVAL,
			       "%s: it has %u queues, and %" PRIu32 " in its saved state",
			       device->name, device->queue_count, saved->queue_count);
	for (unsigned int i = 0; i < device->queue_count; i++) {
		saved->queues[i].max_size = device->queues[i].max_size;
		virtq_load(&saved->queues[i], in);
	}
	if (in->failed)
		return virtio_device_read_all(device, in, err);
	rc = virtio_state_section(in, &saved->own, device->name, device->type,
				  device->ops->state_version, err);
	return rc < 0 ? rc : virtio_device_read_all(device, in, err);
}

static int check_features(const struct virtio_device *device, const struct saved *saved,
			  struct err *err)
{
	const uint64_t never =
		saved->features & ~(device->features | device->ops->changing_features);

	if (saved->status == 0)
		return 0;
	if (never)
		return err_set(err, EINVAL,
			       "%s: it offered features 0x%" PRIx64
			       " when it was saved, which it cannot here",
			       device->name, never);
	/* Before FEATURES_OK they are whatever the driver has written. */
	if ((saved->status & VIRTIO_CONFIG_S_FEATURES_OK) &&
	    !virtio_features_good(saved->features, saved->driver_features))
		return err_set(err, EINVAL,
			       "%s: saved features 0x%" PRIx64 ", of which 0x%" PRIx64
			       " were offered",
			       device->name, saved->driver_features, saved->features);
	return 0;
}

static int check_queues(const struct virtio_device *device, const struct saved *saved,
			struct err *err)
{
	for (unsigned int i = 0; i < device->queue_count; i++) {
		if (!saved->queues[i].ready)
			continue;
		if (!(saved->status & VIRTIO_CONFIG_S_FEATURES_OK))
			return err_set(err, EINVAL, "%s: saved queue %u is ready too early",
				       device->name, i);
		if (!virtq_valid(&saved->queues[i], device->memory))
			return err_set(err, EINVAL, "%s: saved queue %u has a bad size or address",
				       device->name, i);
	}
	return 0;
}

static int check(const struct virtio_device *device, const struct saved *saved, struct err *err)
{
	int rc;

	if ((saved->status & ~STATUS_BITS) || !virtio_status_in_order(saved->status))
		return err_set(err, EINVAL, "%s: saved status 0x%x, which no driver can reach",
			       device->name, saved->status);
	if (saved->isr & ~(VIRTIO_ISR_QUEUE | VIRTIO_ISR_CONFIG))
		return err_set(err, EINVAL, "%s: saved interrupt status 0x%" PRIx32, device->name,
			       saved->isr);
	rc = check_features(device, saved, err);
	return rc < 0 ? rc : check_queues(device, saved, err);
}

static void apply(struct virtio_device *device, const struct saved *saved)
{
	device->status = saved->status;
	device->active = (saved->status & VIRTIO_CONFIG_S_DRIVER_OK) &&
			 !(saved->status & VIRTIO_CONFIG_S_NEEDS_RESET);
	device->frozen = true;
	device->driver_features = saved->driver_features;
	/* A driver that is not there yet is offered what there is now. */
	if (saved->status != 0)
		device->features = saved->features;
	for (unsigned int i = 0; i < device->queue_count; i++) {
		device->queues[i] = saved->queues[i];
		if (device->active && device->queues[i].ready)
			virtq_continue(&device->queues[i], device->memory, device->driver_features);
	}
	atomic_store(device->isr, saved->isr);
	atomic_store(&device->config_generation, saved->config_generation);
}

static int restore(struct virtio_device *device, struct state_reader *in, struct err *err)
{
	const uint64_t features = device->features;
	struct saved saved = { 0 };
	int rc = read_saved(device, in, &saved, err);

	if (rc == 0)
		rc = check(device, &saved, err);
	if (rc < 0)
		return rc;
	apply(device, &saved);
	rc = device->ops->restore
		     ? device->ops->restore(device, &saved.own.body, saved.own.version, err)
		     : virtio_device_read_all(device, &saved.own.body, err);
	if (rc < 0) {
		virtio_device_reset(device);
		device->features = features;
		device->frozen = false;
		return rc;
	}
	/* An interrupt may have been on its way when the device was saved. */
	if (saved.isr != 0)
		fd_signal(device->irq_fd);
	return 0;
}

int virtio_device_restore(struct virtio_device *device, struct state_reader *in, struct err *err)
{
	struct state_section section;
	int rc = virtio_state_section(in, &section, device->name, VIRTIO_STATE_DEVICE,
				      DEVICE_VERSION, err);

	if (rc < 0)
		return rc;
	pthread_mutex_lock(&device->lock);
	rc = restore(device, &section.body, err);
	if (device->changed)
		device->changed(device->changed_opaque);
	pthread_mutex_unlock(&device->lock);
	return rc;
}

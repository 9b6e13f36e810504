/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/devices.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/metrics.h"
#include "base/ring_memory.h"
#include "mmds/mmds.h"
#include "mmds/responder.h"
#include "mmds/server.h"
#include "virtio/net/net.h"
#include "vmm/devices_internal.h"
#include "vmm/metrics.h"

/* What drives have in flight is given so long to end when the VM has. */
#define DETACH_MS 200
/* And so long when it is to be paused. */
#define FREEZE_MS 500

_Static_assert(LAYOUT_VIRTIO_MAX == RINGS_MAX, "what the rings of all drives take is another");

static const char *id_of(const struct device *device)
{
	switch (device->kind) {
	case DEVICE_DRIVE:
		return device->config.drive.drive_id;
	case DEVICE_INTERFACE:
		return device->config.interface.iface_id;
	case DEVICE_VSOCK:
		break;
	}
	return NULL;
}

void device_free_config(struct device *device)
{
	switch (device->kind) {
	case DEVICE_DRIVE:
		drive_config_free(&device->config.drive);
		break;
	case DEVICE_INTERFACE:
		network_interface_config_free(&device->config.interface);
		break;
	case DEVICE_VSOCK:
		vsock_device_config_free(&device->config.vsock);
		break;
	}
}

const struct device *devices_next(const struct devices *devices, enum device_kind kind,
				  const struct device *device)
{
	const struct device *end = devices->list + devices->count;

	for (device = device ? device + 1 : devices->list; device < end; device++) {
		if (device->kind == kind)
			return device;
	}
	return NULL;
}

struct device *devices_find(struct devices *devices, enum device_kind kind, const char *id)
{
	const struct device *device = NULL;

	while ((device = devices_next(devices, kind, device))) {
		if (!id || strcmp(id_of(device), id) == 0)
			break;
	}
	return device ? &devices->list[device - devices->list] : NULL;
}

void devices_close(struct devices *devices)
{
	(void)devices_detach(devices);
	for (unsigned int i = 0; i < devices->count; i++) {
		virtio_device_close(devices->list[i].virtio);
		device_free_config(&devices->list[i]);
	}
	memset(devices, 0, sizeof(*devices));
}

int devices_check_interfaces(struct devices *devices, char *const *ids, struct err *err)
{
	for (unsigned int i = 0; ids[i]; i++) {
		if (!devices_find(devices, DEVICE_INTERFACE, ids[i]))
			return err_set(err, ENOENT,
				       "network_interfaces[%u]: there is no network interface %s",
				       i, ids[i]);
	}
	return 0;
}

/* The root drive is /dev/vda. */
static unsigned int rank(const struct device *device)
{
	if (device->kind == DEVICE_DRIVE && device->config.drive.is_root_device)
		return 0;
	return 1 + device->kind;
}

unsigned int devices_list(const struct devices *devices, struct virtio_device **list)
{
	unsigned int count = 0;

	for (unsigned int at = 0; at <= 1 + DEVICE_VSOCK; at++) {
		for (unsigned int i = 0; i < devices->count; i++) {
			if (rank(&devices->list[i]) == at)
				list[count++] = devices->list[i].virtio;
		}
	}
	return count;
}

static void write_root(FILE *out, const struct devices *devices)
{
	const struct device *device = NULL;

	while ((device = devices_next(devices, DEVICE_DRIVE, device))) {
		const struct drive_config *config = &device->config.drive;

		if (!config->is_root_device)
			continue;
		if (config->partuuid)
			fprintf(out, " root=PARTUUID=%s", config->partuuid);
		else
			fputs(" root=/dev/vda", out);
		fputs(config->is_read_only ? " ro" : " rw", out);
	}
}

char *devices_cmdline(const struct devices *devices)
{
	struct virtio_device *list[LAYOUT_VIRTIO_MAX];
	unsigned int count = devices_list(devices, list);
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	write_root(out, devices);
	for (unsigned int i = 0; i < count; i++)
		fprintf(out, " virtio_mmio.device=4K@0x%llx:%u",
			(unsigned long long)(LAYOUT_VIRTIO + i * LAYOUT_VIRTIO_SIZE),
			LAYOUT_VIRTIO_IRQ + i);
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

/* On the Unix socket that the device connects the guest to. */
static int serve_mmds_by_vsock(struct devices *devices, struct mmds *mmds, int64_t port,
			       struct event_base *base, struct err *err)
{
	const struct device *vsock = devices_next(devices, DEVICE_VSOCK, NULL);
	char path[PATH_MAX];

	if (!vsock)
		return err_set(err, ENOENT, "mmds-config: vsock_port: there is no vsock");
	if (snprintf(path, sizeof(path), "%s_%" PRId64, vsock->config.vsock.uds_path, port) >=
	    (int)sizeof(path))
		return err_sys(err, ENAMETOOLONG, "mmds-config: vsock_port");
	return server_open(&devices->metadata, mmds, path, base, err);
}

int devices_set_mmds(struct devices *devices, struct mmds *mmds, const struct mmds_config *config,
		     struct event_base *base, struct err *err)
{
	uint32_t address;

	if (!mmds_address_parse(config->ipv4_address, &address))
		return err_set(err, EINVAL, "ipv4_address: %s", config->ipv4_address);
	for (char **id = config->network_interfaces; *id; id++) {
		struct device *interface = devices_find(devices, DEVICE_INTERFACE, *id);
		struct net *net;
		int rc;

		if (!interface)
			return err_set(err, ENOENT, "mmds-config: there is no network interface %s",
				       *id);
		if (interface->responder)
			continue; /* named twice */
		net = net_of(interface->virtio);
		rc = responder_open(&interface->responder, mmds, address, net_backend(net), NULL,
				    err);
		if (rc < 0)
			return rc;
		net_set_front(net, responder_backend(interface->responder));
	}
	return config->vsock_port
		       ? serve_mmds_by_vsock(devices, mmds, config->vsock_port, base, err)
		       : 0;
}

static void forget_mmds(struct device *device)
{
	if (!device->responder)
		return;
	net_set_front(net_of(device->virtio), NULL);
	responder_close(device->responder);
	device->responder = NULL;
}

int devices_attach(struct devices *devices, const struct guest_memory *memory,
		   struct event_base *base, int (*confine)(struct err *), struct err *err)
{
	const struct virtio_host host = { memory, base, &devices->batching, confine };
	int rc = 0;

	batching_open(&devices->batching, base);
	for (unsigned int i = 0; i < devices->count && rc == 0; i++) {
		devices->list[i].virtio->interrupts = &devices->interrupts;
		rc = virtio_device_attach(devices->list[i].virtio, &host, err);
	}
	if (rc < 0)
		(void)devices_detach(devices);
	return rc;
}

void devices_thaw(struct devices *devices)
{
	for (unsigned int i = 0; i < devices->count; i++)
		virtio_device_thaw(devices->list[i].virtio);
}

int devices_freeze(struct devices *devices, struct err *err)
{
	const int64_t until = clock_ns() + FREEZE_MS * NS_PER_MS;

	for (unsigned int i = 0; i < devices->count; i++) {
		struct virtio_device *virtio = devices->list[i].virtio;

		if (!virtio_device_freeze(virtio, until)) {
			devices_thaw(devices);
			return err_set(
				err, EBUSY,
				"%s: what is in flight does not end in time, and the VM goes "
				"on",
				virtio->name);
		}
	}
	return 0;
}

bool devices_detach(struct devices *devices)
{
	/* All of them together. */
	const int64_t until = clock_ns() + DETACH_MS * NS_PER_MS;
	bool settled = true;

	for (unsigned int i = 0; i < devices->count; i++) {
		if (!virtio_device_detach(devices->list[i].virtio, until))
			settled = false;
		forget_mmds(&devices->list[i]);
	}
	server_close(devices->metadata);
	devices->metadata = NULL;
	batching_close(&devices->batching);
	return settled;
}

void devices_add_metrics(const struct devices *devices, struct metrics *metrics)
{
	static const enum metrics_group_id groups[] = {
		[DEVICE_DRIVE] = METRICS_BLOCK,
		[DEVICE_INTERFACE] = METRICS_NET,
		[DEVICE_VSOCK] = METRICS_VSOCK,
	};

	for (unsigned int i = 0; i < devices->count; i++) {
		const struct device *device = &devices->list[i];

		metrics_add(metrics, groups[device->kind], id_of(device), device->virtio->counters,
			    1, 0);
	}
	metrics_add(metrics, METRICS_INTERRUPTS, NULL, &devices->interrupts, 1, 0);
}

void devices_log_metrics(const struct devices *devices)
{
	for (unsigned int i = 0; i < devices->count; i++) {
		const struct virtio_device *virtio = devices->list[i].virtio;

		metrics_log(virtio->name, virtio->ops->counters, virtio->counters);
	}
}

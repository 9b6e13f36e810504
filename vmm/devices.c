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
#include "virtio/block/block.h"
#include "virtio/net/net.h"
#include "virtio/vsock/vsock.h"
#include "vmm/machine.h"
#include "vmm/metrics.h"

/* What drives have in flight is given so long to end when the VM has. */
#define DETACH_MS 200
/* And so long when it is to be paused. */
#define FREEZE_MS 500

_Static_assert(LAYOUT_VIRTIO_MAX == RINGS_MAX, "what the rings of all drives take is another");

static bool id_good(const char *id)
{
	size_t len = strlen(id);

	return len > 0 && len <= CONFIG_ID_SIZE_MAX &&
	       strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == len;
}

static int check_id(const char *field, const char *id, struct err *err)
{
	return id_good(id) ? 0
			   : err_set(err, EINVAL,
				     "%s: 1 to %d letters, digits and underscores are expected",
				     field, CONFIG_ID_SIZE_MAX);
}

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

static void free_config(struct device *device)
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

/* The one of that id, or of its kind if there is only one ever. */
static struct device *find(struct devices *devices, enum device_kind kind, const char *id)
{
	const struct device *device = NULL;

	while ((device = devices_next(devices, kind, device))) {
		if (!id || strcmp(id_of(device), id) == 0)
			break;
	}
	return device ? &devices->list[device - devices->list] : NULL;
}

/* Puts an opened device in the place of the one that it replaces, or at the end. */
static struct device *put(struct devices *devices, struct device *replaced, enum device_kind kind,
			  struct virtio_device *virtio)
{
	if (replaced) {
		virtio_device_close(replaced->virtio);
		free_config(replaced);
	} else {
		replaced = &devices->list[devices->count++];
	}
	*replaced = (struct device){ .kind = kind, .virtio = virtio };
	return replaced;
}

static int check_room(const struct devices *devices, const char *what, struct err *err)
{
	if (devices->count < LAYOUT_VIRTIO_MAX)
		return 0;
	return err_set(err, ENOSPC, "%s: a VM has room for %d devices", what, LAYOUT_VIRTIO_MAX);
}

static int check_drive(const struct devices *devices, const struct drive_config *config,
		       struct err *err)
{
	const struct device *other = NULL;
	int rc = check_id("drive_id", config->drive_id, err);

	if (rc < 0)
		return rc;
	/* It becomes a word of the kernel's command line. */
	if (config->partuuid &&
	    strspn(config->partuuid, "0123456789abcdefABCDEF-") != strlen(config->partuuid))
		return err_set(err, EINVAL, "partuuid: hexadecimal digits and dashes are expected");
	while (config->is_root_device && (other = devices_next(devices, DEVICE_DRIVE, other))) {
		const struct drive_config *drive = &other->config.drive;

		if (drive->is_root_device && strcmp(drive->drive_id, config->drive_id) != 0)
			return err_set(err, EINVAL, "is_root_device: drive %s is it already",
				       drive->drive_id);
	}
	return 0;
}

int devices_set_drive(struct devices *devices, struct drive_config *config, struct err *err)
{
	struct device *drive = find(devices, DEVICE_DRIVE, config->drive_id);
	const struct block_config block_config = {
		.id = config->drive_id,
		.path = config->path_on_host,
		.read_only = config->is_read_only,
		.writeback = config->cache_type == CACHE_WRITEBACK,
		.engine = (enum block_engine_kind)config->io_engine,
		.limiter = config->rate_limiter,
		.replaces = drive ? block_of(drive->virtio) : NULL,
	};
	struct block *block = NULL;
	int rc = check_drive(devices, config, err);

	if (rc == 0 && !drive)
		rc = check_room(devices, config->drive_id, err);
	if (rc == 0)
		rc = block_open(&block, &block_config, err);
	if (rc < 0)
		return rc;
	drive = put(devices, drive, DEVICE_DRIVE, block_device(block));
	drive->config.drive = *config;
	memset(config, 0, sizeof(*config));
	return 0;
}

/* Six pairs of hexadecimal digits with colons between them. */
static int parse_mac(const char *text, uint8_t mac[NET_MAC_SIZE])
{
	unsigned int bytes[NET_MAC_SIZE];
	int end = 0;

	if (strlen(text) != 17 || strspn(text, "0123456789abcdefABCDEF:") != 17 ||
	    sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &bytes[0], &bytes[1], &bytes[2], &bytes[3],
		   &bytes[4], &bytes[5], &end) != NET_MAC_SIZE ||
	    end != 17)
		return -EINVAL;
	for (unsigned int i = 0; i < NET_MAC_SIZE; i++)
		mac[i] = (uint8_t)bytes[i];
	return 0;
}

static int check_mac_free(const struct devices *devices,
			  const struct network_interface_config *config, struct err *err)
{
	const struct device *other = NULL;

	while ((other = devices_next(devices, DEVICE_INTERFACE, other))) {
		const struct network_interface_config *interface = &other->config.interface;

		if (interface->guest_mac &&
		    strcasecmp(interface->guest_mac, config->guest_mac) == 0 &&
		    strcmp(interface->iface_id, config->iface_id) != 0)
			return err_set(err, EEXIST, "guest_mac: %s is that of interface %s",
				       config->guest_mac, interface->iface_id);
	}
	return 0;
}

int devices_set_interface(struct devices *devices, struct network_interface_config *config,
			  struct err *err)
{
	struct device *interface = find(devices, DEVICE_INTERFACE, config->iface_id);
	uint8_t mac[NET_MAC_SIZE];
	const struct net_config net_config = {
		.id = config->iface_id,
		.tap = config->host_dev_name,
		.passt_socket = config->passt_socket,
		.passt_fd = config->passt_fd > 0 ? (int)config->passt_fd : -1,
		.mac = config->guest_mac ? mac : NULL,
		.mtu = (uint16_t)config->mtu,
		.rx_limiter = config->rx_rate_limiter,
		.tx_limiter = config->tx_rate_limiter,
		.replaces = interface ? net_of(interface->virtio) : NULL,
	};
	struct net *net;
	int rc = check_id("iface_id", config->iface_id, err);

	if (rc == 0 && !!config->host_dev_name + !!config->passt_socket + !!config->passt_fd != 1)
		rc = err_set(err, EINVAL,
			     "host_dev_name: either a tap device or passt is expected");
	if (rc == 0 && config->guest_mac && parse_mac(config->guest_mac, mac) < 0)
		rc = err_set(err, EINVAL,
			     "guest_mac: six pairs of hexadecimal digits with colons are expected");
	if (rc == 0 && config->guest_mac)
		rc = check_mac_free(devices, config, err);
	if (rc == 0 && !interface)
		rc = check_room(devices, config->iface_id, err);
	if (rc < 0)
		return rc;
	rc = net_open(&net, &net_config, err);
	if (rc < 0)
		return rc;
	interface = put(devices, interface, DEVICE_INTERFACE, net_device(net));
	interface->config.interface = *config;
	memset(config, 0, sizeof(*config));
	return 0;
}

int devices_set_vsock(struct devices *devices, struct vsock_device_config *config, struct err *err)
{
	struct device *device = find(devices, DEVICE_VSOCK, NULL);
	const struct vsock_config vsock_config = {
		.guest_cid = (uint64_t)config->guest_cid,
		.uds_path = config->uds_path,
		.replaces = device ? vsock_of(device->virtio) : NULL,
	};
	struct vsock *vsock = NULL;
	int rc = device ? 0 : check_room(devices, "vsock", err);

	if (rc == 0)
		rc = vsock_open(&vsock, &vsock_config, err);
	if (rc < 0)
		return rc;
	device = put(devices, device, DEVICE_VSOCK, vsock_device(vsock));
	device->config.vsock = *config;
	memset(config, 0, sizeof(*config));
	return 0;
}

void devices_close(struct devices *devices)
{
	(void)devices_detach(devices);
	for (unsigned int i = 0; i < devices->count; i++) {
		virtio_device_close(devices->list[i].virtio);
		free_config(&devices->list[i]);
	}
	memset(devices, 0, sizeof(*devices));
}

static int no_drive(const char *id, struct err *err)
{
	return err_set(err, ENOENT, "drive_id: there is no drive %s", id);
}

static int no_interface(const char *id, struct err *err)
{
	return err_set(err, ENOENT, "iface_id: there is no network interface %s", id);
}

/* Those after it move up, so that the order stays. */
static void remove_device(struct devices *devices, struct device *device)
{
	const struct device *end = &devices->list[devices->count--];

	virtio_device_close(device->virtio);
	free_config(device);
	memmove(device, device + 1, (size_t)(end - (device + 1)) * sizeof(*device));
}

int devices_remove_drive(struct devices *devices, const char *id, struct err *err)
{
	struct device *drive = find(devices, DEVICE_DRIVE, id);

	if (!drive)
		return no_drive(id, err);
	remove_device(devices, drive);
	return 0;
}

int devices_remove_interface(struct devices *devices, const char *id, struct err *err)
{
	struct device *interface = find(devices, DEVICE_INTERFACE, id);

	if (!interface)
		return no_interface(id, err);
	remove_device(devices, interface);
	return 0;
}

int devices_update_drive(struct devices *devices, const struct drive_update *update,
			 struct err *err)
{
	struct device *device = find(devices, DEVICE_DRIVE, update->drive_id);
	struct block *block;

	if (!device)
		return no_drive(update->drive_id, err);
	block = block_of(device->virtio);
	if (update->path_on_host) {
		char *path = strdup(update->path_on_host);
		int rc = path ? block_replace_file(block, path, err)
			      : err_sys(err, ENOMEM, "drive %s", update->drive_id);

		if (rc < 0) {
			free(path);
			return rc;
		}
		free(device->config.drive.path_on_host);
		device->config.drive.path_on_host = path;
	}
	if (update->has_rate_limiter) {
		block_set_limiter(block, &update->rate_limiter);
		device->config.drive.rate_limiter = update->rate_limiter;
	}
	return 0;
}

int devices_update_interface(struct devices *devices, const struct network_interface_update *update,
			     struct err *err)
{
	struct device *interface = find(devices, DEVICE_INTERFACE, update->iface_id);

	if (!interface)
		return no_interface(update->iface_id, err);
	net_set_limiters(net_of(interface->virtio),
			 update->has_rx_rate_limiter ? &update->rx_rate_limiter : NULL,
			 update->has_tx_rate_limiter ? &update->tx_rate_limiter : NULL);
	if (update->has_rx_rate_limiter)
		interface->config.interface.rx_rate_limiter = update->rx_rate_limiter;
	if (update->has_tx_rate_limiter)
		interface->config.interface.tx_rate_limiter = update->tx_rate_limiter;
	return 0;
}

int devices_check_interfaces(struct devices *devices, char *const *ids, struct err *err)
{
	for (unsigned int i = 0; ids[i]; i++) {
		if (!find(devices, DEVICE_INTERFACE, ids[i]))
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
		struct device *interface = find(devices, DEVICE_INTERFACE, *id);
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

/* SPDX-License-Identifier: Apache-2.0 */
/* Devices are opened when they are configured, so that a mistake shows early. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "virtio/block/block.h"
#include "virtio/net/net.h"
#include "virtio/vsock/vsock.h"
#include "vmm/devices_internal.h"

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

/* Puts an opened device in the place of the one that it replaces, or at the end. */
static struct device *put(struct devices *devices, struct device *replaced, enum device_kind kind,
			  struct virtio_device *virtio)
{
	if (replaced) {
		virtio_device_close(replaced->virtio);
		device_free_config(replaced);
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
	struct device *drive = devices_find(devices, DEVICE_DRIVE, config->drive_id);
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
	struct device *interface = devices_find(devices, DEVICE_INTERFACE, config->iface_id);
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
	struct device *device = devices_find(devices, DEVICE_VSOCK, NULL);
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
	device_free_config(device);
	memmove(device, device + 1, (size_t)(end - (device + 1)) * sizeof(*device));
}

int devices_remove_drive(struct devices *devices, const char *id, struct err *err)
{
	struct device *drive = devices_find(devices, DEVICE_DRIVE, id);

	if (!drive)
		return no_drive(id, err);
	remove_device(devices, drive);
	return 0;
}

int devices_remove_interface(struct devices *devices, const char *id, struct err *err)
{
	struct device *interface = devices_find(devices, DEVICE_INTERFACE, id);

	if (!interface)
		return no_interface(id, err);
	remove_device(devices, interface);
	return 0;
}

int devices_update_drive(struct devices *devices, const struct drive_update *update,
			 struct err *err)
{
	struct device *device = devices_find(devices, DEVICE_DRIVE, update->drive_id);
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
	struct device *interface = devices_find(devices, DEVICE_INTERFACE, update->iface_id);

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

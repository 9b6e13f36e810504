/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/devices.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/metrics.h"
#include "base/ring_memory.h"
#include "mmds/mmds.h"
#include "mmds/responder.h"
#include "mmds/server.h"
#include "virtio/block.h"
#include "virtio/net.h"
#include "virtio/vsock.h"
#include "vmm/machine.h"
#include "vmm/metrics.h"

/* What drives have in flight is given so long to end when the VM has. */
#define DETACH_MS 200

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

static struct drive *find_drive(struct devices *devices, const char *id)
{
	for (unsigned int i = 0; i < devices->drive_count; i++) {
		if (strcmp(devices->drives[i].config.drive_id, id) == 0)
			return &devices->drives[i];
	}
	return NULL;
}

static struct network_interface *find_interface(struct devices *devices, const char *id)
{
	for (unsigned int i = 0; i < devices->interface_count; i++) {
		if (strcmp(devices->interfaces[i].config.iface_id, id) == 0)
			return &devices->interfaces[i];
	}
	return NULL;
}

static int check_room(const struct devices *devices, const char *what, struct err *err)
{
	if (devices->drive_count + devices->interface_count + (devices->vsock ? 1 : 0) <
	    LAYOUT_VIRTIO_MAX)
		return 0;
	return err_set(err, ENOSPC, "%s: a VM has room for %d devices", what, LAYOUT_VIRTIO_MAX);
}

static int check_drive(const struct devices *devices, const struct drive_config *config,
		       struct err *err)
{
	int rc = check_id("drive_id", config->drive_id, err);

	if (rc < 0)
		return rc;
	/* It becomes a word of the kernel's command line. */
	if (config->partuuid &&
	    strspn(config->partuuid, "0123456789abcdefABCDEF-") != strlen(config->partuuid))
		return err_set(err, EINVAL, "partuuid: hexadecimal digits and dashes are expected");
	for (unsigned int i = 0; config->is_root_device && i < devices->drive_count; i++) {
		const struct drive_config *other = &devices->drives[i].config;

		if (other->is_root_device && strcmp(other->drive_id, config->drive_id) != 0)
			return err_set(err, EINVAL, "is_root_device: drive %s is it already",
				       other->drive_id);
	}
	return 0;
}

int devices_set_drive(struct devices *devices, struct drive_config *config, struct err *err)
{
	struct drive *drive = find_drive(devices, config->drive_id);
	const struct block_config block_config = {
		.id = config->drive_id,
		.path = config->path_on_host,
		.read_only = config->is_read_only,
		.writeback = config->cache_type == CACHE_WRITEBACK,
		.engine = (enum block_engine_kind)config->io_engine,
		.limiter = config->rate_limiter,
		.replaces = drive ? drive->block : NULL,
	};
	struct block *block = NULL;
	int rc = check_drive(devices, config, err);

	if (rc == 0 && !drive)
		rc = check_room(devices, config->drive_id, err);
	if (rc == 0)
		rc = block_open(&block, &block_config, err);
	if (rc < 0)
		return rc;
	if (drive) {
		block_close(drive->block);
		drive_config_free(&drive->config);
	} else {
		drive = &devices->drives[devices->drive_count++];
	}
	drive->block = block;
	drive->config = *config;
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
	for (unsigned int i = 0; i < devices->interface_count; i++) {
		const struct network_interface_config *other = &devices->interfaces[i].config;

		if (other->guest_mac && strcasecmp(other->guest_mac, config->guest_mac) == 0 &&
		    strcmp(other->iface_id, config->iface_id) != 0)
			return err_set(err, EEXIST, "guest_mac: %s is that of interface %s",
				       config->guest_mac, other->iface_id);
	}
	return 0;
}

int devices_set_interface(struct devices *devices, struct network_interface_config *config,
			  struct err *err)
{
	struct network_interface *interface = find_interface(devices, config->iface_id);
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
		.replaces = interface ? interface->net : NULL,
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
	if (interface) {
		net_close(interface->net);
		network_interface_config_free(&interface->config);
	} else {
		interface = &devices->interfaces[devices->interface_count++];
	}
	interface->net = net;
	interface->responder = NULL;
	interface->config = *config;
	memset(config, 0, sizeof(*config));
	return 0;
}

int devices_set_vsock(struct devices *devices, struct vsock_device_config *config, struct err *err)
{
	const struct vsock_config vsock_config = {
		.guest_cid = (uint64_t)config->guest_cid,
		.uds_path = config->uds_path,
		.replaces = devices->vsock,
	};
	struct vsock *vsock = NULL;
	int rc = devices->vsock ? 0 : check_room(devices, "vsock", err);

	if (rc == 0)
		rc = vsock_open(&vsock, &vsock_config, err);
	if (rc < 0)
		return rc;
	vsock_close(devices->vsock);
	vsock_device_config_free(&devices->vsock_config);
	devices->vsock = vsock;
	devices->vsock_config = *config;
	memset(config, 0, sizeof(*config));
	return 0;
}

void devices_close(struct devices *devices)
{
	(void)devices_detach(devices);
	for (unsigned int i = 0; i < devices->drive_count; i++) {
		block_close(devices->drives[i].block);
		drive_config_free(&devices->drives[i].config);
	}
	for (unsigned int i = 0; i < devices->interface_count; i++) {
		net_close(devices->interfaces[i].net);
		network_interface_config_free(&devices->interfaces[i].config);
	}
	vsock_close(devices->vsock);
	vsock_device_config_free(&devices->vsock_config);
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

/* Those behind it move up, so that the order stays. */
int devices_remove_drive(struct devices *devices, const char *id, struct err *err)
{
	struct drive *drive = find_drive(devices, id);
	struct drive *last = &devices->drives[devices->drive_count];

	if (!drive)
		return no_drive(id, err);
	block_close(drive->block);
	drive_config_free(&drive->config);
	devices->drive_count--;
	memmove(drive, drive + 1, (size_t)((char *)last - (char *)(drive + 1)));
	return 0;
}

int devices_remove_interface(struct devices *devices, const char *id, struct err *err)
{
	struct network_interface *interface = find_interface(devices, id);
	struct network_interface *last = &devices->interfaces[devices->interface_count];

	if (!interface)
		return no_interface(id, err);
	net_close(interface->net);
	network_interface_config_free(&interface->config);
	devices->interface_count--;
	memmove(interface, interface + 1, (size_t)((char *)last - (char *)(interface + 1)));
	return 0;
}

int devices_update_drive(struct devices *devices, const struct drive_update *update,
			 struct err *err)
{
	struct drive *drive = find_drive(devices, update->drive_id);

	if (!drive)
		return no_drive(update->drive_id, err);
	if (update->path_on_host) {
		char *path = strdup(update->path_on_host);
		int rc = path ? block_replace_file(drive->block, path, err)
			      : err_sys(err, ENOMEM, "drive %s", update->drive_id);

		if (rc < 0) {
			free(path);
			return rc;
		}
		free(drive->config.path_on_host);
		drive->config.path_on_host = path;
	}
	if (update->has_rate_limiter) {
		block_set_limiter(drive->block, &update->rate_limiter);
		drive->config.rate_limiter = update->rate_limiter;
	}
	return 0;
}

int devices_update_interface(struct devices *devices, const struct network_interface_update *update,
			     struct err *err)
{
	struct network_interface *interface = find_interface(devices, update->iface_id);

	if (!interface)
		return no_interface(update->iface_id, err);
	net_set_limiters(interface->net,
			 update->has_rx_rate_limiter ? &update->rx_rate_limiter : NULL,
			 update->has_tx_rate_limiter ? &update->tx_rate_limiter : NULL);
	if (update->has_rx_rate_limiter)
		interface->config.rx_rate_limiter = update->rx_rate_limiter;
	if (update->has_tx_rate_limiter)
		interface->config.tx_rate_limiter = update->tx_rate_limiter;
	return 0;
}

int devices_check_interfaces(struct devices *devices, char *const *ids, struct err *err)
{
	for (unsigned int i = 0; ids[i]; i++) {
		if (!find_interface(devices, ids[i]))
			return err_set(err, ENOENT,
				       "network_interfaces[%u]: there is no network interface %s",
				       i, ids[i]);
	}
	return 0;
}

unsigned int devices_list(const struct devices *devices, struct virtio_device **list)
{
	unsigned int count = 0;

	/* The root drive is /dev/vda. */
	for (int root = 1; root >= 0; root--) {
		for (unsigned int i = 0; i < devices->drive_count; i++) {
			if (devices->drives[i].config.is_root_device == root)
				list[count++] = block_device(devices->drives[i].block);
		}
	}
	for (unsigned int i = 0; i < devices->interface_count; i++)
		list[count++] = net_device(devices->interfaces[i].net);
	if (devices->vsock)
		list[count++] = vsock_device(devices->vsock);
	return count;
}

static void write_root(FILE *out, const struct devices *devices)
{
	for (unsigned int i = 0; i < devices->drive_count; i++) {
		const struct drive_config *config = &devices->drives[i].config;

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
	char path[PATH_MAX];

	if (!devices->vsock)
		return err_set(err, ENOENT, "mmds-config: vsock_port: there is no vsock");
	if (snprintf(path, sizeof(path), "%s_%" PRId64, devices->vsock_config.uds_path, port) >=
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
		struct network_interface *interface = find_interface(devices, *id);
		int rc;

		if (!interface)
			return err_set(err, ENOENT, "mmds-config: there is no network interface %s",
				       *id);
		if (interface->responder)
			continue; /* named twice */
		rc = responder_open(&interface->responder, mmds, address,
				    net_backend(interface->net), NULL, err);
		if (rc < 0)
			return rc;
		net_set_front(interface->net, responder_backend(interface->responder));
	}
	return config->vsock_port
		       ? serve_mmds_by_vsock(devices, mmds, config->vsock_port, base, err)
		       : 0;
}

static void forget_mmds(struct network_interface *interface)
{
	net_set_front(interface->net, NULL);
	responder_close(interface->responder);
	interface->responder = NULL;
}

int devices_attach(struct devices *devices, const struct guest_memory *memory,
		   struct event_base *base, block_confine *confine, struct err *err)
{
	struct virtio_device *list[LAYOUT_VIRTIO_MAX];
	unsigned int count = devices_list(devices, list);
	int rc = 0;

	batching_open(&devices->batching, base);
	for (unsigned int i = 0; i < count && rc == 0; i++) {
		list[i]->interrupts = &devices->interrupts;
		rc = virtio_device_attach(list[i], memory, base, &devices->batching, err);
	}
	for (unsigned int i = 0; i < devices->drive_count && rc == 0; i++)
		rc = block_attach(devices->drives[i].block, base, confine, err);
	for (unsigned int i = 0; i < devices->interface_count && rc == 0; i++)
		rc = net_attach(devices->interfaces[i].net, base, err);
	if (rc == 0 && devices->vsock)
		rc = vsock_attach(devices->vsock, base, err);
	if (rc < 0)
		(void)devices_detach(devices);
	return rc;
}

void devices_pause(struct devices *devices, bool paused)
{
	for (unsigned int i = 0; i < devices->interface_count; i++)
		net_pause(devices->interfaces[i].net, paused);
}

/* All drives together. */
static bool detach_drives(struct devices *devices)
{
	const int64_t end = monotonic_ns() + DETACH_MS * INT64_C(1000000);
	bool settled = true;

	for (unsigned int i = 0; i < devices->drive_count; i++) {
		const int64_t left = (end - monotonic_ns()) / 1000000;

		if (!block_detach(devices->drives[i].block, left > 0 ? (int)left : 0))
			settled = false;
	}
	return settled;
}

bool devices_detach(struct devices *devices)
{
	struct virtio_device *list[LAYOUT_VIRTIO_MAX];
	unsigned int count = devices_list(devices, list);
	bool settled = detach_drives(devices);

	for (unsigned int i = 0; i < devices->interface_count; i++) {
		net_detach(devices->interfaces[i].net);
		forget_mmds(&devices->interfaces[i]);
	}
	if (devices->vsock)
		vsock_detach(devices->vsock);
	server_close(devices->metadata);
	devices->metadata = NULL;
	for (unsigned int i = 0; i < count; i++)
		virtio_device_detach(list[i]);
	batching_close(&devices->batching);
	return settled;
}

void devices_add_metrics(const struct devices *devices, struct metrics *metrics)
{
	for (unsigned int i = 0; i < devices->drive_count; i++)
		metrics_add(metrics, METRICS_BLOCK, devices->drives[i].config.drive_id,
			    block_metrics(devices->drives[i].block), 1, 0);
	for (unsigned int i = 0; i < devices->interface_count; i++)
		metrics_add(metrics, METRICS_NET, devices->interfaces[i].config.iface_id,
			    net_metrics(devices->interfaces[i].net), 1, 0);
	metrics_add(metrics, METRICS_INTERRUPTS, NULL, &devices->interrupts, 1, 0);
	if (devices->vsock)
		metrics_add(metrics, METRICS_VSOCK, NULL, vsock_metrics(devices->vsock), 1, 0);
}

void devices_log_metrics(const struct devices *devices)
{
	for (unsigned int i = 0; i < devices->drive_count; i++)
		metrics_log(block_device(devices->drives[i].block)->name, block_metric_table,
			    block_metrics(devices->drives[i].block));
	for (unsigned int i = 0; i < devices->interface_count; i++)
		metrics_log(net_device(devices->interfaces[i].net)->name, net_metric_table,
			    net_metrics(devices->interfaces[i].net));
	if (devices->vsock)
		metrics_log("vsock", vsock_metric_table, vsock_metrics(devices->vsock));
}

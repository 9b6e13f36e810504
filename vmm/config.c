/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/config.h"

#include <stdlib.h>
#include <string.h>

void boot_source_config_free(struct boot_source_config *config)
{
	free(config->kernel_image_path);
	free(config->initrd_path);
	free(config->boot_args);
	memset(config, 0, sizeof(*config));
}

void logger_config_free(struct logger_config *config)
{
	free(config->log_path);
	free(config->level);
	free(config->module);
	memset(config, 0, sizeof(*config));
}

void serial_config_free(struct serial_config *config)
{
	free(config->serial_out_path);
	memset(config, 0, sizeof(*config));
}

void drive_config_free(struct drive_config *config)
{
	free(config->drive_id);
	free(config->path_on_host);
	free(config->partuuid);
	memset(config, 0, sizeof(*config));
}

void network_interface_config_free(struct network_interface_config *config)
{
	free(config->iface_id);
	free(config->host_dev_name);
	free(config->passt_socket);
	free(config->guest_mac);
	memset(config, 0, sizeof(*config));
}

void vsock_device_config_free(struct vsock_device_config *config)
{
	free(config->uds_path);
	free(config->vsock_id);
	memset(config, 0, sizeof(*config));
}

void mmds_config_free(struct mmds_config *config)
{
	for (char **id = config->network_interfaces; id && *id; id++)
		free(*id);
	free(config->network_interfaces);
	free(config->ipv4_address);
	memset(config, 0, sizeof(*config));
}

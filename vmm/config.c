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

void serial_config_free(struct serial_config *config)
{
	free(config->serial_out_path);
	memset(config, 0, sizeof(*config));
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON bodies to configuration, one function a body. The API and the configuration file share them.
 */
#ifndef MOTE_API_SOCKET_BODIES_H
#define MOTE_API_SOCKET_BODIES_H

#include <jansson.h>
#include <stddef.h>

#include "vmm/config.h"

struct err;

struct logger_config {
	char *log_path;
	char *level;
	bool show_level;
	bool show_log_origin;
	char *module;
};

void logger_config_free(struct logger_config *config);

/*
 * Parses text of len bytes as one JSON object, refusing duplicate keys. NULL with err set; `what`
 * names the text in the sentence. The caller owns the object.
 */
json_t *body_parse(const char *text, size_t len, const char *what, struct err *err);

/*
 * Each fills *config, which the caller has set to the defaults and frees in any case. Unknown
 * fields, wrong types, values out of range and missing fields: -EINVAL with err naming the field.
 */
int body_boot_source(const json_t *body, struct boot_source_config *config, struct err *err);
int body_machine(const json_t *body, struct machine_config *config, struct err *err);
int body_serial(const json_t *body, struct serial_config *config, struct err *err);
int body_drive(const json_t *body, struct drive_config *config, struct err *err);
int body_drive_update(const json_t *body, struct drive_update *update, struct err *err);
int body_network_interface(const json_t *body, struct network_interface_config *config,
			   struct err *err);
int body_network_interface_update(const json_t *body, struct network_interface_update *update,
				  struct err *err);
int body_vsock(const json_t *body, struct vsock_device_config *config, struct err *err);
int body_logger(const json_t *body, struct logger_config *config, struct err *err);

#endif

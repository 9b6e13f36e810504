/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON bodies to configuration, one function a body. The API and the configuration file share them.
 */
#ifndef MOTE_API_SOCKET_BODIES_H
#define MOTE_API_SOCKET_BODIES_H

#include <jansson.h>

#include "vmm/config.h"

struct err;

enum body_action { ACTION_INSTANCE_START, ACTION_FLUSH_METRICS, ACTION_SEND_CTRL_ALT_DEL };
enum body_vm_state { VM_STATE_PAUSED, VM_STATE_RESUMED };

/*
 * Each fills *config, which the caller has set to the defaults and frees in any case. Unknown
 * fields, wrong types, values out of range and missing fields: -EINVAL with err naming the field.
 */
int body_boot_source(const json_t *body, struct boot_source_config *config, struct err *err);
int body_machine(const json_t *body, struct machine_config *config, struct err *err);
/* The same with every field optional. */
int body_machine_update(const json_t *body, struct machine_config *config, struct err *err);
int body_serial(const json_t *body, struct serial_config *config, struct err *err);
int body_drive(const json_t *body, struct drive_config *config, struct err *err);
int body_drive_update(const json_t *body, struct drive_update *update, struct err *err);
int body_network_interface(const json_t *body, struct network_interface_config *config,
			   struct err *err);
int body_network_interface_update(const json_t *body, struct network_interface_update *update,
				  struct err *err);
int body_vsock(const json_t *body, struct vsock_device_config *config, struct err *err);
int body_mmds(const json_t *body, struct mmds_config *config, struct err *err);
int body_action(const json_t *body, enum body_action *action, struct err *err);
int body_vm_state(const json_t *body, enum body_vm_state *state, struct err *err);
int body_logger(const json_t *body, struct logger_config *config, struct err *err);

/* The other way; the caller owns the object. NULL without memory. */
json_t *body_of_boot_source(const struct boot_source_config *config);
json_t *body_of_machine(const struct machine_config *config);
json_t *body_of_serial(const struct serial_config *config);
json_t *body_of_drive(const struct drive_config *config);
json_t *body_of_network_interface(const struct network_interface_config *config);
json_t *body_of_vsock(const struct vsock_device_config *config);
json_t *body_of_mmds(const struct mmds_config *config);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* All bodies there are, but for cpu_config.h's. The API and the configuration file share them. */
#ifndef MOTE_API_SOCKET_BODIES_H
#define MOTE_API_SOCKET_BODIES_H

#include "api-socket/body.h"

extern const struct body body_boot_source;
extern const struct body body_machine;
extern const struct body body_machine_update;
extern const struct body body_serial;
extern const struct body body_drive;
extern const struct body body_drive_update;
extern const struct body body_network_interface;
extern const struct body body_network_interface_update;
extern const struct body body_vsock;
extern const struct body body_mmds;
extern const struct body body_metadata;
extern const struct body body_metadata_update;
extern const struct body body_logger;
extern const struct body body_metrics;
extern const struct body body_action;
extern const struct body body_vm_state;
/* Of snapshot.c. */
extern const struct body body_snapshot_create;
extern const struct body body_snapshot_load;

#endif

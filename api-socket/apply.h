/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsed bodies to a VM: what the API's PUT and PATCH and the configuration file share. 0 or -errno
 * with err naming the field; a call that fails changes nothing.
 */
#ifndef MOTE_API_SOCKET_APPLY_H
#define MOTE_API_SOCKET_APPLY_H

#include <jansson.h>

struct control;
struct err;

typedef int apply_body(struct control *control, const json_t *body, struct err *err);

apply_body apply_boot_source;
apply_body apply_machine;
apply_body apply_mmds;
apply_body apply_metadata;
apply_body apply_metadata_update;
apply_body apply_machine_update;
apply_body apply_cpu_config; /* cpu_config.c */
apply_body apply_metrics;    /* metrics_config.c */
apply_body apply_serial;
apply_body apply_drive;
apply_body apply_drive_update;
apply_body apply_network_interface;
apply_body apply_network_interface_update;
apply_body apply_vsock;
apply_body apply_logger;
apply_body apply_action;
apply_body apply_vm_state;

#endif

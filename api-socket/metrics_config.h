/* SPDX-License-Identifier: Apache-2.0 */
/* The body of /metrics, and the section of the configuration file: where the metrics go. */
#ifndef MOTE_API_SOCKET_METRICS_CONFIG_H
#define MOTE_API_SOCKET_METRICS_CONFIG_H

#include <jansson.h>

struct err;
struct metrics_config;

/* As the bodies in bodies.h. */
int body_metrics(const json_t *body, struct metrics_config *config, struct err *err);

#endif

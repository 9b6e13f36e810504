/* SPDX-License-Identifier: Apache-2.0 */
/* Custom CPU templates as JSON, both ways (Firecracker's format, docs/cpu-config.md). */
#ifndef MOTE_API_SOCKET_CPU_CONFIG_H
#define MOTE_API_SOCKET_CPU_CONFIG_H

#include <jansson.h>

struct cpu_template;
struct err;

/*
 * Fills *template, which the caller has zeroed and frees in any case. -EINVAL with err naming the
 * field by its path ("cpuid_modifiers[2].modifiers[0].bitmap: ...").
 */
int body_cpu_config(const json_t *body, struct cpu_template *template, struct err *err);

/* A body that gives the same template. The caller owns it; NULL without memory. */
json_t *cpu_config_json(const struct cpu_template *template);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Custom CPU templates as JSON (Firecracker's format, docs/cpu-config.md). */
#ifndef MOTE_API_SOCKET_CPU_CONFIG_H
#define MOTE_API_SOCKET_CPU_CONFIG_H

#include "api-socket/body.h"

extern const struct body body_cpu_config; /* of a struct cpu_template */

#endif

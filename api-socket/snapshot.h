/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots, as the API asks for them: Firecracker's bodies. */
#ifndef MOTE_API_SOCKET_SNAPSHOT_H
#define MOTE_API_SOCKET_SNAPSHOT_H

#include "api-socket/body.h"

extern const struct body body_snapshot_create;
extern const struct body body_snapshot_load;

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* What devices.c (the list, and its life) and devices_config.c (what is in it) have of each other.
 */
#ifndef MOTE_VMM_DEVICES_INTERNAL_H
#define MOTE_VMM_DEVICES_INTERNAL_H

#include "vmm/devices.h"

/* The one of that id, or of its kind if that is NULL; NULL if there is none. */
struct device *devices_find(struct devices *devices, enum device_kind kind, const char *id);

/* Frees what its kind's configuration owns. */
void device_free_config(struct device *device);

#endif

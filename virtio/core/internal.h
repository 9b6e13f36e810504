/* SPDX-License-Identifier: Apache-2.0 */
/* What of a device's saved state its transport and the device share. */
#ifndef MOTE_VIRTIO_CORE_INTERNAL_H
#define MOTE_VIRTIO_CORE_INTERNAL_H

#include <stdint.h>

#include "base/state.h"

struct err;

/* Kinds of sections; one in the other. The innermost one has the device type for its kind. */
enum virtio_state_kind { VIRTIO_STATE_MMIO = 1, VIRTIO_STATE_DEVICE };

/*
 * The next section, which must be of this kind, and of a version from 1 to `version`. 0 or -errno
 * with err set; `name` is the device's.
 */
int virtio_state_section(struct state_reader *in, struct state_section *section, const char *name,
			 uint32_t kind, uint32_t version, struct err *err);

#endif

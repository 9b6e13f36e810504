/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine as sections of a snapshot's state file, from SNAPSHOT_MACHINE to SNAPSHOT_VIRTIO.
 */
#ifndef MOTE_VMM_MACHINE_STATE_H
#define MOTE_VMM_MACHINE_STATE_H

#include <stdbool.h>

#include "base/state.h"

struct err;
struct machine;
struct memory_pieces;

/*
 * Adds its sections; its vCPUs are paused and its devices frozen, and its memory was written so. 0
 * or -errno with err set.
 */
int machine_save(const struct machine *machine, const struct memory_pieces *pieces,
		 struct state_writer *file, struct err *err);

/*
 * In the place of machine_boot(), once the devices are attached: its memory becomes that file's,
 * and the rest what the sections say; with clock_realtime its clocks have gone on meanwhile. The
 * vCPUs are paused afterwards, and the devices frozen. The sections and the file may be hostile. 0
 * or -errno with err set; then it is only good to be closed.
 */
int machine_restore(struct machine *machine, int memory_fd, bool clock_realtime,
		    struct state_reader *sections, struct err *err);

#endif

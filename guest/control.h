/* SPDX-License-Identifier: Apache-2.0 */
/* Requests about the machine as a whole, each answered at once. */
#ifndef MOTE_GUEST_CONTROL_H
#define MOTE_GUEST_CONTROL_H

#include <jansson.h>
#include <stdint.h>

struct failure;

/* Each gives the result, a new object; or NULL with failure set. */
json_t *control_stats(unsigned int streams, const json_t *value, struct failure *failure);
/*
 * After a snapshot was restored, what the guest cannot know by itself; *last_epoch is that of the
 * resume before.
 */
json_t *control_resume(int64_t *last_epoch, const json_t *value, struct failure *failure);

#endif

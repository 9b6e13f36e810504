/* SPDX-License-Identifier: Apache-2.0 */
/* Requests about the machine as a whole, each answered at once. */
#ifndef MOTE_INIT_CONTROL_H
#define MOTE_INIT_CONTROL_H

#include <jansson.h>

struct agent;
struct failure;

/* Each gives the result, a new object; or NULL with failure set. */
json_t *control_stats(const struct agent *agent, const json_t *value, struct failure *failure);
/* After a snapshot was restored: what the guest cannot know by itself. */
json_t *control_resume(struct agent *agent, const json_t *value, struct failure *failure);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * put and get: trees of files as tar streams. Each is served by a process of its own, so that
 * neither a slow drive nor a bad stream is the agent's concern.
 */
#ifndef MOTE_GUEST_FILES_H
#define MOTE_GUEST_FILES_H

#include <jansson.h>

struct failure;
struct stream;

/*
 * Starts a process that serves the request on the stream, which is no longer the caller's business
 * then. 0 or -1 with failure set.
 */
int files_put(const json_t *value, struct stream *stream, struct failure *failure);
int files_get(const json_t *value, struct stream *stream, struct failure *failure);
/* Everything that was written goes to its drive; likewise. */
int files_sync(const json_t *value, struct stream *stream, struct failure *failure);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the API tells of a VM, which has an id. Each returns an object that the caller owns; NULL
 * without memory.
 */
#ifndef MOTE_API_SOCKET_DESCRIBE_H
#define MOTE_API_SOCKET_DESCRIBE_H

#include <jansson.h>

struct control;
struct vm_end;

json_t *describe_instance(const struct control *control, const char *id);
json_t *describe_version(const struct control *control, const char *id);
json_t *describe_machine(const struct control *control, const char *id);

/* What /events tells: the state that the VM is in; when its phases were reached; its end. */
json_t *describe_state_event(const struct control *control);
json_t *describe_phases_event(const struct control *control);
json_t *describe_end_event(const struct vm_end *end);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Words of a command, which may be any bytes, where JSON takes UTF-8 alone. */
#ifndef MOTE_HOST_BYTES_H
#define MOTE_HOST_BYTES_H

#include <jansson.h>

/* As the agent's protocol has them: a string, or {"base64": "..."}. New values. */
json_t *bytes_encode(const char *text);
/* Of a list of strings that json_string_nocheck made. */
json_t *bytes_encode_list(const json_t *list);

/* For people: what is not UTF-8 is shown as question marks. A new list of strings. */
json_t *bytes_readable_list(const json_t *list);

#endif

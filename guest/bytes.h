/* SPDX-License-Identifier: Apache-2.0 */
/* Strings of a request that may be any bytes but 0: {"base64": "..."} where they are not UTF-8. */
#ifndef MOTE_GUEST_BYTES_H
#define MOTE_GUEST_BYTES_H

#include <jansson.h>

/* A new string, whose bytes need not be UTF-8; NULL if the value is none. */
json_t *bytes_decode(const json_t *value);
/* The same of each of a list, in place. 0 or -1 if the value is no such list. */
int bytes_decode_list(json_t *list);

#endif

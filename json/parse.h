/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MOTE_JSON_PARSE_H
#define MOTE_JSON_PARSE_H

#include <jansson.h>
#include <stddef.h>

struct err;

/*
 * Parses text of len bytes as one JSON object, refusing duplicate keys. NULL with err set; `what`
 * names the text in the sentence. The caller owns the object.
 */
json_t *parse_object(const char *text, size_t len, const char *what, struct err *err);

#endif

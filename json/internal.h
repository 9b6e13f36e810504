/* SPDX-License-Identifier: Apache-2.0 */
/* What reading and writing by tables have of each other. */
#ifndef MOTE_JSON_INTERNAL_H
#define MOTE_JSON_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

struct field;

bool fields_zero(const char *bytes, size_t size);

/* The next entry of a FIELD_LIST after `before`, NULL: the first; NULL if there is none. */
char *fields_next_entry(const struct field *field, const char *config, const char *before);

#endif

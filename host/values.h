/* SPDX-License-Identifier: Apache-2.0 */
/* Values of options as people write them. */
#ifndef MOTE_HOST_VALUES_H
#define MOTE_HOST_VALUES_H

#include <stdint.h>

/* A whole number from 1 that fits an int; 0 or -EINVAL. */
int value_number(const char *text, int *number);

/* MiB, or with a unit: 512M, 2G. 0 or -EINVAL. */
int value_mib(const char *text, int *mib);

/* Seconds, or with a unit: 500ms, 10s, 1.5m, 2h. 0 or -EINVAL. */
int value_duration(const char *text, int64_t *ms);

#endif

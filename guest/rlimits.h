/* SPDX-License-Identifier: Apache-2.0 */
/* Resource limits that a program is started with, by the names that setrlimit(2) has for them. */
#ifndef MOTE_GUEST_RLIMITS_H
#define MOTE_GUEST_RLIMITS_H

#include <jansson.h>
#include <sys/resource.h>

struct failure;

struct limits {
	unsigned int given; /* a bit each of the resources below */
	struct rlimit values[RLIMIT_NLIMITS];
};

/*
 * {"nofile": [SOFT, HARD], ...}, with -1 for no limit; NULL: none. 0 or -1 with failure set.
 */
int limits_parse(struct limits *limits, const json_t *json, struct failure *failure);
/* Of the calling process. 0 or -1 with errno set. */
int limits_set(const struct limits *limits);

#endif

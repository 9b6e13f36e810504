/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/rlimits.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/array.h"
#include "guest/failure.h"

static const struct {
	const char *name;
	int resource;
} known[] = {
	{ "as", RLIMIT_AS },
	{ "core", RLIMIT_CORE },
	{ "cpu", RLIMIT_CPU },
	{ "data", RLIMIT_DATA },
	{ "fsize", RLIMIT_FSIZE },
	{ "locks", RLIMIT_LOCKS },
	{ "memlock", RLIMIT_MEMLOCK },
	{ "msgqueue", RLIMIT_MSGQUEUE },
	{ "nice", RLIMIT_NICE },
	{ "nofile", RLIMIT_NOFILE },
	{ "nproc", RLIMIT_NPROC },
	{ "rss", RLIMIT_RSS },
	{ "rtprio", RLIMIT_RTPRIO },
	{ "rttime", RLIMIT_RTTIME },
	{ "sigpending", RLIMIT_SIGPENDING },
	{ "stack", RLIMIT_STACK },
};

static int find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (strcmp(name, known[i].name) == 0)
			return known[i].resource;
	}
	return -1;
}

static bool parse_pair(json_t *json, struct rlimit *limit)
{
	json_int_t soft, hard;

	if (json_unpack(json, "[I, I !]", &soft, &hard) < 0 || soft < -1 || hard < -1)
		return false;
	/* -1 is what the kernel has for no limit, too. */
	*limit = (struct rlimit){ (rlim_t)soft, (rlim_t)hard };
	return true;
}

int limits_parse(struct limits *limits, const json_t *json, struct failure *failure)
{
	const char *name;
	json_t *value;

	*limits = (struct limits){ 0 };
	if (!json)
		return 0;
	if (!json_is_object(json))
		return failure_set(failure, "exec: rlimits: an object is expected");
	/* The iterator only reads. */
	json_object_foreach ((json_t *)(uintptr_t)json, name, value) {
		const int resource = find(name);

		if (resource < 0)
			return failure_set(failure, "exec: rlimits: there is none called %s", name);
		if (!parse_pair(value, &limits->values[resource]))
			return failure_set(failure, "exec: rlimits: %s: [SOFT, HARD] is expected",
					   name);
		limits->given |= 1U << resource;
	}
	return 0;
}

int limits_set(const struct limits *limits)
{
	for (int i = 0; limits->given >> i; i++) {
		if (limits->given & 1U << i &&
		    setrlimit((__rlimit_resource_t)i, &limits->values[i]) < 0)
			return -1;
	}
	return 0;
}

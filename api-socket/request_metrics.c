/* SPDX-License-Identifier: Apache-2.0 */
#include "api-socket/request_metrics.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/array.h"
#include "vmm/metrics.h"

#define NONE SIZE_MAX
#define GET(name) offsetof(struct metrics, get_requests.name##_count), NONE
#define PUT(name)                                                                                  \
	offsetof(struct metrics, put_requests.name##_count),                                       \
		offsetof(struct metrics, put_requests.name##_fails)
#define PATCH(name)                                                                                \
	offsetof(struct metrics, patch_requests.name##_count),                                     \
		offsetof(struct metrics, patch_requests.name##_fails)

/* A path that ends with '/', other than the root, stands for all below it. */
static const struct {
	enum http_method method;
	const char *path;
	size_t count; /* offsets in struct metrics */
	size_t fails;
} counters[] = {
	{ HTTP_GET, "/", GET(instance_info) },
	{ HTTP_GET, "/machine-config", GET(machine_cfg) },
	{ HTTP_GET, "/mmds", GET(mmds) },
	{ HTTP_GET, "/version", GET(vmm_version) },
	{ HTTP_PUT, "/actions", PUT(actions) },
	{ HTTP_PUT, "/boot-source", PUT(boot_source) },
	{ HTTP_PUT, "/cpu-config", PUT(cpu_cfg) },
	{ HTTP_PUT, "/drives/", PUT(drive) },
	{ HTTP_PUT, "/logger", PUT(logger) },
	{ HTTP_PUT, "/machine-config", PUT(machine_cfg) },
	{ HTTP_PUT, "/metrics", PUT(metrics) },
	{ HTTP_PUT, "/mmds", PUT(mmds) },
	{ HTTP_PUT, "/mmds/config", PUT(mmds) },
	{ HTTP_PUT, "/network-interfaces/", PUT(network) },
	{ HTTP_PUT, "/serial", PUT(serial) },
	{ HTTP_PUT, "/vsock", PUT(vsock) },
	{ HTTP_PATCH, "/drives/", PATCH(drive) },
	{ HTTP_PATCH, "/machine-config", PATCH(machine_cfg) },
	{ HTTP_PATCH, "/mmds", PATCH(mmds) },
	{ HTTP_PATCH, "/network-interfaces/", PATCH(network) },
};

static bool matches(const char *pattern, const char *path)
{
	size_t len = strlen(pattern);

	return len > 1 && pattern[len - 1] == '/' ? strncmp(path, pattern, len) == 0
						  : strcmp(path, pattern) == 0;
}

static void increment(struct metrics *metrics, size_t offset)
{
	if (offset != NONE)
		++*(uint64_t *)((char *)metrics + offset);
}

void request_metrics_count(struct metrics *metrics, enum http_method method, const char *path,
			   bool failed)
{
	for (size_t i = 0; i < ARRAY_SIZE(counters); i++) {
		if (counters[i].method != method || !matches(counters[i].path, path))
			continue;
		increment(metrics, counters[i].count);
		if (failed)
			increment(metrics, counters[i].fails);
	}
}

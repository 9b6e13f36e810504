/* SPDX-License-Identifier: Apache-2.0 */
#include "api-socket/routes.h"

#include <errno.h>
#include <string.h>

#include "api-socket/answers.h"
#include "api-socket/bodies.h"
#include "api-socket/cpu_config.h"
#include "api-socket/describe.h"
#include "base/err.h"
#include "vmm/control.h"

static const char no_snapshots[] = "snapshots are not supported yet";
static const char no_device[] =
	"there is no such device: mote's are drives, network interfaces and "
	"a vsock";

/* What changes the VM decides for itself, in control, in which states it can. */
const struct route routes[] = {
	{ HTTP_GET, "/", .describe = describe_instance },
	{ HTTP_GET, "/version", .describe = describe_version },
	{ HTTP_GET, "/vm/config", .describe = describe_vm },
	{ HTTP_GET, "/machine-config", .describe = describe_machine },
	{ HTTP_GET, "/metrics", .answer = answer_metrics },
	{ HTTP_GET, "/events", .stream = HTTP_STREAM_EVENTS },
	{ HTTP_GET, "/console", .stream = HTTP_STREAM_CONSOLE },
	{ HTTP_PUT, "/boot-source", .body = &body_boot_source },
	{ HTTP_PUT, "/machine-config", .deprecated = "cpu_template", .body = &body_machine },
	{ HTTP_PATCH, "/machine-config", .deprecated = "cpu_template",
	  .body = &body_machine_update },
	{ HTTP_PUT, "/cpu-config", .body = &body_cpu_config },
	{ HTTP_PUT, "/metrics", .body = &body_metrics },
	{ HTTP_PUT, "/serial", .body = &body_serial },
	{ HTTP_PUT, "/logger", .body = &body_logger },
	{ HTTP_PUT, "/drives/{}", "drive_id", .body = &body_drive },
	{ HTTP_PATCH, "/drives/{}", "drive_id", .body = &body_drive_update },
	{ HTTP_DELETE, "/drives/{}", .remove = control_remove_drive },
	{ HTTP_PUT, "/network-interfaces/{}", "iface_id", .body = &body_network_interface },
	{ HTTP_PATCH, "/network-interfaces/{}", "iface_id",
	  .body = &body_network_interface_update },
	{ HTTP_DELETE, "/network-interfaces/{}", .remove = control_remove_interface },
	{ HTTP_PUT, "/vsock", .deprecated = "vsock_id", .body = &body_vsock },
	{ HTTP_PUT, "/mmds/config", .deprecated = "version", .current = "V2", .body = &body_mmds },
	{ HTTP_GET, "/mmds", .answer = answer_metadata },
	{ HTTP_PUT, "/mmds", .body = &body_metadata },
	{ HTTP_PATCH, "/mmds", .body = &body_metadata_update },
	{ HTTP_PUT, "/actions", .body = &body_action },
	{ HTTP_PATCH, "/vm", .body = &body_vm_state },
	{ HTTP_PUT, "/snapshot/create", .missing = no_snapshots },
	{ HTTP_PUT, "/snapshot/load", .missing = no_snapshots },
	{ HTTP_GET, "/balloon", .missing = no_device },
	{ HTTP_PUT, "/balloon", .missing = no_device },
	{ HTTP_PATCH, "/balloon", .missing = no_device },
	{ HTTP_GET, "/balloon/statistics", .missing = no_device },
	{ HTTP_PATCH, "/balloon/statistics", .missing = no_device },
	{ HTTP_PUT, "/entropy", .missing = no_device },
	{ HTTP_PUT, "/pmem/{}", .missing = no_device },
	{ HTTP_PATCH, "/pmem/{}", .missing = no_device },
	{ HTTP_GET, "/hotplug/memory", .missing = no_device },
	{ HTTP_PUT, "/hotplug/memory", .missing = no_device },
	{ HTTP_PATCH, "/hotplug/memory", .missing = no_device },
	{ .path = NULL },
};

/* Where the id begins, the end of a path without one, or NULL if the path is another. */
static const char *match(const char *pattern, const char *path)
{
	const char *id = strstr(pattern, "{}");
	size_t len = id ? (size_t)(id - pattern) : strlen(pattern);

	if (strncmp(path, pattern, len) != 0)
		return NULL;
	path += len;
	if (id ? *path == '\0' || strchr(path, '/') : *path != '\0')
		return NULL;
	return path;
}

const struct route *routes_find(enum http_method method, const char *path, const char **id,
				struct err *err)
{
	char methods[64] = "";

	for (const struct route *route = routes; route->path; route++) {
		*id = match(route->path, path);
		if (!*id)
			continue;
		if (route->method == method)
			return route;
		strncat(methods, methods[0] ? ", " : "", sizeof(methods) - strlen(methods) - 1);
		strncat(methods, http_method_str(route->method),
			sizeof(methods) - strlen(methods) - 1);
	}
	if (methods[0])
		err_set(err, EINVAL, "%s %s: the path takes %s", http_method_str(method), path,
			methods);
	else
		err_set(err, ENOENT, "%s %s: there is no such path", http_method_str(method), path);
	return NULL;
}

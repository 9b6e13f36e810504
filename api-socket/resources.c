/* SPDX-License-Identifier: Apache-2.0 */
#include "api-socket/resources.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "api-socket/answers.h"
#include "api-socket/bodies.h"
#include "api-socket/cpu_config.h"
#include "api-socket/describe.h"
#include "base/err.h"
#include "vmm/control.h"
#include "json/fields.h"

static const char no_device[] =
	"there is no such device: mote's are drives, network interfaces and "
	"a vsock";

static const void *boot_source(const struct control *control, unsigned int index)
{
	return index == 0 && control->has_boot_source ? &control->boot_source : NULL;
}

static const void *machine(const struct control *control, unsigned int index)
{
	return index == 0 ? &control->machine_config : NULL;
}

static const void *cpu_config(const struct control *control, unsigned int index)
{
	return index == 0 && control->has_cpu_config ? &control->cpu_template : NULL;
}

static const void *mmds(const struct control *control, unsigned int index)
{
	return index == 0 && control->has_mmds_config ? &control->mmds_config : NULL;
}

static const void *serial(const struct control *control, unsigned int index)
{
	return index == 0 ? &control->serial : NULL;
}

static const void *device(const struct control *control, enum device_kind kind, unsigned int index)
{
	const struct device *device = NULL;

	do
		device = devices_next(&control->devices, kind, device);
	while (device && index-- > 0);
	return device ? &device->config : NULL;
}

static const void *drive(const struct control *control, unsigned int index)
{
	return device(control, DEVICE_DRIVE, index);
}

static const void *interface(const struct control *control, unsigned int index)
{
	return device(control, DEVICE_INTERFACE, index);
}

static const void *vsock(const struct control *control, unsigned int index)
{
	return device(control, DEVICE_VSOCK, index);
}

#define GETS(name) .counted = true, .count = offsetof(struct metrics, get_requests.name##_count)
#define PUTS(name)                                                                                 \
	.counted = true, .count = offsetof(struct metrics, put_requests.name##_count),             \
	.fails = offsetof(struct metrics, put_requests.name##_fails)
#define PATCHES(name)                                                                              \
	.counted = true, .count = offsetof(struct metrics, patch_requests.name##_count),           \
	.fails = offsetof(struct metrics, patch_requests.name##_fails)

// clang-format off
const struct resource resources[] = {
	{ "/", .operations[ON_GET] = { .describe = describe_instance, GETS(instance_info) } },
	{ "/version", .operations[ON_GET] = { .describe = describe_version, GETS(vmm_version) } },
	{ "/vm/config", .operations[ON_GET] = { .describe = resources_describe } },
	{ "/events", .operations[ON_GET] = { .stream = HTTP_STREAM_EVENTS } },
	{ "/console", .operations[ON_GET] = { .stream = HTTP_STREAM_CONSOLE } },
	{ "/actions", .operations[ON_PUT] = { &body_action, PUTS(actions) } },
	{ "/vm", .operations[ON_PATCH] = { &body_vm_state } },
	{ "/boot-source", .section = "boot-source", .configured = boot_source,
	  .operations[ON_PUT] = { &body_boot_source, PUTS(boot_source) } },
	{ "/machine-config", .deprecated = "cpu_template",
	  .section = "machine-config", .configured = machine,
	  .operations = {
		[ON_GET] = { .describe = describe_machine, GETS(machine_cfg) },
		[ON_PUT] = { &body_machine, PUTS(machine_cfg) },
		[ON_PATCH] = { &body_machine_update, PATCHES(machine_cfg) } } },
	{ "/cpu-config",
	  .section = "cpu-config", .file = "CPU template", .configured = cpu_config,
	  .operations[ON_PUT] = { &body_cpu_config, PUTS(cpu_cfg) } },
	{ "/drives/{}", .id_field = "drive_id",
	  .section = "drives", .list = true, .configured = drive,
	  .operations = {
		[ON_PUT] = { &body_drive, PUTS(drive) },
		[ON_PATCH] = { &body_drive_update, PATCHES(drive) },
		[ON_DELETE] = { .remove = control_remove_drive } } },
	{ "/network-interfaces/{}", .id_field = "iface_id",
	  .section = "network-interfaces", .list = true, .configured = interface,
	  .operations = {
		[ON_PUT] = { &body_network_interface, PUTS(network) },
		[ON_PATCH] = { &body_network_interface_update, PATCHES(network) },
		[ON_DELETE] = { .remove = control_remove_interface } } },
	{ "/vsock", .deprecated = "vsock_id", .section = "vsock", .configured = vsock,
	  .operations[ON_PUT] = { &body_vsock, PUTS(vsock) } },
	{ "/mmds/config", .deprecated = "version", .current = "V2",
	  .section = "mmds-config", .configured = mmds,
	  .operations[ON_PUT] = { &body_mmds, PUTS(mmds) } },
	{ "/mmds",
	  .operations = {
		[ON_GET] = { .answer = answer_metadata, GETS(mmds) },
		[ON_PUT] = { &body_metadata, PUTS(mmds) },
		[ON_PATCH] = { &body_metadata_update, PATCHES(mmds) } } },
	{ "/serial", .section = "serial", .left_out = true, .configured = serial,
	  .operations[ON_PUT] = { &body_serial, PUTS(serial) } },
	{ "/snapshot/create", .operations[ON_PUT] = { &body_snapshot_create } },
	{ "/snapshot/load", .deprecated = "mem_file_path",
	  .operations[ON_PUT] = { &body_snapshot_load } },
	{ "/balloon", .section = "balloon",
	  .operations = {
		[ON_GET] = { .missing = no_device },
		[ON_PUT] = { .missing = no_device },
		[ON_PATCH] = { .missing = no_device } } },
	{ "/balloon/statistics",
	  .operations = {
		[ON_GET] = { .missing = no_device },
		[ON_PATCH] = { .missing = no_device } } },
	{ "/entropy", .section = "entropy", .operations[ON_PUT] = { .missing = no_device } },
	/* As are the metrics, it is null in /vm/config, where Firecracker does not tell it. */
	{ "/logger", .section = "logger", .early = true,
	  .operations[ON_PUT] = { &body_logger, PUTS(logger) } },
	{ "/hotplug/memory", .section = "memory-hotplug",
	  .operations = {
		[ON_GET] = { .missing = no_device },
		[ON_PUT] = { .missing = no_device },
		[ON_PATCH] = { .missing = no_device } } },
	{ "/metrics", .section = "metrics", .early = true,
	  .operations = {
		[ON_GET] = { .answer = answer_metrics },
		[ON_PUT] = { &body_metrics, PUTS(metrics) } } },
	{ "/pmem/{}", .section = "pmem", .list = true,
	  .operations = {
		[ON_PUT] = { .missing = no_device },
		[ON_PATCH] = { .missing = no_device } } },
	{ NULL },
};
// clang-format on

static const enum http_method methods[RESOURCE_METHODS] = {
	[ON_GET] = HTTP_GET,
	[ON_PUT] = HTTP_PUT,
	[ON_PATCH] = HTTP_PATCH,
	[ON_DELETE] = HTTP_DELETE,
};

enum http_method resource_method(enum resource_method method)
{
	return methods[method];
}

bool operation_exists(const struct operation *operation)
{
	return operation->body || operation->describe || operation->remove || operation->answer ||
	       operation->stream != HTTP_STREAM_NONE || operation->missing;
}

/* The place of the id, the end of a path without one, or NULL if the path is another's. */
static const char *match(const char *pattern, const char *path)
{
	const char *id = strstr(pattern, "{}");
	size_t len = id ? (size_t)(id - pattern) : strlen(pattern);

	if (strncmp(path, pattern, len) != 0 || (!id && path[len] != '\0'))
		return NULL;
	return path + len;
}

static const struct resource *find_resource(const char *path, const char **id)
{
	for (const struct resource *resource = resources; resource->path; resource++) {
		*id = match(resource->path, path);
		if (*id)
			return resource;
	}
	return NULL;
}

static bool is_id(const char *id)
{
	return *id != '\0' && !strchr(id, '/');
}

static const struct operation *find_operation(const struct resource *resource,
					      enum http_method method, char *taken, size_t size)
{
	const struct operation *found = NULL;

	for (unsigned int on = 0; on < RESOURCE_METHODS; on++) {
		const struct operation *operation = &resource->operations[on];

		if (!operation_exists(operation))
			continue;
		if (methods[on] == method)
			found = operation;
		strncat(taken, taken[0] ? ", " : "", size - strlen(taken) - 1);
		strncat(taken, http_method_str(methods[on]), size - strlen(taken) - 1);
	}
	return found;
}

int resources_find(struct meaning *meaning, enum http_method method, const char *path,
		   struct err *err)
{
	char taken[64] = "";

	meaning->operation = NULL;
	meaning->resource = find_resource(path, &meaning->id);
	if (meaning->resource)
		meaning->operation =
			find_operation(meaning->resource, method, taken, sizeof(taken));
	if (!meaning->resource || (strstr(meaning->resource->path, "{}") && !is_id(meaning->id)))
		return err_set(err, ENOENT, "%s %s: there is no such path", http_method_str(method),
			       path);
	if (!meaning->operation)
		return err_set(err, EINVAL, "%s %s: the path takes %s", http_method_str(method),
			       path, taken);
	return 0;
}

static void increment(struct metrics *metrics, size_t offset)
{
	++*(uint64_t *)((char *)metrics + offset);
}

void operation_count(const struct operation *operation, struct metrics *metrics, bool failed)
{
	if (!operation || !operation->counted)
		return;
	increment(metrics, operation->count);
	if (failed && operation->fails)
		increment(metrics, operation->fails);
}

static json_t *describe_section(const struct resource *resource, const struct control *control)
{
	const struct body *body = resource->operations[ON_PUT].body;
	const void *config = resource->configured ? resource->configured(control, 0) : NULL;
	json_t *list;

	if (!resource->list)
		return config ? fields_write(body->fields, config) : json_null();
	list = json_array();
	for (unsigned int i = 1; config; i++) {
		(void)json_array_append_new(list, fields_write(body->fields, config));
		config = resource->configured(control, i);
	}
	return list;
}

json_t *resources_describe(const struct control *control, const char *id)
{
	json_t *vm = json_object();

	(void)id;
	for (const struct resource *resource = resources; resource->path; resource++) {
		json_t *section = resource->section ? describe_section(resource, control) : NULL;

		if (resource->left_out && json_object_size(section) == 0)
			json_decref(section);
		else if (section)
			(void)json_object_set_new(vm, resource->section, section);
	}
	return vm;
}

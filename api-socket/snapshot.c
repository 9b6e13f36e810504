/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots, as the API asks for them: Firecracker's bodies. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api-socket/bodies.h"
#include "api-socket/config_file.h"
#include "api-socket/file.h"
#include "api-socket/resources.h"
#include "base/array.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/state.h"
#include "vmm/control.h"
#include "vmm/snapshot/format.h"
#include "json/fields.h"
#include "json/parse.h"

/* What of the configuration the machine is made of; the rest is the process's own. */
static const char *const saved_sections[] = {
	"machine-config", "drives", "network-interfaces", "vsock", "mmds-config",
};

static const char *const type_choices[] = {
	[SNAPSHOT_FULL] = "Full",
	[SNAPSHOT_DIFF] = "Diff",
	NULL,
};

static const struct field create_fields[] = {
	{ "snapshot_path", FIELD_STRING, .min = 1, .required = true,
	  FIELD_AT(snapshot_create_config, snapshot_path) },
	{ "mem_file_path", FIELD_STRING, .min = 1, .required = true,
	  FIELD_AT(snapshot_create_config, mem_file_path) },
	{ "snapshot_type", FIELD_CHOICE, FIELD_AT(snapshot_create_config, snapshot_type),
	  .choices = type_choices },
	{ NULL },
};

enum backend { BACKEND_FILE, BACKEND_UFFD };
enum load_huge_pages { LOAD_AS_SAVED, LOAD_NONE, LOAD_TRANSPARENT, LOAD_2M };

struct memory_backend {
	int type; /* enum backend */
	char *path;
};

/* Of a device that was saved, what it finds on the host it finds there now. */
struct override {
	char *id;
	char *path;
};

struct load_config {
	char *snapshot_path;
	char *mem_file_path; /* the older form of mem_backend */
	struct memory_backend mem_backend;
	bool track_dirty_pages;
	bool enable_diff_snapshots; /* the older name of track_dirty_pages */
	bool resume_vm;
	bool clock_realtime;
	int huge_pages; /* enum load_huge_pages */
	struct override *drives;
	size_t drive_count;
	struct override *interfaces;
	size_t interface_count;
	struct override vsock; /* has no id */
};

static const char *const backend_choices[] = {
	[BACKEND_FILE] = "File",
	[BACKEND_UFFD] = "Uffd",
	NULL,
};

static const char *const load_huge_pages_choices[] = {
	[LOAD_AS_SAVED] = "Snapshot",
	[LOAD_NONE] = "None",
	[LOAD_TRANSPARENT] = "Transparent",
	[LOAD_2M] = "2M",
	NULL,
};

static const struct field backend_fields[] = {
	{ "backend_type", FIELD_CHOICE, .required = true, FIELD_AT(memory_backend, type),
	  .choices = backend_choices },
	{ "backend_path", FIELD_STRING, .min = 1, .required = true,
	  FIELD_AT(memory_backend, path) },
	{ NULL },
};

static const struct field drive_fields[] = {
	{ "drive_id", FIELD_STRING, .required = true, FIELD_AT(override, id) },
	{ "path_on_host", FIELD_STRING, .min = 1, .required = true, FIELD_AT(override, path) },
	{ NULL },
};

static const struct field interface_fields[] = {
	{ "iface_id", FIELD_STRING, .required = true, FIELD_AT(override, id) },
	{ "host_dev_name", FIELD_STRING, .min = 1, .required = true, FIELD_AT(override, path) },
	{ NULL },
};

static const struct field vsock_fields[] = {
	{ "uds_path", FIELD_STRING, .min = 1, .required = true, FIELD_AT(override, path) },
	{ NULL },
};

static const struct field drive_override = {
	.type = FIELD_OBJECT,
	.size = sizeof(struct override),
	.fields = drive_fields,
};

static const struct field interface_override = {
	.type = FIELD_OBJECT,
	.size = sizeof(struct override),
	.fields = interface_fields,
};

static const struct field load_fields[] = {
	{ "snapshot_path", FIELD_STRING, .min = 1, .required = true,
	  FIELD_AT(load_config, snapshot_path) },
	{ "mem_file_path", FIELD_STRING, .min = 1, FIELD_AT(load_config, mem_file_path) },
	{ "mem_backend", FIELD_OBJECT, FIELD_AT(load_config, mem_backend),
	  .fields = backend_fields },
	{ "track_dirty_pages", FIELD_BOOL, FIELD_AT(load_config, track_dirty_pages) },
	{ "enable_diff_snapshots", FIELD_BOOL, FIELD_AT(load_config, enable_diff_snapshots) },
	{ "resume_vm", FIELD_BOOL, FIELD_AT(load_config, resume_vm) },
	{ "clock_realtime", FIELD_BOOL, FIELD_AT(load_config, clock_realtime) },
	{ "huge_pages", FIELD_CHOICE, FIELD_AT(load_config, huge_pages),
	  .choices = load_huge_pages_choices },
	{ "network_overrides", FIELD_LIST, FIELD_COUNTED(load_config, interfaces, interface_count),
	  .each = &interface_override },
	{ "vsock_override", FIELD_OBJECT, FIELD_AT(load_config, vsock), .fields = vsock_fields },
	/* mote's own. */
	{ "drive_overrides", FIELD_LIST, FIELD_COUNTED(load_config, drives, drive_count),
	  .each = &drive_override },
	{ NULL },
};

/* The text of what was configured, to be freed; NULL without memory. */
static char *saved_config(const struct control *control)
{
	json_t *all = resources_describe(control, NULL), *saved = json_object();
	char *text = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(saved_sections); i++)
		(void)json_object_set(saved, saved_sections[i],
				      json_object_get(all, saved_sections[i]));
	if (json_object_size(saved) == ARRAY_SIZE(saved_sections))
		text = json_dumps(saved, JSON_COMPACT);
	json_decref(all);
	json_decref(saved);
	return text;
}

static uint64_t microseconds_since(int64_t start_ns)
{
	return (uint64_t)(clock_ns() - start_ns) / NS_PER_US;
}

static int create(struct control *control, const struct snapshot_create_config *files,
		  struct err *err)
{
	const int64_t start_ns = clock_ns();
	char *config = saved_config(control);
	int rc;

	if (!config)
		return err_sys(err, ENOMEM, "snapshot");
	rc = control_save(control, files, config, err);
	free(config);
	if (rc == 0)
		control->metrics.latencies.full_create_snapshot = microseconds_since(start_ns);
	return rc;
}

static json_t *find(const json_t *list, const char *key, const char *id)
{
	json_t *entry;
	size_t i;

	json_array_foreach (list, i, entry) {
		const char *text = json_string_value(json_object_get(entry, key));

		if (text && strcmp(text, id) == 0)
			return entry;
	}
	return NULL;
}

static int override_list(const json_t *list, const struct field *fields,
			 const struct override *overrides, size_t count, const char *name,
			 struct err *err)
{
	for (size_t i = 0; i < count; i++) {
		json_t *entry = find(list, fields[0].name, overrides[i].id);

		if (!entry)
			return err_set(err, ENOENT, "%s[%zu]: the snapshot has no %s", name, i,
				       overrides[i].id);
		if (json_object_set_new(entry, fields[1].name, json_string(overrides[i].path)) < 0)
			return err_sys(err, ENOMEM, "%s[%zu]", name, i);
	}
	return 0;
}

static int override_all(json_t *saved, const struct load_config *config, struct err *err)
{
	json_t *interface, *vsock = json_object_get(saved, "vsock");
	size_t i;
	int rc = override_list(json_object_get(saved, "drives"), drive_fields, config->drives,
			       config->drive_count, "drive_overrides", err);

	if (rc == 0)
		rc = override_list(json_object_get(saved, "network-interfaces"), interface_fields,
				   config->interfaces, config->interface_count, "network_overrides",
				   err);
	if (rc < 0)
		return rc;
	/* One that was passt's is a tap now. */
	json_array_foreach (json_object_get(saved, "network-interfaces"), i, interface) {
		const char *id = json_string_value(json_object_get(interface, "iface_id"));

		for (size_t n = 0; id && n < config->interface_count; n++) {
			if (strcmp(config->interfaces[n].id, id) == 0) {
				(void)json_object_del(interface, "passt_socket");
				(void)json_object_del(interface, "passt_fd");
			}
		}
	}
	if (!config->vsock.path)
		return 0;
	if (!json_is_object(vsock))
		return err_set(err, ENOENT, "vsock_override: the snapshot has no vsock");
	return json_object_set_new(vsock, "uds_path", json_string(config->vsock.path)) < 0
		       ? err_sys(err, ENOMEM, "vsock_override")
		       : 0;
}

/* The configuration, as it was saved and with what is another now. */
static int configure(struct control *control, const struct state_reader *text,
		     const struct load_config *config, struct err *err)
{
	json_t *all = parse_object((const char *)text->at, text->left, "its configuration", err);
	json_t *saved = json_object();
	int rc = 0;

	for (size_t i = 0; all && i < ARRAY_SIZE(saved_sections); i++)
		(void)json_object_set(saved, saved_sections[i],
				      json_object_get(all, saved_sections[i]));
	/* Its memory is mapped, which is not by huge pages. */
	(void)json_object_del(json_object_get(saved, "machine-config"), "huge_pages");
	/* The processors are saved with what a template made of them. */
	(void)json_object_del(json_object_get(saved, "machine-config"), "cpu_template");
	rc = all ? override_all(saved, config, err) : -EINVAL;
	if (rc == 0)
		rc = config_apply(control, saved, false, "", err);
	json_decref(all);
	json_decref(saved);
	return rc;
}

static int load_state(struct control *control, const struct load_config *config,
		      const uint8_t *bytes, size_t size, int memory_fd, struct err *err)
{
	const struct control_load load = { memory_fd, config->clock_realtime };
	struct state_section section = { 0 };
	struct state_reader sections;
	int rc = snapshot_check(bytes, size, &sections, err);

	if (rc == 0)
		rc = snapshot_next(&sections, SNAPSHOT_CONFIG, SNAPSHOT_CONFIG_VERSION, &section,
				   err);
	if (rc < 0)
		return rc;
	rc = configure(control, &section.body, config, err);
	if (rc < 0) {
		control_forget_config(control);
		return rc;
	}
	return control_load(control, &sections, &load, err);
}

static int check(const struct load_config *config, struct err *err)
{
	if (!config->mem_backend.path == !config->mem_file_path)
		return err_set(err, EINVAL,
			       "one of mem_backend and mem_file_path is needed, and "
			       "only one is possible");
	if (config->mem_backend.path && config->mem_backend.type == BACKEND_UFFD)
		return err_set(err, ENOTSUP,
			       "mem_backend.backend_type: Uffd is not there yet, only File");
	if (config->huge_pages == LOAD_2M)
		return err_set(err, ENOTSUP, "huge_pages: a file is not mapped by 2M pages");
	return 0;
}

static int load_files(struct control *control, const struct load_config *config, struct err *err)
{
	const char *path =
		config->mem_backend.path ? config->mem_backend.path : config->mem_file_path;
	CLEANUP_FD int memory_fd = fd_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct err cause;
	char *bytes = NULL;
	size_t size = 0;
	int rc;

	if (memory_fd < 0)
		return err_sys(err, -memory_fd, "memory file %s", fd_name(path));
	rc = file_read("snapshot", config->snapshot_path, STATE_SIZE_MAX, &bytes, &size, err);
	if (rc < 0)
		return rc;
	rc = load_state(control, config, (const uint8_t *)bytes, size, memory_fd, &cause);
	free(bytes);
	return rc < 0 ? err_set(err, -rc, "snapshot %s: %s", fd_name(config->snapshot_path),
				cause.text)
		      : 0;
}

static int load(struct control *control, const struct load_config *config, struct err *err)
{
	const int64_t start_ns = clock_ns();
	int rc = control_check_load(control, err);

	if (rc == 0)
		rc = check(config, err);
	if (rc == 0)
		rc = load_files(control, config, err);
	if (rc < 0)
		return rc;
	if (config->track_dirty_pages || config->enable_diff_snapshots)
		log_warn("track_dirty_pages: nothing comes of it, as there are no diff snapshots "
			 "yet");
	control->metrics.latencies.load_snapshot = microseconds_since(start_ns);
	return config->resume_vm ? control_resume(control, err) : 0;
}

BODY(snapshot_create, create_fields, snapshot_create_config, create);
BODY(snapshot_load, load_fields, load_config, load);

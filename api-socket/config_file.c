/* SPDX-License-Identifier: Apache-2.0 */
#include "api-socket/config_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "api-socket/bodies.h"
#include "api-socket/file.h"
#include "api-socket/resources.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/log.h"
#include "vmm/control.h"
#include "json/parse.h"

#define CONFIG_FILE_SIZE_MAX (1 << 20)

static const struct resource *find_section(const char *name)
{
	for (const struct resource *resource = resources; resource->path; resource++) {
		if (resource->section && strcmp(resource->section, name) == 0)
			return resource;
	}
	return NULL;
}

static int apply_list(const struct body *body, struct control *control, const json_t *list,
		      struct err *err)
{
	struct err cause;
	json_t *entry;
	size_t i;

	if (!json_is_array(list))
		return err_set(err, EINVAL, "a list is expected");
	json_array_foreach (list, i, entry) {
		int rc = body_apply(body, control, entry, &cause);

		if (rc < 0)
			return err_set(err, -rc, "entry %zu: %s", i + 1, cause.text);
	}
	return 0;
}

static int apply_from_file(const struct resource *resource, struct control *control,
			   const char *path, struct err *err)
{
	char *text = NULL;
	json_t *object;
	size_t size = 0;
	int rc = file_read(resource->file, path, CONFIG_FILE_SIZE_MAX, &text, &size, err);

	if (rc < 0)
		return rc;
	object = parse_object(text, size, fd_name(path), err);
	free(text);
	if (!object)
		return -EINVAL;
	rc = body_apply(resource->operations[ON_PUT].body, control, object, err);
	json_decref(object);
	return rc;
}

static int apply_section(const struct resource *resource, struct control *control,
			 const json_t *value, struct err *err)
{
	const struct body *body = resource->operations[ON_PUT].body;

	if (resource->list)
		return apply_list(body, control, value, err);
	if (resource->file && json_is_string(value))
		return apply_from_file(resource, control, json_string_value(value), err);
	return body_apply(body, control, value, err);
}

/* A file that was given no name is not the user's: what is wrong is told alone. */
static int section_fault(struct err *err, int rc, const char *path, const char *section,
			 const char *cause)
{
	return *path ? err_set(err, rc, "configuration file %s: %s: %s", path, section, cause)
		     : err_set(err, rc, "%s", cause);
}

static int check_sections(const json_t *file, const char *path, struct err *err)
{
	const char *name;
	json_t *value;

	json_object_foreach ((json_t *)(uintptr_t)file, name, value) {
		const struct resource *resource = find_section(name);

		if (!resource) {
			log_warn("configuration file %s: %s: unknown section, ignored", path, name);
			continue;
		}
		if (!resource->operations[ON_PUT].body && !json_is_null(value) &&
		    !(json_is_array(value) && json_array_size(value) == 0))
			return section_fault(err, ENOTSUP, path, name, "not supported yet");
	}
	return 0;
}

int config_apply(struct control *control, const json_t *file, bool early, const char *path,
		 struct err *err)
{
	struct err cause;

	for (const struct resource *resource = resources; resource->path; resource++) {
		const json_t *value =
			resource->section ? json_object_get(file, resource->section) : NULL;
		int rc;

		if (!resource->operations[ON_PUT].body || resource->early != early || !value ||
		    json_is_null(value))
			continue;
		rc = apply_section(resource, control, value, &cause);
		if (rc < 0)
			return section_fault(err, -rc, path, resource->section, cause.text);
	}
	return 0;
}

static int apply_file(struct control *control, const json_t *file, const char *path,
		      struct err *err)
{
	int rc = check_sections(file, path, err);

	if (rc == 0)
		rc = config_apply(control, file, true, path, err);
	if (rc == 0)
		rc = config_apply(control, file, false, path, err);
	if (rc == 0 && !json_is_object(json_object_get(file, "boot-source")))
		return section_fault(err, EINVAL, path, "boot-source", "the section is missing");
	return rc;
}

int config_text_apply(struct control *control, const char *text, size_t len, const char *path,
		      struct err *err)
{
	struct err cause;
	json_t *file = parse_object(text, len, path, &cause);
	int rc;

	if (!file)
		return err_set(err, EINVAL, "configuration file %s", cause.text);
	rc = apply_file(control, file, path, err);
	json_decref(file);
	return rc;
}

int config_file_apply(struct control *control, const char *path, struct err *err)
{
	size_t len = 0;
	char *text = NULL;
	int rc = file_read("configuration file", path, CONFIG_FILE_SIZE_MAX, &text, &len, err);

	if (rc < 0)
		return rc;
	rc = config_text_apply(control, text, len, fd_name(path), err);
	free(text);
	return rc;
}

int metadata_file_apply(struct control *control, const char *path, struct err *err)
{
	struct err cause;
	size_t len = 0;
	char *text = NULL;
	json_t *data;
	int rc = file_read("metadata file", path, control->mmds_size_limit + CONFIG_FILE_SIZE_MAX,
			   &text, &len, err);

	if (rc < 0)
		return rc;
	data = parse_object(text, len, fd_name(path), &cause);
	free(text);
	if (!data)
		return err_set(err, EINVAL, "metadata file %s", cause.text);
	rc = body_apply(&body_metadata, control, data, &cause);
	json_decref(data);
	return rc < 0 ? err_set(err, -rc, "metadata file %s: %s", fd_name(path), cause.text) : 0;
}

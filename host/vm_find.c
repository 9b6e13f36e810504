/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "host/vm.h"

const char *vm_string(const json_t *meta, const char *key)
{
	const char *text = json_string_value(json_object_get(meta, key));

	return text ? text : "";
}

int64_t vm_number(const json_t *meta, const char *key)
{
	return json_integer_value(json_object_get(meta, key));
}

static bool is_called(const json_t *meta, const char *name)
{
	return strcmp(vm_string(meta, "name"), name) == 0 ||
	       strcmp(vm_string(meta, "id"), name) == 0;
}

static bool begins_so(const json_t *meta, const char *name)
{
	size_t length = strlen(name);

	return length > 0 && (strncmp(vm_string(meta, "name"), name, length) == 0 ||
			      strncmp(vm_string(meta, "id"), name, length) == 0);
}

json_t *vm_find(const char *name, struct err *err)
{
	json_t *list, *meta, *found = NULL;
	unsigned int count = 0;
	size_t i;

	if (vm_list(&list, err) < 0)
		return NULL;
	json_array_foreach (list, i, meta) {
		if (is_called(meta, name)) {
			found = meta;
			count = 1;
			break;
		}
		if (begins_so(meta, name)) {
			found = meta;
			count++;
		}
	}
	if (count == 1) {
		json_incref(found);
	} else {
		found = NULL;
		err_set(err, ENOENT,
			count ? "microVM %s: the names of several begin so"
			      : "microVM %s: there is none of this name",
			name);
	}
	json_decref(list);
	return found;
}

json_t *vm_find_running(const char *name, struct err *err)
{
	json_t *meta = vm_find(name, err);

	if (!meta || json_is_true(json_object_get(meta, "running")))
		return meta;
	err_set(err, ESRCH, "microVM %s: it has ended", name);
	json_decref(meta);
	return NULL;
}

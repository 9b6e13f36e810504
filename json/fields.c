/* SPDX-License-Identifier: Apache-2.0 */
#include "json/fields.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"

static int read_integer(const json_t *value, const struct field *field, void *to, struct err *err)
{
	int64_t integer = json_integer_value(value);

	if (!json_is_integer(value))
		return err_set(err, EINVAL, "%s: an integer is expected", field->name);
	if (integer < field->min || integer > field->max)
		return err_set(err, EINVAL, "%s: %lld is not between %lld and %lld", field->name,
			       (long long)integer, (long long)field->min, (long long)field->max);
	memcpy(to, &integer, sizeof(integer));
	return 0;
}

static int read_string(const json_t *value, const struct field *field, void *to, struct err *err)
{
	char **string = to;

	if (!json_is_string(value))
		return err_set(err, EINVAL, "%s: a string is expected", field->name);
	if ((int64_t)json_string_length(value) < field->min)
		return err_set(err, EINVAL, "%s: a string that is not empty is expected",
			       field->name);
	free(*string);
	*string = strdup(json_string_value(value));
	return *string ? 0 : err_sys(err, ENOMEM, "%s", field->name);
}

static int read_texts(const json_t *value, const struct field *field, void *to, struct err *err)
{
	char **text = to;
	const char *name;
	json_t *one;

	if (!json_is_object(value))
		return err_set(err, EINVAL, "%s: an object is expected", field->name);
	/* jansson's iterators take the object without const, and do not change it. */
	json_object_foreach ((json_t *)(uintptr_t)value, name, one) {
		if (!json_is_string(one))
			return err_set(err, EINVAL, "%s.%s: a string is expected", field->name,
				       name);
	}
	free(*text);
	*text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS);
	if (!*text)
		return err_sys(err, ENOMEM, "%s", field->name);
	if ((int64_t)strlen(*text) > field->max)
		return err_set(err, EINVAL, "%s: %zu bytes as JSON, at most %lld are possible",
			       field->name, strlen(*text), (long long)field->max);
	return 0;
}

static void free_strings(char **strings)
{
	for (char **string = strings; string && *string; string++)
		free(*string);
	free(strings);
}

static int read_strings(const json_t *value, const struct field *field, void *to, struct err *err)
{
	size_t count = json_array_size(value);
	char **strings;

	if (!json_is_array(value))
		return err_set(err, EINVAL, "%s: a list is expected", field->name);
	strings = calloc(count + 1, sizeof(*strings));
	for (size_t i = 0; strings && i < count; i++) {
		const json_t *entry = json_array_get(value, i);

		if (!json_is_string(entry)) {
			free_strings(strings);
			return err_set(err, EINVAL, "%s[%zu]: a string is expected", field->name,
				       i);
		}
		strings[i] = strdup(json_string_value(entry));
		if (!strings[i]) {
			free_strings(strings);
			strings = NULL;
		}
	}
	if (!strings)
		return err_sys(err, ENOMEM, "%s", field->name);
	free_strings(*(char ***)to);
	*(char ***)to = strings;
	return 0;
}

static int read_choice(const json_t *value, const struct field *field, int *to, struct err *err)
{
	char known[128] = "";
	int i;

	for (i = 0; json_is_string(value) && field->choices[i]; i++) {
		if (strcmp(json_string_value(value), field->choices[i]) == 0) {
			*to = i;
			return 0;
		}
	}
	for (i = 0; field->choices[i]; i++) {
		strncat(known, i ? ", " : "", sizeof(known) - strlen(known) - 1);
		strncat(known, field->choices[i], sizeof(known) - strlen(known) - 1);
	}
	return err_set(err, EINVAL, "%s: one of %s is expected", field->name, known);
}

static int read_absent(const json_t *value, const struct field *field, struct err *err)
{
	if (field->choices && json_is_string(value) &&
	    strcmp(json_string_value(value), field->choices[0]) == 0)
		return 0;
	return err_set(err, ENOTSUP, "%s: not supported yet", field->name);
}

static int read_object(const json_t *value, const struct field *field, void *to, struct err *err)
{
	struct err cause;
	int rc = fields_read(value, field->fields, to, &cause);

	return rc < 0 ? err_set(err, -rc, "%s.%s", field->name, cause.text) : 0;
}

static int read_field(const json_t *value, const struct field *field, bool required, void *config,
		      struct err *err)
{
	void *to = (char *)config + field->offset;

	/* null stands for a field that is not given. */
	if (json_is_null(value) && !required)
		return 0;
	if (field->given)
		*(bool *)((char *)config + field->given) = true;
	switch (field->type) {
	case FIELD_STRING:
		return read_string(value, field, to, err);
	case FIELD_STRINGS:
		return read_strings(value, field, to, err);
	case FIELD_INTEGER:
		return read_integer(value, field, to, err);
	case FIELD_TEXTS:
		return read_texts(value, field, to, err);
	case FIELD_CHOICE:
		return read_choice(value, field, to, err);
	case FIELD_ABSENT:
		return read_absent(value, field, err);
	case FIELD_OBJECT:
		return read_object(value, field, to, err);
	case FIELD_BOOL:
		if (!json_is_boolean(value))
			return err_set(err, EINVAL, "%s: true or false is expected", field->name);
		*(bool *)to = json_boolean_value(value);
		return 0;
	}
	return -EINVAL;
}

/* The table's last entry if there is none of that name. */
static const struct field *find_field(const struct field *fields, const char *name)
{
	while (fields->name && strcmp(fields->name, name) != 0)
		fields++;
	return fields;
}

static int read_fields(const json_t *body, const struct field *fields, bool all, void *config,
		       struct err *err)
{
	const char *name, *ignored = NULL;
	json_t *value;

	if (!json_is_object(body))
		return err_set(err, EINVAL, "an object is expected");
	/* jansson's iterators take the object without const, and do not change it. */
	json_object_foreach ((json_t *)(uintptr_t)body, name, value) {
		const struct field *field = find_field(fields, name);
		int rc;

		if (!field->name && field->others_ignored) {
			ignored = name;
			continue;
		}
		if (!field->name)
			return err_set(err, EINVAL, "%s: unknown field", name);
		rc = read_field(value, field, all && field->required, config, err);
		if (rc < 0)
			return rc;
	}
	/* However many there are, the log has one line of it. */
	if (ignored)
		log_warn("%s: unknown field, ignored", ignored);
	for (; all && fields->name; fields++) {
		if (fields->required && !json_object_get(body, fields->name))
			return err_set(err, EINVAL, "%s: the field is missing", fields->name);
	}
	return 0;
}

int fields_read_some(const json_t *body, const struct field *fields, void *config, struct err *err)
{
	return read_fields(body, fields, false, config, err);
}

int fields_read(const json_t *body, const struct field *fields, void *config, struct err *err)
{
	return read_fields(body, fields, true, config, err);
}

static bool given(const struct field *field, const void *from);

static bool object_given(const struct field *fields, const void *from)
{
	bool any = false;

	for (; fields->name; fields++) {
		const void *at = (const char *)from + fields->offset;

		if (fields->type != FIELD_INTEGER)
			any |= given(fields, at);
		else if (*(const int64_t *)at != 0)
			any = true;
		else if (fields->required)
			return false;
	}
	return any;
}

static bool given(const struct field *field, const void *from)
{
	switch (field->type) {
	case FIELD_STRING:
	case FIELD_TEXTS:
		return *(char *const *)from != NULL;
	case FIELD_STRINGS:
		return *(char **const *)from != NULL;
	case FIELD_INTEGER:
		return *(const int64_t *)from >= field->min &&
		       *(const int64_t *)from <= field->max &&
		       (*(const int64_t *)from != 0 || !field->null_if_absent);
	case FIELD_OBJECT:
		return object_given(field->fields, from);
	case FIELD_ABSENT:
		return false;
	case FIELD_BOOL:
		return true;
	case FIELD_CHOICE:
		return !field->first_left_out || *(const int *)from != 0;
	}
	return false;
}

static json_t *write_strings(char *const *strings)
{
	json_t *list = json_array();

	for (; list && *strings; strings++) {
		if (json_array_append_new(list, json_string(*strings)) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static json_t *write_field(const struct field *field, const void *from)
{
	switch (field->type) {
	case FIELD_STRING:
		return json_string(*(char *const *)from);
	case FIELD_TEXTS:
		return json_loads(*(char *const *)from, 0, NULL);
	case FIELD_STRINGS:
		return write_strings(*(char *const *const *)from);
	case FIELD_INTEGER:
		return json_integer(*(const int64_t *)from);
	case FIELD_CHOICE:
		return json_string(field->choices[*(const int *)from]);
	case FIELD_BOOL:
		return json_boolean(*(const bool *)from);
	case FIELD_OBJECT:
		return fields_write(field->fields, from);
	case FIELD_ABSENT:
		break;
	}
	return NULL;
}

json_t *fields_write(const struct field *fields, const void *from)
{
	json_t *object = json_object();

	for (; object && fields->name; fields++) {
		const void *at = (const char *)from + fields->offset;
		json_t *value;

		if (fields->required || given(fields, at))
			value = write_field(fields, at);
		else if (fields->null_if_absent)
			value = json_null();
		else
			continue;
		if (json_object_set_new(object, fields->name, value) < 0) {
			json_decref(object);
			return NULL;
		}
	}
	return object;
}

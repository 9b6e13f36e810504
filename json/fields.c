/* SPDX-License-Identifier: Apache-2.0 */
#include "json/fields.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "json/internal.h"

/*
 * Of a value, a sentence begins with where in it the fault is, and each that it is in puts its own
 * place before: ": an integer is expected", ".size: ...", "[1].size: ...".
 */

static int read_value(const json_t *value, const struct field *field, char *config,
		      struct err *err);
static int read_members(const json_t *object, const struct field *fields, bool all, void *to,
			struct err *err);

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, ": %s", strerror(ENOMEM));
}

static int read_integer(const json_t *value, const struct field *field, void *to, struct err *err)
{
	int64_t integer = json_integer_value(value);

	if (!json_is_integer(value))
		return err_set(err, EINVAL, ": an integer is expected");
	if (integer < field->min || integer > field->max)
		return err_set(err, EINVAL, ": %lld is not between %lld and %lld",
			       (long long)integer, (long long)field->min, (long long)field->max);
	if (field->size == sizeof(uint32_t))
		*(uint32_t *)to = (uint32_t)integer;
	else
		*(int64_t *)to = integer;
	return 0;
}

static int read_string(const json_t *value, const struct field *field, char **to, struct err *err)
{
	if (!json_is_string(value))
		return err_set(err, EINVAL, ": a string is expected");
	if ((int64_t)json_string_length(value) < field->min)
		return err_set(err, EINVAL, ": a string that is not empty is expected");
	free(*to);
	*to = strdup(json_string_value(value));
	return *to ? 0 : no_memory(err);
}

static int read_texts(const json_t *value, const struct field *field, char **to, struct err *err)
{
	const char *name;
	json_t *one;

	if (!json_is_object(value))
		return err_set(err, EINVAL, ": an object is expected");
	/* jansson's iterators take the object without const, and do not change it. */
	json_object_foreach ((json_t *)(uintptr_t)value, name, one) {
		if (!json_is_string(one))
			return err_set(err, EINVAL, ".%s: a string is expected", name);
	}
	free(*to);
	*to = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS);
	if (!*to)
		return no_memory(err);
	if ((int64_t)strlen(*to) > field->max)
		return err_set(err, EINVAL, ": %zu bytes as JSON, at most %lld are possible",
			       strlen(*to), (long long)field->max);
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
	return err_set(err, EINVAL, ": one of %s is expected", known);
}

static int read_word(const json_t *value, const struct field *field, void *to, struct err *err)
{
	struct err cause;
	int rc = field->parse(field, json_string_value(value), to, &cause);

	return rc < 0 ? err_set(err, -rc, ": %s", cause.text) : 0;
}

static int read_absent(const json_t *value, const struct field *field, struct err *err)
{
	if (field->choices && json_is_string(value) &&
	    strcmp(json_string_value(value), field->choices[0]) == 0)
		return 0;
	return err_set(err, ENOTSUP, ": not supported yet");
}

static int read_empty(const json_t *value, const struct field *field, struct err *err)
{
	if (json_is_null(value) || (json_is_array(value) && json_array_size(value) == 0))
		return 0;
	return err_set(err, EINVAL, ": %s", field->why);
}

bool fields_zero(const char *bytes, size_t size)
{
	while (size > 0 && bytes[size - 1] == 0)
		size--;
	return size == 0;
}

char *fields_next_entry(const struct field *field, const char *config, const char *before)
{
	const size_t size = field->each->size;
	char *entries = *(char *const *)(config + field->offset);
	size_t at = before ? (size_t)(before - entries) + size : 0;

	if (!entries || (field->count ? at == *(const size_t *)(config + field->count) * size
				      : fields_zero(entries + at, size)))
		return NULL;
	return entries + at;
}

static void free_value(const struct field *field, char *config);

static void free_list(const struct field *field, char *config)
{
	char **entries = (char **)(config + field->offset), *entry = NULL;

	while ((entry = fields_next_entry(field, config, entry)))
		free_value(field->each, entry);
	free(*entries);
	*entries = NULL;
	if (field->count)
		*(size_t *)(config + field->count) = 0;
}

static void free_slots(const struct field *field, char *slot)
{
	for (const char *const *name = field->each->fields->choices; *name; name++) {
		free_value(field->each, slot);
		slot += field->each->size;
	}
}

static void free_value(const struct field *field, char *config)
{
	char *from = config + field->offset;

	switch (field->type) {
	case FIELD_STRING:
	case FIELD_TEXTS:
		free(*(char **)from);
		*(char **)from = NULL;
		break;
	case FIELD_OBJECT:
		fields_free(field->fields, from);
		break;
	case FIELD_LIST:
		free_list(field, config);
		break;
	case FIELD_SLOTS:
		free_slots(field, from);
		break;
	default:
		break;
	}
}

void fields_free(const struct field *fields, void *config)
{
	for (; fields->name; fields++)
		free_value(fields, config);
}

static int fault_in_entry(struct err *err, int rc, size_t i, const struct err *cause)
{
	return err_set(err, -rc, "[%zu]%s", i, cause->text);
}

static int read_list(const json_t *list, const struct field *field, char *config, struct err *err)
{
	const size_t size = field->each->size, count = json_array_size(list);
	struct err cause;
	char *entries;

	if (!json_is_array(list))
		return err_set(err, EINVAL, ": a list is expected");
	if (field->max > 0 && count > (size_t)field->max)
		return err_set(err, EINVAL, ": %zu entries, at most %lld are possible", count,
			       (long long)field->max);
	entries = calloc(count + 1, size);
	if (!entries)
		return no_memory(err);
	free_list(field, config);
	memcpy(config + field->offset, &entries, sizeof(entries));
	for (size_t i = 0; i < count; i++) {
		int rc = read_value(json_array_get(list, i), field->each, entries + i * size,
				    &cause);

		/* What was read of it is the caller's to free, too. */
		if (field->count)
			*(size_t *)(config + field->count) = i + 1;
		if (rc < 0)
			return fault_in_entry(err, rc, i, &cause);
	}
	return 0;
}

static int read_slot(const json_t *value, const struct field *each, char *slots, struct err *err)
{
	const struct field *key = each->fields;
	const json_t *name = json_object_get(value, key->name);
	struct err cause;
	int slot = 0;
	int rc = name ? read_choice(name, key, &slot, &cause) : 0;

	if (rc < 0)
		return err_set(err, -rc, ".%s%s", key->name, cause.text);
	return read_members(value, each->fields, true, slots + (size_t)slot * each->size, err);
}

static int read_slots(const json_t *list, const struct field *field, char *slots, struct err *err)
{
	struct err cause;
	json_t *value;
	size_t i;

	if (!json_is_array(list))
		return err_set(err, EINVAL, ": a list is expected");
	json_array_foreach (list, i, value) {
		int rc = read_slot(value, field->each, slots, &cause);

		if (rc < 0)
			return fault_in_entry(err, rc, i, &cause);
	}
	return 0;
}

static int read_value(const json_t *value, const struct field *field, char *config, struct err *err)
{
	void *to = config + field->offset;

	switch (field->type) {
	case FIELD_STRING:
		return read_string(value, field, to, err);
	case FIELD_INTEGER:
		return read_integer(value, field, to, err);
	case FIELD_CHOICE:
		return read_choice(value, field, to, err);
	case FIELD_WORD:
		return read_word(value, field, to, err);
	case FIELD_OBJECT:
		return read_members(value, field->fields, true, to, err);
	case FIELD_LIST:
		return read_list(value, field, config, err);
	case FIELD_SLOTS:
		return read_slots(value, field, to, err);
	case FIELD_TEXTS:
		return read_texts(value, field, to, err);
	case FIELD_EMPTY:
		return read_empty(value, field, err);
	case FIELD_ABSENT:
		return read_absent(value, field, err);
	case FIELD_KEY:
		/* Has been read, to find the struct. */
		return 0;
	case FIELD_BOOL:
		if (!json_is_boolean(value))
			return err_set(err, EINVAL, ": true or false is expected");
		*(bool *)to = json_boolean_value(value);
		return 0;
	}
	return -EINVAL;
}

static int read_field(const json_t *value, const struct field *field, bool required, char *config,
		      struct err *err)
{
	struct err cause;
	int rc;

	/* null stands for a field that is not given. */
	if (json_is_null(value) && !required)
		return 0;
	if (field->given)
		*(bool *)(config + field->given) = true;
	rc = read_value(value, field, config, &cause);
	return rc < 0 ? err_set(err, -rc, ".%s%s", field->name, cause.text) : 0;
}

/* The table's last entry if there is none of that name. */
static const struct field *find_field(const struct field *fields, const char *name)
{
	while (fields->name && strcmp(fields->name, name) != 0)
		fields++;
	return fields;
}

static int read_members(const json_t *object, const struct field *fields, bool all, void *to,
			struct err *err)
{
	const char *name, *ignored = NULL;
	json_t *value;

	if (!json_is_object(object))
		return err_set(err, EINVAL, ": an object is expected");
	/* jansson's iterators take the object without const, and do not change it. */
	json_object_foreach ((json_t *)(uintptr_t)object, name, value) {
		const struct field *field = find_field(fields, name);
		int rc;

		if (!field->name && field->others == OTHERS_REFUSED)
			return err_set(err, EINVAL, ".%s: unknown field", name);
		if (!field->name) {
			ignored = field->others == OTHERS_LOGGED ? name : NULL;
			continue;
		}
		rc = read_field(value, field, all && field->required, to, err);
		if (rc < 0)
			return rc;
	}
	/* However many there are, the log has one line of it. */
	if (ignored)
		log_warn("%s: unknown field, ignored", ignored);
	for (; all && fields->name; fields++) {
		if (fields->required && !json_object_get(object, fields->name))
			return err_set(err, EINVAL, ".%s: the field is missing", fields->name);
	}
	return 0;
}

static int read_whole(const json_t *object, const struct field *fields, bool all, void *to,
		      struct err *err)
{
	struct err cause;
	int rc = read_members(object, fields, all, to, &cause);

	/* There is no name before what the sentence begins with. */
	return rc < 0 ? err_set(err, -rc, "%s", cause.text + (cause.text[0] == '.' ? 1 : 2)) : 0;
}

int fields_read_some(const json_t *object, const struct field *fields, void *to, struct err *err)
{
	return read_whole(object, fields, false, to, err);
}

int fields_read(const json_t *object, const struct field *fields, void *to, struct err *err)
{
	return read_whole(object, fields, true, to, err);
}

bool fields_given(const json_t *object, const struct field *fields, bool besides_required)
{
	for (; fields->name; fields++) {
		const json_t *value = json_object_get(object, fields->name);

		if (value && !json_is_null(value) && !(besides_required && fields->required))
			return true;
	}
	return false;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "json/fields.h"
#include "json/internal.h"

static int64_t load_integer(const struct field *field, const void *from)
{
	return field->size == sizeof(uint32_t) ? *(const uint32_t *)from : *(const int64_t *)from;
}

static bool given(const struct field *field, const void *config);

static bool object_given(const struct field *fields, const void *config)
{
	bool any = false;

	for (; fields->name; fields++) {
		if (fields->type != FIELD_INTEGER)
			any |= given(fields, config);
		else if (load_integer(fields, (const char *)config + fields->offset) != 0)
			any = true;
		else if (fields->required)
			return false;
	}
	return any;
}

static bool given(const struct field *field, const void *config)
{
	const void *from = (const char *)config + field->offset;
	int64_t integer;

	switch (field->type) {
	case FIELD_STRING:
	case FIELD_TEXTS:
		return *(char *const *)from != NULL;
	case FIELD_INTEGER:
		integer = load_integer(field, from);
		return integer >= field->min && integer <= field->max &&
		       (integer != 0 || !field->null_if_absent);
	case FIELD_OBJECT:
		return object_given(field->fields, from);
	case FIELD_CHOICE:
		return !field->first_left_out || *(const int *)from != 0;
	case FIELD_BOOL:
	case FIELD_WORD:
	case FIELD_LIST:
	case FIELD_SLOTS:
		return true;
	case FIELD_KEY:
	case FIELD_EMPTY:
	case FIELD_ABSENT:
		return false;
	}
	return false;
}

static json_t *write_value(const struct field *field, const char *config);

static json_t *write_list(const struct field *field, const char *config)
{
	const char *entry = NULL;
	json_t *list = json_array();

	while (list && (entry = fields_next_entry(field, config, entry))) {
		if (json_array_append_new(list, write_value(field->each, entry)) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static json_t *write_slots(const struct field *field, const char *slot)
{
	const struct field *key = field->each->fields;
	json_t *list = json_array();

	for (size_t i = 0; list && key->choices[i]; i++, slot += field->each->size) {
		json_t *object;

		if (fields_zero(slot, field->each->size))
			continue;
		object = json_pack("{s:s}", key->name, key->choices[i]);
		if (json_object_update_new(object, fields_write(key + 1, slot)) < 0 ||
		    json_array_append(list, object) < 0) {
			json_decref(list);
			list = NULL;
		}
		json_decref(object);
	}
	return list;
}

static json_t *write_value(const struct field *field, const char *config)
{
	const void *from = config + field->offset;
	char word[FIELD_WORD_SIZE];

	switch (field->type) {
	case FIELD_STRING:
		return json_string(*(char *const *)from);
	case FIELD_TEXTS:
		return json_loads(*(char *const *)from, 0, NULL);
	case FIELD_INTEGER:
		return json_integer(load_integer(field, from));
	case FIELD_CHOICE:
		return json_string(field->choices[*(const int *)from]);
	case FIELD_WORD:
		field->print(field, from, word);
		return json_string(word);
	case FIELD_BOOL:
		return json_boolean(*(const bool *)from);
	case FIELD_OBJECT:
		return fields_write(field->fields, from);
	case FIELD_LIST:
		return write_list(field, config);
	case FIELD_SLOTS:
		return write_slots(field, from);
	case FIELD_KEY:
	case FIELD_EMPTY:
	case FIELD_ABSENT:
		break;
	}
	return NULL;
}

json_t *fields_write(const struct field *fields, const void *from)
{
	json_t *object = json_object();

	for (; object && fields->name; fields++) {
		json_t *value;

		if (fields->required || given(fields, from))
			value = write_value(fields, from);
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

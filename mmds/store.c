/* SPDX-License-Identifier: Apache-2.0 */
#include "mmds/store.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define FLAGS (JSON_COMPACT | JSON_ENCODE_ANY)
/* Significant digits: all doubles come back from 17, those that people write from 15. */
#define PRECISION_MIN 15
#define PRECISION_MAX 17

void store_init(struct store *store, size_t limit)
{
	*store = (struct store){ .limit = limit, .flags = FLAGS };
}

void store_close(struct store *store)
{
	json_decref(store->data);
	store->data = NULL;
}

static int compare_keys(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static json_t *sorted_copy(const json_t *value);

static json_t *sorted_object(const json_t *object)
{
	size_t count = json_object_size(object), i = 0;
	const char **keys = calloc(count + 1, sizeof(*keys));
	json_t *copy = json_object();
	const char *key;
	json_t *value;

	if (!keys || !copy)
		goto fail;
	json_object_foreach ((json_t *)(uintptr_t)object, key, value)
		keys[i++] = key;
	qsort(keys, count, sizeof(*keys), compare_keys);
	for (i = 0; i < count; i++) {
		if (json_object_set_new(copy, keys[i],
					sorted_copy(json_object_get(object, keys[i]))) < 0)
			goto fail;
	}
	free(keys);
	return copy;
fail:
	free(keys);
	json_decref(copy);
	return NULL;
}

/* A copy that shares nothing, with the keys of every object in order; NULL without memory. */
static json_t *sorted_copy(const json_t *value)
{
	json_t *copy, *entry;
	size_t i;

	if (json_is_object(value))
		return sorted_object(value);
	if (!json_is_array(value))
		return json_deep_copy(value);
	copy = json_array();
	json_array_foreach (value, i, entry) {
		if (json_array_append_new(copy, sorted_copy(entry)) < 0) {
			json_decref(copy);
			return NULL;
		}
	}
	return copy;
}

static bool has_digits(double real, int precision)
{
	char text[64];

	snprintf(text, sizeof(text), "%.*g", precision, real);
	return strtod(text, NULL) == real;
}

/* The digits that every real in it needs. */
static int precision_of(const json_t *value, int precision)
{
	const char *key;
	json_t *inner;
	size_t i;

	json_object_foreach ((json_t *)(uintptr_t)value, key, inner)
		precision = precision_of(inner, precision);
	json_array_foreach (value, i, inner)
		precision = precision_of(inner, precision);
	while (json_is_real(value) && precision < PRECISION_MAX &&
	       !has_digits(json_real_value(value), precision))
		precision++;
	return precision;
}

/* Takes the data. */
static int replace(struct store *store, json_t *data, struct err *err)
{
	size_t flags = FLAGS, size;

	if (!data)
		return err_sys(err, ENOMEM, "metadata");
	flags |= JSON_REAL_PRECISION((size_t)precision_of(data, PRECISION_MIN));
	size = json_dumpb(data, NULL, 0, flags);
	if (size == 0 || size > store->limit) {
		json_decref(data);
		return size == 0 ? err_sys(err, ENOMEM, "metadata")
				 : err_set(err, EMSGSIZE,
					   "metadata: %zu bytes as compact JSON, at most %zu are "
					   "possible",
					   size, store->limit);
	}
	json_decref(store->data);
	store->data = data;
	store->flags = flags;
	return 0;
}

int store_put(struct store *store, const json_t *data, struct err *err)
{
	return replace(store, sorted_copy(data), err);
}

/*
 * RFC 7396, 2: what the target becomes. Takes the target, which may be NULL and is nobody else's;
 * NULL without memory.
 */
static json_t *merged(json_t *target, const json_t *patch)
{
	const char *key;
	json_t *value;

	if (!json_is_object(patch)) {
		json_decref(target);
		return json_deep_copy(patch);
	}
	if (!json_is_object(target)) {
		json_decref(target);
		target = json_object();
	}
	json_object_foreach ((json_t *)(uintptr_t)patch, key, value) {
		if (json_is_null(value)) {
			(void)json_object_del(target, key);
			continue;
		}
		if (json_object_set_new(target, key,
					merged(json_incref(json_object_get(target, key)), value)) <
		    0) {
			json_decref(target);
			return NULL;
		}
	}
	return target;
}

int store_patch(struct store *store, const json_t *patch, struct err *err)
{
	json_t *copy, *data, *sorted;

	if (!store->data)
		return err_set(err, ENODATA, "metadata: there is none yet that could be changed");
	copy = json_deep_copy(store->data);
	data = copy ? merged(copy, patch) : NULL;
	sorted = data ? sorted_copy(data) : NULL;
	json_decref(data);
	return replace(store, sorted, err);
}

/* One part of a JSON pointer: "~1" is a slash, "~0" a tilde. False if it is another escape. */
static bool unescape(const char *part, size_t len, char *key)
{
	for (size_t i = 0; i < len; i++) {
		if (part[i] != '~') {
			*key++ = part[i];
			continue;
		}
		if (++i == len || (part[i] != '0' && part[i] != '1'))
			return false;
		*key++ = part[i] == '0' ? '~' : '/';
	}
	*key = '\0';
	return true;
}

/* RFC 6901, 4: digits without a leading zero. */
static const json_t *array_entry(const json_t *array, const char *key)
{
	size_t len = strlen(key);

	if (len == 0 || len > 9 || strspn(key, "0123456789") != len || (key[0] == '0' && len > 1))
		return NULL;
	return json_array_get(array, strtoul(key, NULL, 10));
}

/* `key` has room for the path. */
static const json_t *find(const struct store *store, const char *path, char *key)
{
	const json_t *value = store->data ? store->data : json_null();

	if (*path && *path != '/')
		return NULL;
	for (;;) {
		size_t len;

		path += strspn(path, "/");
		if (!value || !*path)
			return value;
		len = strcspn(path, "/");
		if (!unescape(path, len, key))
			return NULL;
		value = json_is_array(value) ? array_entry(value, key)
					     : json_object_get(value, key);
		path += len;
	}
}

/* The keys of an object, a line each; those of objects with a slash behind them. */
static char *list_keys(const json_t *object)
{
	size_t size = 1;
	const char *key;
	json_t *value;
	char *text, *end;

	json_object_foreach ((json_t *)(uintptr_t)object, key, value)
		size += strlen(key) + 2;
	text = malloc(size);
	if (!text)
		return NULL;
	*text = '\0';
	end = text;
	json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
		if (end > text)
			end = stpcpy(end, "\n");
		end = stpcpy(end, key);
		if (json_is_object(value))
			end = stpcpy(end, "/");
	}
	return text;
}

enum store_result store_read(const struct store *store, const char *path, enum store_format format,
			     char **text, size_t *size)
{
	char *key = malloc(strlen(path) + 1);
	const json_t *value = key ? find(store, path, key) : NULL;

	free(key);
	if (!key)
		return STORE_NO_MEMORY;
	if (!value)
		return STORE_ABSENT;
	if (format == STORE_JSON)
		*text = json_dumps(value, store->flags);
	else if (json_is_string(value))
		*text = strdup(json_string_value(value));
	else if (json_is_object(value))
		*text = list_keys(value);
	else
		return STORE_NOT_SHOWN;
	if (!*text)
		return STORE_NO_MEMORY;
	*size = strlen(*text);
	return STORE_FOUND;
}

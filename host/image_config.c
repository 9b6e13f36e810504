/* SPDX-License-Identifier: Apache-2.0 */
#include "host/image_config.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "host/signals.h"
#include "json/fields.h"

static int parse_signal(const struct field *field, const char *text, void *to, struct err *err)
{
	int *number = to;

	(void)field;
	if (!text)
		return err_set(err, EINVAL, "a string is expected");
	*number = *text ? signal_number(text) : 0;
	return *number >= 0 ? 0 : err_set(err, EINVAL, "there is no signal %s", text);
}

static const struct field word = { .type = FIELD_STRING, .size = sizeof(char *) };

static const struct field image_fields[] = {
	{ "entrypoint", FIELD_LIST, FIELD_AT(image_config, entrypoint), .each = &word },
	{ "cmd", FIELD_LIST, FIELD_AT(image_config, cmd), .each = &word },
	{ "env", FIELD_LIST, FIELD_AT(image_config, env), .each = &word },
	{ "workdir", FIELD_STRING, FIELD_AT(image_config, workdir) },
	{ "user", FIELD_STRING, FIELD_AT(image_config, user) },
	{ "stop_signal", FIELD_WORD, FIELD_AT(image_config, stop_signal), .parse = parse_signal },
	{ NULL, .others = OTHERS_IGNORED },
};

/* It says nothing, too. */
static void forget_empty(char **text)
{
	if (!*text || **text)
		return;
	free(*text);
	*text = NULL;
}

int image_config_open(struct image_config *config, const char *image, struct err *err)
{
	char path[PATH_MAX];
	const char *dot = strrchr(image, '.');
	json_error_t error;
	struct err cause;
	json_t *json;
	int rc;

	memset(config, 0, sizeof(*config));

	/* blobs/DIGEST.FORMAT has its blobs/DIGEST.json. */
	if (!dot ||
	    snprintf(path, sizeof(path), "%.*s.json", (int)(dot - image), image) >=
		    (int)sizeof(path) ||
	    access(path, F_OK) < 0)
		return 0;
	json = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
	if (!json)
		return err_set(err, EINVAL, "image %s: its configuration: %s", image, error.text);
	rc = fields_read(json, image_fields, config, &cause);
	json_decref(json);
	if (rc < 0)
		return err_set(err, -rc, "image %s: its configuration: %s", image, cause.text);
	forget_empty(&config->workdir);
	forget_empty(&config->user);
	return 0;
}

void image_config_close(struct image_config *config)
{
	fields_free(image_fields, config);
	memset(config, 0, sizeof(*config));
}

int image_config_add(json_t *list, char *const *words)
{
	for (; words && *words; words++) {
		if (json_array_append_new(list, json_string_nocheck(*words)) < 0)
			return -ENOMEM;
	}
	return 0;
}

json_t *image_config_command(const struct image_config *config, const char *entrypoint,
			     char *const *words)
{
	json_t *list = json_array();
	int rc = 0;

	if (entrypoint && *entrypoint)
		rc = json_array_append_new(list, json_string_nocheck(entrypoint));
	if (!entrypoint)
		rc = image_config_add(list, config->entrypoint);
	if (rc == 0 && !entrypoint && !*words)
		rc = image_config_add(list, config->cmd);
	if (rc == 0)
		rc = image_config_add(list, words);
	if (rc == 0)
		return list;
	json_decref(list);
	return NULL;
}

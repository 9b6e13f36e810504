/* SPDX-License-Identifier: Apache-2.0 */
#include "host/image_config.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "host/signals.h"

/* Absent, or a list of strings. */
static bool is_list(const json_t *value)
{
	size_t i;
	json_t *item;

	if (value && !json_is_array(value) && !json_is_null(value))
		return false;
	json_array_foreach (value, i, item) {
		if (!json_is_string(item))
			return false;
	}
	return true;
}

int image_config_open(struct image_config *config, const char *image, struct err *err)
{
	char path[PATH_MAX];
	const char *dot = strrchr(image, '.');
	const char *stop_signal = NULL;
	json_error_t error;

	memset(config, 0, sizeof(*config));

	/* blobs/DIGEST.FORMAT has its blobs/DIGEST.json. */
	if (!dot ||
	    snprintf(path, sizeof(path), "%.*s.json", (int)(dot - image), image) >=
		    (int)sizeof(path) ||
	    access(path, F_OK) < 0)
		return 0;
	config->json = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
	if (!config->json)
		return err_set(err, EINVAL, "image %s: its configuration: %s", image, error.text);
	if (json_unpack_ex(config->json, &error, 0, "{s?o, s?o, s?o, s?s, s?s, s?s}", "entrypoint",
			   &config->entrypoint, "cmd", &config->cmd, "env", &config->env, "workdir",
			   &config->workdir, "user", &config->user, "stop_signal",
			   &stop_signal) < 0)
		return err_set(err, EINVAL, "image %s: its configuration: %s", image, error.text);
	if (!is_list(config->entrypoint) || !is_list(config->cmd) || !is_list(config->env))
		return err_set(err, EINVAL,
			       "image %s: its configuration: lists of strings are expected", image);
	if (stop_signal && *stop_signal) {
		config->stop_signal = signal_number(stop_signal);
		if (config->stop_signal < 0)
			return err_set(err, EINVAL,
				       "image %s: its configuration: there is no signal %s", image,
				       stop_signal);
	}
	/* Both mean that it says nothing about it. */
	if (config->workdir && !*config->workdir)
		config->workdir = NULL;
	if (config->user && !*config->user)
		config->user = NULL;
	return 0;
}

void image_config_close(struct image_config *config)
{
	json_decref(config->json);
	memset(config, 0, sizeof(*config));
}

json_t *image_config_command(const struct image_config *config, const char *entrypoint,
			     char *const *words)
{
	json_t *list = json_array();

	if (entrypoint && *entrypoint)
		json_array_append_new(list, json_string_nocheck(entrypoint));
	if (!entrypoint)
		json_array_extend(list, config->entrypoint);
	if (!entrypoint && !*words)
		json_array_extend(list, config->cmd);
	for (; *words; words++) {
		if (json_array_append_new(list, json_string_nocheck(*words)) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

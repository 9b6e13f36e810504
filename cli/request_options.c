/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/request_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/session.h"
#include "host/values.h"

int request_usage_error(const char *command, const char *what, const char *value,
			const char *expected)
{
	fprintf(stderr, "mote %s: %s%s%s: %s; see mote %s --help\n", command, what,
		*value ? " " : "", value, expected, command);
	return -1;
}

/* NAME=VALUE, or NAME for what it is here: nothing, if there is none. 0 or -EINVAL. */
static int add_variable(json_t *env, const char *text)
{
	const char *value = strchr(text, '=') ? NULL : getenv(text);
	char *both = NULL;
	int rc;

	if (!*text || *text == '=')
		return -EINVAL;
	if (!strchr(text, '=') && !value)
		return 0;
	if (value && asprintf(&both, "%s=%s", text, value) < 0)
		return -ENOMEM;
	rc = json_array_append_new(env, json_string_nocheck(both ? both : text));
	free(both);
	return rc < 0 ? -ENOMEM : 0;
}

/* A variable a line as --env has it; lines that begin with # and empty ones are nothing. */
static int read_variables(json_t *env, const char *command, const char *path)
{
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;
	ssize_t length;
	int rc = 0;

	if (!file)
		return request_usage_error(command, "--env-file", path, strerrordesc_np(errno));
	while (rc == 0 && (length = getline(&line, &size, file)) >= 0) {
		const char *text = line + strspn(line, " \t");

		while (length > 0 && (line[length - 1] == '\n' || line[length - 1] == '\r'))
			line[--length] = '\0';
		if (*text && *text != '#' &&
		    (strlen(line) != (size_t)length || add_variable(env, text) < 0))
			rc = request_usage_error(command, "--env-file", path,
						 "NAME=VALUE or NAME is expected on each line");
	}
	if (rc == 0 && ferror(file))
		rc = request_usage_error(command, "--env-file", path, strerrordesc_np(errno));
	free(line);
	fclose(file);
	return rc;
}

void request_add_terminal(struct session_request *request)
{
	const char *term = getenv("TERM");

	if (request->tty && term && *term)
		json_array_insert_new(request->env, 0, json_sprintf("TERM=%s", term));
}

int request_option(struct session_request *request, const char *command, int option,
		   const char *value)
{
	switch (option) {
	case 'e':
		return add_variable(request->env, value) == 0
			       ? 1
			       : request_usage_error(command, "--env", value,
						     "NAME=VALUE or NAME is expected");
	case REQUEST_ENV_FILE:
		return read_variables(request->env, command, value) == 0 ? 1 : -1;
	case 'n':
		request->no_stdin = true;
		return 1;
	case 'u':
		request->user = value;
		return 1;
	case 'w':
		if (value[0] != '/')
			return request_usage_error(command, "--workdir", value,
						   "an absolute path is expected");
		request->cwd = value;
		return 1;
	case REQUEST_TIMEOUT:
		if (value_duration(value, &request->timeout_ms) < 0)
			return request_usage_error(command, "--timeout", value,
						   "a time as 500ms, 10s or 5m is expected");
		return 1;
	case 't':
		request->tty = true;
		return 1;
	case 'i':
		return 1;
	default:
		return 0;
	}
}

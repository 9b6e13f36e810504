/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/request_options.h"

#include <stdio.h>
#include <string.h>

#include "cli/session.h"
#include "cli/values.h"

int request_usage_error(const char *command, const char *what, const char *value,
			const char *expected)
{
	fprintf(stderr, "mote %s: %s%s%s: %s; see mote %s --help\n", command, what,
		*value ? " " : "", value, expected, command);
	return -1;
}

int request_option(struct session_request *request, const char *command, int option,
		   const char *value)
{
	switch (option) {
	case 'e':
		if (!strchr(value, '=') ||
		    json_array_append_new(request->env, json_string(value)) < 0)
			return request_usage_error(command, "--env", value,
						   "NAME=VALUE is expected");
		return 1;
	case 'u':
		request->user = value;
		return 1;
	case 'w':
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

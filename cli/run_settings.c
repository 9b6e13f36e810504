/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/run_settings.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/request_options.h"
#include "cli/session.h"
#include "cli/signals.h"
#include "cli/values.h"
#include "rootfs-tools/init/protocol.h"

#define WITH_VALUE(name, number)                                                                   \
	{                                                                                          \
		name, required_argument, NULL, number                                              \
	}
/* Whatever follows is not looked at. */
#define REFUSED(name)                                                                              \
	{                                                                                          \
		name, optional_argument, NULL, SETTING_REFUSED                                     \
	}

const struct option run_settings_long[] = {
	WITH_VALUE("entrypoint", SETTING_ENTRYPOINT),
	WITH_VALUE("hostname", SETTING_HOSTNAME),
	WITH_VALUE("add-host", SETTING_ADD_HOST),
	WITH_VALUE("dns", SETTING_DNS),
	WITH_VALUE("dns-search", SETTING_DNS_SEARCH),
	WITH_VALUE("dns-option", SETTING_DNS_OPTION),
	WITH_VALUE("tmpfs", SETTING_TMPFS),
	WITH_VALUE("ulimit", SETTING_ULIMIT),
	WITH_VALUE("label", SETTING_LABEL),
	WITH_VALUE("stop-signal", SETTING_STOP_SIGNAL),
	WITH_VALUE("stop-timeout", SETTING_STOP_TIMEOUT),
	{ "init", no_argument, NULL, SETTING_INIT },
	REFUSED("pull"),
	REFUSED("network"),
	REFUSED("restart"),
	REFUSED("privileged"),
	REFUSED("cap-add"),
	REFUSED("cap-drop"),
	REFUSED("security-opt"),
	REFUSED("mount"),
	REFUSED("device"),
	REFUSED("read-only"),
	REFUSED("platform"),
};
const unsigned int run_settings_long_count =
	sizeof(run_settings_long) / sizeof(run_settings_long[0]);

static const char *const hints[][2] = {
	{ "pull", "images are made beforehand, see mote image --help" },
	{ "network", "it is called --net" },
	{ "restart", "what is to start it again runs mote run, as a unit of systemd does" },
	{ "privileged", "root in a microVM may do all that its kernel can" },
	{ "cap-add", "root in a microVM may do all that its kernel can" },
	{ "cap-drop", "the microVM is the wall; --user runs it without root's rights" },
	{ "security-opt", "the microVM is the wall" },
	{ "mount", "-v DIR:PATH copies a directory, --tmpfs PATH is memory, --drive a drive" },
	{ "device", "a guest has the host's devices as --drive and --net alone" },
	{ "read-only", "an image is never written to, see --rootfs and --overlay" },
	{ "platform", "images are the host's architecture's" },
};

static int usage_error(const char *name, const char *value, const char *expected)
{
	char what[64];

	snprintf(what, sizeof(what), "--%s", name);
	return request_usage_error("run", what, value, expected);
}

static int refuse(const char *name)
{
	for (size_t i = 0; i < sizeof(hints) / sizeof(hints[0]); i++) {
		if (strcmp(hints[i][0], name) == 0)
			return usage_error(name, "", hints[i][1]);
	}
	return usage_error(name, "", "there is no such option");
}

/* A path of the guest's, and options for mount(2): one word of the kernel's command line. */
static int add_tmpfs(struct run_settings *settings, const char *value)
{
	const size_t used = strlen(settings->tmpfs);

	if (value[0] != '/' || strstr(value, "mote."))
		return -EINVAL;
	for (const char *at = value; *at; at++) {
		if (!isgraph((unsigned char)*at) || *at == '"')
			return -EINVAL;
	}
	if (settings->tmpfs_count++ == PROTOCOL_TMPFS_MAX)
		return -E2BIG;
	return snprintf(settings->tmpfs + used, sizeof(settings->tmpfs) - used, " mote.tmpfs=%s",
			value) < (int)(sizeof(settings->tmpfs) - used)
		       ? 0
		       : -E2BIG;
}

static int parse_limit(const char *text, const char **end, json_int_t *limit)
{
	char *rest;

	errno = 0;
	*limit = strtoll(text, &rest, 10);
	*end = rest;
	return rest == text || errno || *limit < -1 ? -EINVAL : 0;
}

/* NAME=SOFT[:HARD]; that there is such a limit the agent says. */
static int add_limit(struct session_request *request, const char *value)
{
	const char *equals = strchr(value, '='), *end;
	json_int_t soft, hard;
	char name[32];

	if (!equals || equals - value >= (int)sizeof(name) ||
	    parse_limit(equals + 1, &end, &soft) < 0)
		return -EINVAL;
	hard = soft;
	if ((*end == ':' && parse_limit(end + 1, &end, &hard) < 0) || *end ||
	    (hard != -1 && (soft > hard || soft == -1)))
		return -EINVAL;
	snprintf(name, sizeof(name), "%.*s", (int)(equals - value), value);
	if (!request->rlimits)
		request->rlimits = json_object();
	return json_object_set_new(request->rlimits, name, json_pack("[I, I]", soft, hard)) < 0
		       ? -EINVAL
		       : 0;
}

static int add_label(struct run_settings *settings, const char *value)
{
	const char *equals = strchrnul(value, '=');
	json_t *text = json_string(*equals ? equals + 1 : "");

	if (!settings->labels)
		settings->labels = json_object();
	if (equals == value || !text) {
		json_decref(text);
		return -EINVAL;
	}
	return json_object_setn_new(settings->labels, value, (size_t)(equals - value), text) < 0
		       ? -EINVAL
		       : 0;
}

static int set_stop_signal(struct run_settings *settings, const char *value)
{
	settings->stop_signal = signal_number(value);
	return settings->stop_signal > 0 ? 0 : -EINVAL;
}

int run_settings_option(struct run_settings *settings, struct session_request *request, int option,
			const char *name, const char *value)
{
	struct run_names *names = &settings->names;
	const char *expected;
	int rc = 0;

	switch (option) {
	case SETTING_ENTRYPOINT:
		settings->entrypoint = value;
		return 1;
	case SETTING_HOSTNAME:
		rc = run_names_hostname(names, value);
		expected = "letters, digits, dots and dashes are expected, 63 at most";
		break;
	case SETTING_ADD_HOST:
		rc = run_names_add_host(names, value);
		expected = "NAME:ADDRESS is expected";
		break;
	case SETTING_DNS:
		rc = run_names_add_server(names, value);
		expected = "an address is expected";
		break;
	case SETTING_DNS_SEARCH:
		rc = run_names_add_search(names, value);
		expected = "a domain is expected";
		break;
	case SETTING_DNS_OPTION:
		rc = run_names_add_option(names, value);
		expected = "an option of resolv.conf(5) is expected";
		break;
	case SETTING_TMPFS:
		rc = add_tmpfs(settings, value);
		expected = "/PATH[:OPTION,...] without blanks is expected";
		break;
	case SETTING_ULIMIT:
		rc = add_limit(request, value);
		expected = "NAME=SOFT[:HARD] is expected";
		break;
	case SETTING_LABEL:
		rc = add_label(settings, value);
		expected = "NAME[=VALUE] is expected";
		break;
	case SETTING_STOP_SIGNAL:
		rc = set_stop_signal(settings, value);
		expected = "a signal as INT, SIGINT or 2 is expected";
		break;
	case SETTING_STOP_TIMEOUT:
		rc = value_duration(value, &settings->stop_timeout_ms);
		expected = "a time as 500ms, 10s or 5m is expected";
		break;
	case SETTING_INIT:
		return 1;
	case SETTING_REFUSED:
		return refuse(name);
	default:
		return 0;
	}
	if (rc == 0)
		return 1;
	return usage_error(name, value, rc == -E2BIG ? "these are too many" : expected);
}

void run_settings_close(struct run_settings *settings)
{
	json_decref(settings->labels);
	settings->labels = NULL;
}

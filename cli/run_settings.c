/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/run_settings.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent-protocol/protocol.h"
#include "base/array.h"
#include "cli/request_options.h"
#include "cli/session.h"
#include "host/signals.h"
#include "host/values.h"

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

static int set_entrypoint(struct run_settings *settings, const char *value)
{
	settings->entrypoint = value;
	return 0;
}

static int set_stop_timeout(struct run_settings *settings, const char *value)
{
	return value_duration(value, &settings->stop_timeout_ms);
}

/* Takes a value; -E2BIG for one too many, else -errno for a wrong one. */
typedef int setting_take(struct run_settings *settings, const char *value);
typedef int name_take(struct run_names *names, const char *value);
typedef int request_take(struct session_request *request, const char *value);

/* Of three kinds, by what they are kept in; those of none are refused, or, without words, ignored.
 */
static const struct setting {
	const char *name;
	int has_argument;
	const char *words; /* what is expected, or why it is refused */
	setting_take *setting;
	name_take *names;
	request_take *request;
} all[] = {
	{ "entrypoint", required_argument, "", .setting = set_entrypoint },
	{ "hostname", required_argument,
	  "letters, digits, dots and dashes are expected, 63 at most",
	  .names = run_names_hostname },
	{ "add-host", required_argument, "NAME:ADDRESS is expected", .names = run_names_add_host },
	{ "dns", required_argument, "an address is expected", .names = run_names_add_server },
	{ "dns-search", required_argument, "a domain is expected", .names = run_names_add_search },
	{ "dns-option", required_argument, "an option of resolv.conf(5) is expected",
	  .names = run_names_add_option },
	{ "tmpfs", required_argument, "/PATH[:OPTION,...] without blanks is expected",
	  .setting = add_tmpfs },
	{ "ulimit", required_argument, "NAME=SOFT[:HARD] is expected", .request = add_limit },
	{ "label", required_argument, "NAME[=VALUE] is expected", .setting = add_label },
	{ "stop-signal", required_argument, "a signal as INT, SIGINT or 2 is expected",
	  .setting = set_stop_signal },
	{ "stop-timeout", required_argument, "a time as 500ms, 10s or 5m is expected",
	  .setting = set_stop_timeout },
	{ "init", no_argument, NULL },
	/* Of those that mote has otherwise, whatever follows is not looked at. */
	{ "pull", optional_argument, "mote image pull fetches an image anew" },
	{ "network", optional_argument, "it is called --net" },
	{ "restart", optional_argument,
	  "what is to start it again runs mote run, as a unit of systemd does" },
	{ "privileged", optional_argument, "root in a microVM may do all that its kernel can" },
	{ "cap-add", optional_argument, "root in a microVM may do all that its kernel can" },
	{ "cap-drop", optional_argument,
	  "the microVM is the wall; --user runs it without root's rights" },
	{ "security-opt", optional_argument, "the microVM is the wall" },
	{ "mount", optional_argument,
	  "-v DIR:PATH copies a directory, --tmpfs PATH is memory, --drive a drive" },
	{ "device", optional_argument,
	  "a guest has the host's devices as --drive and --net alone" },
	{ "read-only", optional_argument,
	  "an image is never written to, see --rootfs and --overlay" },
	{ "platform", optional_argument, "images are the host's architecture's" },
};

_Static_assert(ARRAY_SIZE(all) == RUN_SETTINGS_COUNT, "as the header has it");

void run_settings_options(struct option options[RUN_SETTINGS_COUNT])
{
	for (int i = 0; i < RUN_SETTINGS_COUNT; i++)
		options[i] = (struct option){ .name = all[i].name,
					      .has_arg = all[i].has_argument,
					      .val = RUN_SETTINGS_FIRST + i };
}

int run_settings_option(struct run_settings *settings, struct session_request *request, int option,
			const char *value)
{
	const struct setting *setting;
	bool is_refused;
	char what[64];
	int rc = 0;

	if (option < RUN_SETTINGS_FIRST || option >= RUN_SETTINGS_FIRST + RUN_SETTINGS_COUNT)
		return 0;
	setting = &all[option - RUN_SETTINGS_FIRST];
	is_refused = setting->has_argument == optional_argument;
	if (setting->setting)
		rc = setting->setting(settings, value);
	else if (setting->names)
		rc = setting->names(&settings->names, value);
	else if (setting->request)
		rc = setting->request(request, value);
	if (rc == 0 && !is_refused)
		return 1;
	snprintf(what, sizeof(what), "--%s", setting->name);
	return request_usage_error("run", what, is_refused ? "" : value,
				   rc == -E2BIG ? "these are too many" : setting->words);
}

void run_settings_close(struct run_settings *settings)
{
	json_decref(settings->labels);
	settings->labels = NULL;
}

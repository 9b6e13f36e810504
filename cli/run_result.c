/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/run_result.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>

#include "base/array.h"
#include "base/err.h"
#include "cli/cli.h"

static void print_phase(const char *name, int64_t us, int64_t *previous_us)
{
	if (us < 0)
		return;
	fprintf(stderr, "  %-26s %9.2f ms  (+%.2f)\n", name, (double)us / 1000,
		(double)(us - *previous_us) / 1000);
	*previous_us = us;
}

void run_result_print(const struct run_result *result)
{
	int64_t previous = 0;

	fprintf(stderr, "mote: time since the VMM was started:\n");
	print_phase("KVM ready", result->phases.kvm_ready_us, &previous);
	print_phase("kernel loaded", result->phases.kernel_loaded_us, &previous);
	print_phase("first guest instruction", result->phases.first_instruction_us, &previous);
	print_phase("guest init", result->phases.init_us, &previous);
	print_phase("agent ready", result->agent_us, &previous);
	print_phase("command done", result->done_us, &previous);
}

/* Phases that were not reached are left out. */
static json_t *phases_object(const struct run_result *result)
{
	const struct {
		const char *name;
		int64_t us;
	} phases[] = {
		{ "kvm_ready", result->phases.kvm_ready_us },
		{ "kernel_loaded", result->phases.kernel_loaded_us },
		{ "first_instruction", result->phases.first_instruction_us },
		{ "init", result->phases.init_us },
		{ "agent_ready", result->agent_us },
		{ "command_done", result->done_us },
	};
	json_t *object = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(phases); i++) {
		if (phases[i].us >= 0)
			json_object_set_new(object, phases[i].name, json_integer(phases[i].us));
	}
	return object;
}

static json_t *result_object(const struct run_result *result)
{
	const struct session_result *session = result->session;
	json_t *object =
		json_pack("{s:i, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "exit_status",
			  result->exit_status, "timed_out", session->timed_out, "oom_killed",
			  session->oom_killed, "user_us", (json_int_t)session->user_us, "system_us",
			  (json_int_t)session->system_us, "memory_peak_bytes",
			  (json_int_t)session->memory_peak_bytes, "stdin_bytes",
			  (json_int_t)session->stdin_bytes, "stdout_bytes",
			  (json_int_t)session->stdout_bytes, "stderr_bytes",
			  (json_int_t)session->stderr_bytes, "phases_us", phases_object(result));

	if (session->end == SESSION_SIGNALED)
		json_object_set_new(object, "signal", json_integer(session->status));
	if (session->end == SESSION_EXITED)
		json_object_set_new(object, "code", json_integer(session->status));
	if (result->error)
		json_object_set_new(object, "error", json_string(result->error));
	return object;
}

int run_result_write(const struct run_result *result, const char *path, struct err *err)
{
	json_t *object = result_object(result);
	char *text = cli_json_text(object, JSON_COMPACT);
	FILE *out = path ? fopen(path, "we") : stderr;
	int rc = 0;

	if (!out || !text || fputs(text, out) == EOF || fputc('\n', out) == EOF ||
	    fflush(out) == EOF)
		rc = err_sys(err, errno, "--json-result %s", path ? path : "on standard error");
	free(text);
	json_decref(object);
	if (path && out)
		fclose(out);
	return rc;
}

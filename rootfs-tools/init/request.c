/* SPDX-License-Identifier: Apache-2.0 */
#include "request.h"

#include <jansson.h>
#include <string.h>

#include "agent.h"
#include "execution.h"
#include "stream.h"

#define GRACE_MAX_MS 60000

static enum request_outcome shut_down(struct agent *agent, struct stream *stream, json_t *value,
				      struct failure *failure)
{
	json_int_t grace_ms = 0;

	if (json_unpack(value, "{s?I !}", "grace_ms", &grace_ms) < 0 || grace_ms < 0 ||
	    grace_ms > GRACE_MAX_MS) {
		failure_set(failure, "shutdown: {\"grace_ms\": 0 to %d} is expected", GRACE_MAX_MS);
		return REQUEST_FAILED;
	}
	agent_end(agent, grace_ms);
	(void)stream_send_result(stream, json_object());
	return REQUEST_ANSWERED;
}

enum request_outcome request_begin(struct agent *agent, struct stream *stream,
				   const uint8_t *payload, size_t size,
				   struct execution **execution, struct failure *failure)
{
	json_error_t error;
	json_t *request = json_loadb((const char *)payload, size, JSON_REJECT_DUPLICATES, &error);
	const char *name = json_object_iter_key(json_object_iter(request));
	enum request_outcome outcome = REQUEST_FAILED;

	if (!request) {
		failure_set(failure, "request: %s", error.text);
		return REQUEST_FAILED;
	}
	if (json_object_size(request) != 1) {
		failure_set(failure, "request: an object with one member is expected");
	} else if (strcmp(name, "exec") == 0) {
		*execution = execution_start(request, json_object_get(request, name), failure);
		return *execution ? REQUEST_EXECUTES : REQUEST_FAILED;
	} else if (strcmp(name, "shutdown") == 0) {
		outcome = shut_down(agent, stream, json_object_get(request, name), failure);
	} else {
		failure_set(failure, "request: there is none called %s", name);
	}
	json_decref(request);
	return outcome;
}

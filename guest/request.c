/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/request.h"

#include <jansson.h>
#include <string.h>

#include "guest/control.h"
#include "guest/execution.h"
#include "guest/files.h"
#include "guest/stream.h"

#define GRACE_MAX_MS 60000

static enum request_outcome shut_down(struct request *request, struct stream *stream, json_t *value,
				      struct failure *failure)
{
	json_int_t grace_ms = 0;

	if (json_unpack(value, "{s?I !}", "grace_ms", &grace_ms) < 0 || grace_ms < 0 ||
	    grace_ms > GRACE_MAX_MS) {
		failure_set(failure, "shutdown: {\"grace_ms\": 0 to %d} is expected", GRACE_MAX_MS);
		return REQUEST_FAILED;
	}
	request->grace_ms = grace_ms;
	(void)stream_send_result(stream, json_object());
	return REQUEST_ENDS;
}

static enum request_outcome control(struct request *request, struct stream *stream, json_t *object,
				    struct failure *failure)
{
	const char *name = json_object_iter_key(json_object_iter(object));
	json_t *value = json_object_get(object, name);
	json_t *result = NULL;

	if (strcmp(name, "shutdown") == 0)
		return shut_down(request, stream, value, failure);
	if (strcmp(name, "put") == 0)
		return files_put(value, stream, failure) < 0 ? REQUEST_FAILED : REQUEST_GIVEN;
	if (strcmp(name, "get") == 0)
		return files_get(value, stream, failure) < 0 ? REQUEST_FAILED : REQUEST_GIVEN;
	if (strcmp(name, "quiesce") == 0)
		return files_sync(value, stream, failure) < 0 ? REQUEST_FAILED : REQUEST_GIVEN;
	if (strcmp(name, "stats") == 0)
		result = control_stats(request->streams, value, failure);
	else if (strcmp(name, "resume") == 0)
		result = control_resume(request->epoch, value, failure);
	else
		failure_set(failure, "request: there is none called %s", name);
	if (!result)
		return REQUEST_FAILED;
	(void)stream_send_result(stream, result);
	return REQUEST_ANSWERED;
}

enum request_outcome request_begin(struct request *request, struct stream *stream,
				   const uint8_t *payload, size_t size, struct failure *failure)
{
	json_error_t error;
	json_t *object = json_loadb((const char *)payload, size, JSON_REJECT_DUPLICATES, &error);
	const char *name = json_object_iter_key(json_object_iter(object));
	enum request_outcome outcome = REQUEST_FAILED;

	if (!object) {
		failure_set(failure, "request: %s", error.text);
		return REQUEST_FAILED;
	}
	if (json_object_size(object) != 1) {
		failure_set(failure, "request: an object with one member is expected");
	} else if (strcmp(name, "exec") == 0) {
		request->execution =
			execution_start(object, json_object_get(object, name), failure);
		return request->execution ? REQUEST_EXECUTES : REQUEST_FAILED;
	} else {
		/* A process that is given the stream has the payload in it still. */
		outcome = control(request, stream, object, failure);
	}
	json_decref(object);
	return outcome;
}

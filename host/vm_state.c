/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "host/api_client.h"
#include "host/vm.h"

/* A VMM answers in less than a tenth of that, or is stopped itself. */
#define STATE_TIMEOUT_MS 1000

bool vm_is_paused(const json_t *meta)
{
	struct api_answer answer = { 0 };
	struct api_client client;
	json_t *json = NULL;
	bool paused;
	struct err err;

	if (api_client_open(&client, vm_string(meta, "api"), &err) < 0)
		return false;
	client.timeout_ms = STATE_TIMEOUT_MS;
	if (api_client_request(&client, "GET", "/", NULL, 0, &answer, NULL, NULL, &err) == 0 &&
	    answer.status == 200)
		json = json_loadb(answer.body, answer.body_len, 0, NULL);
	paused = strcmp(vm_string(json, "state"), "Paused") == 0;
	json_decref(json);
	free(answer.body);
	api_client_close(&client);
	return paused;
}

int vm_check_awake(const json_t *meta, struct err *err)
{
	if (!vm_is_paused(meta))
		return 0;
	return err_set(err, EAGAIN,
		       "microVM %s: it is paused (mote api --socket %s PATCH /vm "
		       "'{\"state\": \"Resumed\"}' lets it go on)",
		       vm_string(meta, "name"), vm_string(meta, "api"));
}

json_t *vm_find_awake(const char *name, struct err *err)
{
	json_t *meta = vm_find_running(name, err);

	if (!meta || vm_check_awake(meta, err) == 0)
		return meta;
	json_decref(meta);
	return NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The input is a configuration file, and also the body of each of its sections. */
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "api-socket/body.h"
#include "api-socket/config_file.h"
#include "api-socket/resources.h"
#include "base/err.h"
#include "base/log.h"
#include "mmds/store.h"
#include "tests/fuzz/fuzz.h"
#include "vmm/control.h"
#include "json/fields.h"
#include "json/parse.h"

/* What is taken is printed as what gives it again. */
static void read_body(const struct body *body, const json_t *value)
{
	void *config = calloc(1, body->size), *again = calloc(1, body->size);
	struct err err = { "" };

	if (fields_read(value, body->fields, config, &err) == 0) {
		json_t *printed = fields_write(body->fields, config);
		json_t *reprinted;

		REQUIRE(printed && fields_read(printed, body->fields, again, &err) == 0);
		reprinted = fields_write(body->fields, again);
		REQUIRE(json_equal(printed, reprinted));
		json_decref(printed);
		json_decref(reprinted);
	} else {
		REQUIRE(err.text[0]);
	}
	fields_free(body->fields, config);
	fields_free(body->fields, again);
	free(config);
	free(again);
}

static void read_bodies(const json_t *value)
{
	for (const struct resource *resource = resources; resource->path; resource++) {
		for (unsigned int on = 0; on < RESOURCE_METHODS; on++) {
			const struct body *body = resource->operations[on].body;

			if (body && body->fields)
				read_body(body, value);
		}
	}
}

/* As metadata: all of it can be read again, and a document as its own patch changes nothing. */
static void store_metadata(const json_t *value)
{
	enum { LIMIT = 1000 };
	struct store store;
	struct err err = { "" };
	char *before, *after;
	size_t size;

	store_init(&store, LIMIT);
	if (store_put(&store, value, &err) == 0) {
		REQUIRE(store_read(&store, "/", STORE_JSON, &before, &size) == STORE_FOUND);
		REQUIRE(size <= LIMIT);
		if (json_is_object(value) && !strstr(before, "null")) {
			REQUIRE(store_patch(&store, value, &err) == 0);
			REQUIRE(store_read(&store, "", STORE_JSON, &after, &size) == STORE_FOUND);
			REQUIRE(strcmp(before, after) == 0);
			free(after);
		}
		free(before);
	} else {
		REQUIRE(err.text[0]);
	}
	store_close(&store);
}

/*
 * No file may be touched: a control that has been started refuses every file before it opens it.
 */
static void apply(const char *text, size_t size)
{
	struct control control;
	struct err err = { "" };

	REQUIRE(control_open(&control, NULL, NULL) == 0);
	control.state = CONTROL_RUNNING;
	REQUIRE(config_text_apply(&control, text, size, "vm.json", &err) < 0);
	REQUIRE(strstr(err.text, "vm.json"));
	control_close(&control);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	struct err err = { "" };
	json_t *file = parse_object(text, size, "input", &err);
	const char *name;
	json_t *value;

	if (!file) {
		REQUIRE(strstr(err.text, "input"));
		return 0;
	}
	read_bodies(file);
	store_metadata(file);
	json_object_foreach (file, name, value) {
		read_bodies(value);
		store_metadata(value);
	}
	apply(text, size);
	json_decref(file);
	return 0;
}

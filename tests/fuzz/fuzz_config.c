/* SPDX-License-Identifier: Apache-2.0 */
/* The input is a configuration file, and also the body of each of its sections. */
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "api-socket/bodies.h"
#include "api-socket/config_file.h"
#include "api-socket/cpu_config.h"
#include "base/err.h"
#include "mmds/store.h"
#include "tests/fuzz/fuzz.h"
#include "vmm/control.h"
#include "json/parse.h"

static void read_bodies(const json_t *body)
{
	struct boot_source_config boot_source = { 0 };
	struct machine_config machine = { .vcpu_count = 1, .mem_size_mib = CONFIG_MEMORY_MIN_MIB };
	struct serial_config serial = { 0 };
	struct logger_config logger = { 0 };
	struct drive_config drive = { 0 };
	struct network_interface_config interface = { 0 };
	struct vsock_device_config vsock = { 0 };
	struct mmds_config mmds = { 0 };
	struct err err;

	if (body_boot_source(body, &boot_source, &err) == 0)
		REQUIRE(boot_source.kernel_image_path);
	boot_source_config_free(&boot_source);
	if (body_machine(body, &machine, &err) == 0) {
		REQUIRE(machine.vcpu_count >= 1 && machine.vcpu_count <= CONFIG_VCPU_MAX);
		REQUIRE(machine.mem_size_mib >= CONFIG_MEMORY_MIN_MIB);
	}
	(void)body_serial(body, &serial, &err);
	serial_config_free(&serial);
	(void)body_logger(body, &logger, &err);
	logger_config_free(&logger);
	(void)body_drive(body, &drive, &err);
	drive_config_free(&drive);
	(void)body_network_interface(body, &interface, &err);
	network_interface_config_free(&interface);
	if (body_vsock(body, &vsock, &err) == 0)
		REQUIRE(vsock.uds_path && vsock.guest_cid >= 3);
	vsock_device_config_free(&vsock);
	if (body_mmds(body, &mmds, &err) == 0)
		REQUIRE(mmds.network_interfaces);
	mmds_config_free(&mmds);
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

/* What is taken is printed as what gives it again. */
static void read_cpu_config(const json_t *body)
{
	struct cpu_template template = { 0 }, again = { 0 };
	struct err err = { "" };

	if (body_cpu_config(body, &template, &err) == 0) {
		json_t *printed = cpu_config_json(&template);
		json_t *reprinted;

		REQUIRE(printed && body_cpu_config(printed, &again, &err) == 0);
		reprinted = cpu_config_json(&again);
		REQUIRE(json_equal(printed, reprinted));
		json_decref(printed);
		json_decref(reprinted);
	} else {
		REQUIRE(err.text[0]);
	}
	cpu_template_free(&template);
	cpu_template_free(&again);
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
	read_cpu_config(file);
	store_metadata(file);
	json_object_foreach (file, name, value) {
		read_bodies(value);
		read_cpu_config(value);
		store_metadata(value);
	}
	apply(text, size);
	json_decref(file);
	return 0;
}

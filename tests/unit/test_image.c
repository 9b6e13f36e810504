/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/err.h"
#include "cli/image_build.h"
#include "host/image_config.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

/* What the store keeps of a configuration, as text. */
static void check_config(const char *theirs, const char *expected)
{
	struct err err = { "" };
	json_t *config = image_build_config(theirs, strlen(theirs), &err);
	char *text;

	ck_assert_msg(config != NULL, "%s", err.text);
	text = json_dumps(config, JSON_COMPACT | JSON_SORT_KEYS);
	ck_assert_str_eq(text, expected);
	free(text);
	json_decref(config);
}

static void check_refused(const char *theirs, const char *sentence)
{
	struct err err = { "" };

	ck_assert_ptr_null(image_build_config(theirs, strlen(theirs), &err));
	ck_assert_str_eq(err.text, sentence);
}

START_TEST(configuration_of_an_image)
{
	check_config("", "{}");
	check_config("{}", "{\"oci\":{}}");
	check_config("{\"config\": {}}", "{\"oci\":{\"config\":{}}}");
	check_config("{\"config\": null}", "{\"oci\":{\"config\":null}}");
	check_config("{\"os\": \"linux\", \"rootfs\": {\"diff_ids\": []}, \"history\": [{}]}",
		     "{\"history\":[{}],\"oci\":{\"os\":\"linux\"}}");
	check_config(
		"{\"config\": {\"Entrypoint\": null, \"User\": \"\", \"WorkingDir\": \"\", "
		"\"Labels\": {\"a\": \"b\"}}}",
		"{\"oci\":{\"config\":{\"Entrypoint\":null,\"Labels\":{\"a\":\"b\"},\"User\":\"\","
		"\"WorkingDir\":\"\"}}}");
	check_config("{\"config\": {\"Entrypoint\": [\"/e\"], \"Cmd\": [], \"Env\": [\"A=1\"], "
		     "\"WorkingDir\": \"/w\", \"User\": \"1:2\", \"StopSignal\": \"SIGINT\"}}",
		     "{\"cmd\":[],\"entrypoint\":[\"/e\"],\"env\":[\"A=1\"],"
		     "\"oci\":{\"config\":{\"Cmd\":[],\"Entrypoint\":[\"/e\"],\"Env\":[\"A=1\"],"
		     "\"StopSignal\":\"SIGINT\",\"User\":\"1:2\",\"WorkingDir\":\"/w\"}},"
		     "\"stop_signal\":\"SIGINT\",\"user\":\"1:2\","
		     "\"workdir\":\"/w\"}");
}
END_TEST

START_TEST(configuration_that_is_none)
{
	check_refused("{\"config\": {\"Cmd\": \"date\"}}",
		      "the image's configuration: Cmd is not a list of strings");
	check_refused("{\"config\": {\"Env\": [\"A=1\", 2]}}",
		      "the image's configuration: Env is not a list of strings");
	check_refused("{\"config\": {\"User\": 0}}",
		      "the image's configuration: User is not a string");
	check_refused("{", "the image's configuration: string or '}' expected near end of file");
}
END_TEST

START_TEST(names)
{
	char longest[IMAGE_OWN_NAME_MAX + 2], whole[IMAGE_NAME_MAX + 1];
	struct err err;

	memset(longest, 'a', sizeof(longest));
	longest[IMAGE_OWN_NAME_MAX] = '\0';
	ck_assert_int_eq(image_name_check(longest, whole, &err), 0);
	longest[IMAGE_OWN_NAME_MAX] = 'a';
	longest[IMAGE_OWN_NAME_MAX + 1] = '\0';
	ck_assert_int_eq(image_name_check(longest, whole, &err), -EINVAL);
	ck_assert_int_eq(image_name_check("3.11-slim_x", whole, &err), 0);
	ck_assert_int_eq(image_name_check(".", whole, &err), -EINVAL);
	ck_assert_int_eq(image_name_check("-t", whole, &err), -EINVAL);
	ck_assert_int_eq(image_name_check("a/B", whole, &err), -EINVAL);
	ck_assert_int_eq(image_name_check("a/b", whole, &err), 0);
	ck_assert_str_eq(whole, "docker.io/a/b:latest");
}
END_TEST

#define DIGEST "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

START_TEST(references)
{
	static const struct {
		const char *text, *whole; /* NULL: none */
	} rows[] = {
		{ "alpine", "docker.io/library/alpine:latest" },
		{ "alpine:3.20", "docker.io/library/alpine:3.20" },
		{ "docker.io/alpine", "docker.io/library/alpine:latest" },
		{ "team/app", "docker.io/team/app:latest" },
		{ "localhost/app", "localhost/app:latest" },
		{ "host:5000/a/b__c-d.e:T_1", "host:5000/a/b__c-d.e:T_1" },
		{ "[::1]:5000/app", "[::1]:5000/app:latest" },
		{ "quay.io/app@" DIGEST, "quay.io/app@" DIGEST },
		{ "quay.io/app:1@" DIGEST, "quay.io/app@" DIGEST },
		{ "", NULL },
		{ "/app", NULL },
		{ "App", NULL },
		{ "app:", NULL },
		{ "app:.x", NULL },
		{ "app@", NULL },
		{ "app@sha256:12", NULL },
		{ "app@" DIGEST "0", NULL },
		{ "a//b", NULL },
		{ "a/", NULL },
		{ "a/-b", NULL },
		{ "a-/b", NULL },
		{ "../b", NULL },
		{ "a.b/../c", NULL },
		{ ":5000/app", NULL },
		{ "host:/app", NULL },
		{ "host:123456/app", NULL },
		{ "a.b/c%d", NULL },
		{ "a.b/c d", NULL },
	};
	char whole[IMAGE_REFERENCE_MAX + 1], longest[IMAGE_REFERENCE_MAX + 2];
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		int rc = image_reference_parse(rows[i].text, whole, &err);

		ck_assert_msg(rc == (rows[i].whole ? 0 : -EINVAL), "%s", rows[i].text);
		if (rows[i].whole)
			ck_assert_str_eq(whole, rows[i].whole);
	}
	memset(longest, 'a', sizeof(longest));
	longest[IMAGE_REFERENCE_MAX - strlen("docker.io/library/:latest")] = '\0';
	ck_assert_int_eq(image_reference_parse(longest, whole, &err), 0);
	strcat(longest, "a");
	ck_assert_int_eq(image_reference_parse(longest, whole, &err), -EINVAL);
}
END_TEST

static int open_config(struct image_config *config, const char *text, struct err *err)
{
	write_text("x.json", text);
	return image_config_open(config, "x.erofs", err);
}

START_TEST(what_the_store_keeps_is_what_is_run)
{
	static char *const given[] = { "given", NULL }, *const none[] = { NULL };
	struct image_config config;
	struct err err;
	json_t *command;

	ck_assert_int_eq(open_config(&config,
				     "{\"entrypoint\": [\"a\"], \"cmd\": [\"b\", \"c\"],"
				     " \"env\": null, \"workdir\": \"\", \"user\": \"nobody\","
				     " \"stop_signal\": \"SIGQUIT\", \"oci\": {\"os\": 1}}",
				     &err),
			 0);
	ck_assert_ptr_null(config.env);
	ck_assert_ptr_null(config.workdir);
	ck_assert_str_eq(config.user, "nobody");
	ck_assert_int_eq(config.stop_signal, SIGQUIT);
	command = image_config_command(&config, NULL, none);
	ck_assert_uint_eq(json_array_size(command), 3);
	ck_assert_str_eq(json_string_value(json_array_get(command, 2)), "c");
	json_decref(command);
	command = image_config_command(&config, NULL, given);
	ck_assert_uint_eq(json_array_size(command), 2);
	ck_assert_str_eq(json_string_value(json_array_get(command, 1)), "given");
	json_decref(command);
	image_config_close(&config);
	ck_assert_ptr_null(config.cmd);
}
END_TEST

START_TEST(what_the_store_keeps_must_make_sense)
{
	static const struct {
		const char *text;
		const char *says;
	} bad[] = {
		{ "{\"cmd\": \"true\"}", "cmd: a list is expected" },
		{ "{\"env\": [\"A=1\", 1]}", "env[1]: a string is expected" },
		{ "{\"workdir\": 1}", "workdir: a string is expected" },
		{ "{\"stop_signal\": \"SIGX\"}", "stop_signal: there is no signal SIGX" },
		{ "{\"stop_signal\": 3}", "stop_signal: a string is expected" },
		{ "[]", "an object is expected" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct image_config config;
		struct err err = { "" };

		ck_assert_int_eq(open_config(&config, bad[i].text, &err), -EINVAL);
		assert_contains(err.text, "image x.erofs: its configuration: ");
		assert_contains(err.text, bad[i].says);
		image_config_close(&config);
	}
}
END_TEST

Suite *image_suite(void)
{
	Suite *suite = suite_create("image");
	TCase *tests = tcase_create("image");

	tcase_add_test(tests, configuration_of_an_image);
	tcase_add_test(tests, configuration_that_is_none);
	tcase_add_test(tests, what_the_store_keeps_is_what_is_run);
	tcase_add_test(tests, what_the_store_keeps_must_make_sense);
	tcase_add_test(tests, names);
	tcase_add_test(tests, references);
	suite_add_tcase(suite, tests);
	return suite;
}

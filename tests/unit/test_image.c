/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "cli/image_build.h"
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
	check_config("{}", "{}");
	check_config("{\"config\": {}}", "{}");
	check_config("{\"config\": null}", "{}");
	check_config("{\"config\": {\"Entrypoint\": null, \"User\": \"\", \"WorkingDir\": \"\", "
		     "\"Labels\": {\"a\": \"b\"}}}",
		     "{}");
	check_config("{\"config\": {\"Entrypoint\": [\"/e\"], \"Cmd\": [], \"Env\": [\"A=1\"], "
		     "\"WorkingDir\": \"/w\", \"User\": \"1:2\"}}",
		     "{\"cmd\":[],\"entrypoint\":[\"/e\"],\"env\":[\"A=1\"],\"user\":\"1:2\","
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

Suite *image_suite(void)
{
	Suite *suite = suite_create("image");
	TCase *tests = tcase_create("image");

	tcase_add_test(tests, configuration_of_an_image);
	tcase_add_test(tests, configuration_that_is_none);
	tcase_add_test(tests, names);
	suite_add_tcase(suite, tests);
	return suite;
}

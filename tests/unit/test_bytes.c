/* SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>

#include "base/array.h"
#include "guest/bytes.h"
#include "host/bytes.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

static const char *const texts[] = {
	"",	    "plain",   "caf\xc3\xa9",	     "\xff",
	"\xff\xfe", "caf\xe9", "\x80\x01\x7f\xf0 x", "\xed\xa0\x80",
};

START_TEST(what_goes_in_comes_out)
{
	json_t *encoded = bytes_encode(texts[_i]);
	char *text = json_dumps(encoded, JSON_ENCODE_ANY);
	json_t *loaded = json_loads(text, JSON_DECODE_ANY, NULL);
	json_t *decoded = bytes_decode(loaded);

	ck_assert_str_eq(json_string_value(decoded), texts[_i]);
	free(text);
	json_decref(encoded);
	json_decref(loaded);
	json_decref(decoded);
}
END_TEST

START_TEST(utf8_stays_text)
{
	json_t *encoded = bytes_encode("caf\xc3\xa9");

	ck_assert(json_is_string(encoded));
	json_decref(encoded);
	encoded = bytes_encode("caf\xe9");
	ck_assert_str_eq(json_string_value(json_object_get(encoded, "base64")), "Y2Fm6Q==");
	json_decref(encoded);
}
END_TEST

static const char *const wrong[] = {
	"1",
	"[]",
	"{}",
	"{\"base64\": 1}",
	"{\"base64\": \"YQ\"}",
	"{\"base64\": \"Y===\"}",
	"{\"base64\": \"YQ=a\"}",
	"{\"base64\": \"Y*==\"}",
	"{\"base64\": \"====\"}",
	"{\"base64\": \"YWEA\"}", /* it has a 0 */
	"{\"base64\": \"YQ==\", \"more\": 1}",
	"{\"hex\": \"61\"}",
};

START_TEST(what_is_no_string)
{
	json_t *value = json_loads(wrong[_i], JSON_DECODE_ANY, NULL);
	json_t *list = json_pack("[s, O]", "first", value);

	ck_assert_ptr_nonnull(value);
	ck_assert_ptr_null(bytes_decode(value));
	ck_assert_int_eq(bytes_decode_list(list), -1);
	ck_assert_int_eq(bytes_decode_list(value), json_is_array(value) ? 0 : -1);
	json_decref(list);
	json_decref(value);
}
END_TEST

START_TEST(lists_for_people)
{
	json_t *list = json_array(), *shown;

	json_array_append_new(list, json_string_nocheck("caf\xe9"));
	json_array_append_new(list, json_string("caf\xc3\xa9"));
	shown = bytes_readable_list(list);
	ck_assert_str_eq(json_string_value(json_array_get(shown, 0)), "caf?");
	ck_assert_str_eq(json_string_value(json_array_get(shown, 1)), "caf\xc3\xa9");
	json_decref(shown);
	json_decref(list);
}
END_TEST

Suite *bytes_suite(void)
{
	Suite *suite = SUITE("bytes", NULL, NULL, utf8_stays_text, lists_for_people);

	add_table_test(suite, NULL, NULL, what_goes_in_comes_out, ARRAY_SIZE(texts));
	add_table_test(suite, NULL, NULL, what_is_no_string, ARRAY_SIZE(wrong));
	return suite;
}

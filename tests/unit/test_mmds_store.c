/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "mmds/store.h"

#include <errno.h>
#include <stdlib.h>

#include "base/err.h"
#include "mmds/mmds.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define LIMIT 200

static struct store store;
static struct err err;

static void set_up(void)
{
	store_init(&store, LIMIT);
}

static void tear_down(void)
{
	store_close(&store);
}

static int change(int (*how)(struct store *, const json_t *, struct err *), const char *text)
{
	json_t *data = json_loads(text, JSON_DECODE_ANY, NULL);
	int rc;

	ck_assert_msg(data != NULL, "%s", text);
	rc = how(&store, data, &err);
	json_decref(data);
	return rc;
}

static void put(const char *text)
{
	ck_assert_int_eq(change(store_put, text), 0);
}

static void assert_reads(const char *path, enum store_format format, const char *expected)
{
	char *text;
	size_t size;

	ck_assert_int_eq(store_read(&store, path, format, &text, &size), STORE_FOUND);
	ck_assert_str_eq(text, expected);
	ck_assert_uint_eq(size, strlen(expected));
	free(text);
}

static enum store_result result_of(const char *path, enum store_format format)
{
	char *text = NULL;
	size_t size;
	enum store_result result = store_read(&store, path, format, &text, &size);

	free(text);
	return result;
}

static const struct {
	const char *path;
	const char *json; /* NULL: there is no such thing */
	const char *imds; /* NULL: it has no such format */
} reads[] = {
	{ "",
	  "{\"a\":{\"b/c\":\"slash\",\"d~\":[\"x\",{\"y\":1}],\"e\":\"\"},\"n\":12.12,"
	  "\"s\":\"text\",\"z\":null}",
	  "a/\nn\ns\nz" },
	{ "/s", "\"text\"", "text" },
	{ "/s/", "\"text\"", "text" },
	{ "//s//", "\"text\"", "text" },
	{ "/a/e", "\"\"", "" },
	{ "/a/", "{\"b/c\":\"slash\",\"d~\":[\"x\",{\"y\":1}],\"e\":\"\"}", "b/c\nd~\ne" },
	{ "/a/b~1c", "\"slash\"", "slash" },
	{ "/a/d~0", "[\"x\",{\"y\":1}]", NULL },
	{ "/a/d~0/0", "\"x\"", "x" },
	{ "/a/d~0/1/y", "1", NULL },
	{ "/n", "12.12", NULL },
	{ "/z", "null", NULL },
	{ "s", NULL, NULL },
	{ "/S", NULL, NULL },
	{ "/s/x", NULL, NULL },
	{ "/a/b/c", NULL, NULL },
	{ "/a/d~", NULL, NULL },
	{ "/a/d~2", NULL, NULL },
	{ "/a/d~0/2", NULL, NULL },
	{ "/a/d~0/00", NULL, NULL },
	{ "/a/d~0/-1", NULL, NULL },
	{ "/a/d~0/4294967296", NULL, NULL },
	{ "/a/d~0/", "[\"x\",{\"y\":1}]", NULL },
};

START_TEST(paths_lead_to_values)
{
	const char *path = reads[_i].path;

	put("{\"z\": null, \"s\": \"text\", \"n\": 12.12, \"a\": {\"e\": \"\", \"b/c\": \"slash\", "
	    "\"d~\": [\"x\", {\"y\": 1}]}}");
	if (!reads[_i].json) {
		ck_assert_int_eq(result_of(path, STORE_JSON), STORE_ABSENT);
		ck_assert_int_eq(result_of(path, STORE_IMDS), STORE_ABSENT);
		return;
	}
	assert_reads(path, STORE_JSON, reads[_i].json);
	if (reads[_i].imds)
		assert_reads(path, STORE_IMDS, reads[_i].imds);
	else
		ck_assert_int_eq(result_of(path, STORE_IMDS), STORE_NOT_SHOWN);
}
END_TEST

START_TEST(before_the_first_put_it_is_null)
{
	assert_reads("/", STORE_JSON, "null");
	ck_assert_int_eq(result_of("/", STORE_IMDS), STORE_NOT_SHOWN);
	ck_assert_int_eq(result_of("/a", STORE_JSON), STORE_ABSENT);
}
END_TEST

/* RFC 7396, appendix A; those whose target is an object. */
static const struct {
	const char *target, *patch, *result;
} patches[] = {
	{ "{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}" },
	{ "{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}" },
	{ "{\"a\":\"b\"}", "{\"a\":null}", "{}" },
	{ "{\"a\":\"b\",\"b\":\"c\"}", "{\"a\":null}", "{\"b\":\"c\"}" },
	{ "{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}" },
	{ "{\"a\":\"c\"}", "{\"a\":[\"b\"]}", "{\"a\":[\"b\"]}" },
	{ "{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}", "{\"a\":{\"b\":\"d\"}}" },
	{ "{\"a\":[{\"b\":\"c\"}]}", "{\"a\":[1]}", "{\"a\":[1]}" },
	{ "{\"a\":\"foo\"}", "null", "null" },
	{ "{\"a\":\"foo\"}", "\"bar\"", "\"bar\"" },
	{ "{\"e\":null}", "{\"a\":1}", "{\"a\":1,\"e\":null}" },
	{ "[1,2]", "{\"a\":\"b\",\"c\":null}", "{\"a\":\"b\"}" },
	{ "{}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}" },
};

START_TEST(patches_merge)
{
	put(patches[_i].target);
	ck_assert_int_eq(change(store_patch, patches[_i].patch), 0);
	assert_reads("", STORE_JSON, patches[_i].result);
}
END_TEST

START_TEST(nothing_is_there_to_be_patched)
{
	ck_assert_int_eq(change(store_patch, "{}"), -ENODATA);
	assert_contains(err.text, "none yet");
	assert_reads("", STORE_JSON, "null");
}
END_TEST

/* A document of so many bytes: {"k":"aaa..."}. */
static void document(char *text, size_t size)
{
	memset(text, 'a', size);
	memcpy(text, "{\"k\":\"", 6);
	memcpy(text + size - 2, "\"}", 3);
}

START_TEST(size_is_limited)
{
	char most[LIMIT + 1], more[LIMIT + 2];

	document(most, LIMIT);
	document(more, LIMIT + 1);
	put(most);
	ck_assert_int_eq(change(store_put, more), -EMSGSIZE);
	assert_contains(err.text, "201 bytes");
	assert_contains(err.text, "at most 200");
	ck_assert_int_eq(change(store_patch, "{\"l\":1}"), -EMSGSIZE);
	assert_reads("", STORE_JSON, most);
	ck_assert_int_eq(change(store_patch, "{\"k\":null,\"l\":1}"), 0);
	assert_reads("", STORE_JSON, "{\"l\":1}");
}
END_TEST

START_TEST(reals_keep_their_value)
{
	put("{\"a\": 0.1, \"b\": [1.0, 1e300], \"c\": 0.30000000000000004}");
	assert_reads("/c", STORE_JSON, "0.30000000000000004");
	put("{\"a\": 0.1, \"b\": [1.0, 1e300]}");
	assert_reads("", STORE_JSON, "{\"a\":0.1,\"b\":[1.0,1e300]}");
}
END_TEST

START_TEST(addresses_are_those_of_hosts)
{
	static const char *const good[] = { "169.254.169.254", "169.254.1.0", "169.254.254.255" };
	static const char *const bad[] = { "169.254.0.1",  "169.254.255.1",
					   "169.253.1.1",  "1.1.1.1",
					   "169.254.1",	   "169.254.1.256",
					   "169.254.1.1 ", "",
					   "fe80::1" };
	uint32_t address;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		ck_assert(mmds_address_parse(good[i], &address));
	ck_assert_int_eq(address & 0xff, 169);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(!mmds_address_parse(bad[i], &address), "%s", bad[i]);
}
END_TEST

Suite *mmds_store_suite(void)
{
	Suite *suite = SUITE("mmds_store", set_up, tear_down, before_the_first_put_it_is_null,
			     nothing_is_there_to_be_patched, size_is_limited,
			     reals_keep_their_value, addresses_are_those_of_hosts);

	add_table_test(suite, set_up, tear_down, paths_lead_to_values, ARRAY_SIZE(reads));
	add_table_test(suite, set_up, tear_down, patches_merge, ARRAY_SIZE(patches));
	return suite;
}

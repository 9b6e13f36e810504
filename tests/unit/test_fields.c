/* SPDX-License-Identifier: Apache-2.0 */
#include "json/fields.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/err.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "json/parse.h"

/* One of everything. */
enum { COLOUR_RED, COLOUR_GREEN };
struct point {
	int64_t x;
	uint32_t y;
};
struct shape {
	char *name;
	struct point at;
	struct point *corners;
	size_t corner_count;
};
struct picture {
	struct shape *shapes;
	size_t shape_count;
	char **tags;
	struct point *path;
	size_t path_count;
	struct point tips[2]; /* of colours */
	struct point size;
	bool has_size;
	char letter;
	int colour;
	bool framed;
};

static const char *const colours[] = { "red", "green", NULL };

static const struct field point_fields[] = {
	{ "x", FIELD_INTEGER, .required = true, FIELD_AT(point, x), .min = -5, .max = 5 },
	{ "y", FIELD_INTEGER, FIELD_AT(point, y), .max = UINT32_MAX },
	{ NULL },
};
static const struct field point = { .type = FIELD_OBJECT,
				    .size = sizeof(struct point),
				    .fields = point_fields };
static const struct field shape_fields[] = {
	{ "name", FIELD_STRING, .required = true, .min = 1, FIELD_AT(shape, name) },
	{ "at", FIELD_OBJECT, FIELD_AT(shape, at), .fields = point_fields },
	{ "corners", FIELD_LIST, FIELD_COUNTED(shape, corners, corner_count), .each = &point,
	  .max = 3 },
	{ NULL },
};
static const struct field shape = { .type = FIELD_OBJECT,
				    .size = sizeof(struct shape),
				    .fields = shape_fields };
static const struct field tag = { .type = FIELD_STRING, .size = sizeof(char *), .min = 1 };
static const struct field tip_fields[] = {
	{ "colour", FIELD_KEY, .required = true, .choices = colours },
	{ "x", FIELD_INTEGER, .required = true, FIELD_AT(point, x), .max = 5 },
	{ NULL },
};
static const struct field tip = { .type = FIELD_OBJECT,
				  .size = sizeof(struct point),
				  .fields = tip_fields };

static int parse_letter(const struct field *field, const char *text, void *to, struct err *err)
{
	if (!text || strlen(text) != 1 || text[0] > (char)field->max)
		return err_set(err, EINVAL, "a letter is expected");
	*(char *)to = text[0];
	return 0;
}

static void print_letter(const struct field *field, const void *from, char text[FIELD_WORD_SIZE])
{
	(void)field;
	snprintf(text, FIELD_WORD_SIZE, "%c", *(const char *)from);
}

static const struct field fields[] = {
	{ "letter", FIELD_WORD, .required = true, FIELD_AT(picture, letter), .max = 'm',
	  .parse = parse_letter, .print = print_letter },
	{ "shapes", FIELD_LIST, FIELD_COUNTED(picture, shapes, shape_count), .each = &shape },
	{ "tags", FIELD_LIST, FIELD_AT(picture, tags), .each = &tag },
	{ "path", FIELD_LIST, FIELD_COUNTED(picture, path, path_count), .each = &point },
	{ "tips", FIELD_SLOTS, FIELD_AT(picture, tips), .each = &tip },
	{ "size", FIELD_OBJECT, FIELD_AT(picture, size), .fields = point_fields,
	  .given = offsetof(struct picture, has_size), .null_if_absent = true },
	{ "colour", FIELD_CHOICE, FIELD_AT(picture, colour), .choices = colours,
	  .first_left_out = true },
	{ "framed", FIELD_BOOL, FIELD_AT(picture, framed) },
	{ "layers", FIELD_EMPTY, .why = "one is enough" },
	{ "sound", FIELD_ABSENT },
	{ NULL },
};

static struct picture picture;
static struct err err;

static void set_up(void)
{
	memset(&picture, 0, sizeof(picture));
	err.text[0] = '\0';
}

static void tear_down(void)
{
	fields_free(fields, &picture);
}

static int read_picture(const char *text)
{
	json_t *object = parse_object(text, strlen(text), "picture", &err);
	int rc = object ? fields_read(object, fields, &picture, &err) : -EINVAL;

	json_decref(object);
	return rc;
}

static void assert_written(const char *expected)
{
	json_t *object = fields_write(fields, &picture);
	char *text = json_dumps(object, JSON_COMPACT);

	ck_assert_str_eq(text, expected);
	free(text);
	json_decref(object);
}

static const char whole[] =
	"{\"letter\":\"b\",\"shapes\":[{\"name\":\"one\",\"at\":{\"x\":-1,\"y\":4294967295},"
	"\"corners\":[{\"x\":0,\"y\":1},{\"x\":2,\"y\":3}]},{\"name\":\"two\",\"corners\":[]}],"
	"\"tags\":[\"a\",\"bc\"],\"path\":[{\"x\":0,\"y\":0}],"
	"\"tips\":[{\"colour\":\"green\",\"x\":4}],\"size\":{\"x\":5,\"y\":0},"
	"\"colour\":\"green\",\"framed\":true}";

START_TEST(everything_is_read_into_its_place)
{
	ck_assert_msg(read_picture(whole) == 0, "%s", err.text);
	ck_assert_int_eq(picture.letter, 'b');
	ck_assert_uint_eq(picture.shape_count, 2);
	ck_assert_str_eq(picture.shapes[0].name, "one");
	ck_assert_int_eq(picture.shapes[0].at.x, -1);
	ck_assert_uint_eq(picture.shapes[0].at.y, UINT32_MAX);
	ck_assert_uint_eq(picture.shapes[0].corner_count, 2);
	ck_assert_int_eq(picture.shapes[0].corners[1].x, 2);
	ck_assert_str_eq(picture.shapes[1].name, "two");
	ck_assert_uint_eq(picture.shapes[1].corner_count, 0);
	ck_assert_ptr_nonnull(picture.shapes[1].corners);
	ck_assert_str_eq(picture.tags[1], "bc");
	ck_assert_ptr_null(picture.tags[2]);
	ck_assert_uint_eq(picture.path_count, 1);
	ck_assert_int_eq(picture.tips[COLOUR_RED].x, 0);
	ck_assert_int_eq(picture.tips[COLOUR_GREEN].x, 4);
	ck_assert(picture.has_size);
	ck_assert_int_eq(picture.size.x, 5);
	ck_assert_int_eq(picture.colour, COLOUR_GREEN);
	ck_assert(picture.framed);
}
END_TEST

START_TEST(everything_is_written_as_it_was_read)
{
	ck_assert_msg(read_picture(whole) == 0, "%s", err.text);
	assert_written(whole);
}
END_TEST

START_TEST(what_is_not_given_is_left_out_or_null_or_an_empty_list)
{
	ck_assert_msg(read_picture("{\"letter\": \"c\", \"shapes\": null, \"layers\": [], "
				   "\"sound\": null}") == 0,
		      "%s", err.text);
	ck_assert(!picture.has_size);
	assert_written("{\"letter\":\"c\",\"shapes\":[],\"tags\":[],\"path\":[],\"tips\":[],"
		       "\"size\":null,\"framed\":false}");
}
END_TEST

#define WITH(more) "{\"letter\": \"b\", " more "}"

static const struct {
	const char *text;
	const char *sentence;
} bad[] = {
	{ "{}", "letter: the field is missing" },
	{ WITH("\"\": 1"), ": unknown field" },
	{ WITH("\"shape\": 1"), "shape: unknown field" },
	{ "{\"letter\": null}", "letter: a letter is expected" },
	{ "{\"letter\": 1}", "letter: a letter is expected" },
	{ "{\"letter\": \"n\"}", "letter: a letter is expected" },
	{ WITH("\"size\": 1"), "size: an object is expected" },
	{ WITH("\"size\": {}"), "size.x: the field is missing" },
	{ WITH("\"size\": {\"x\": 6}"), "size.x: 6 is not between -5 and 5" },
	{ WITH("\"size\": {\"x\": 1, \"y\": 4294967296}"),
	  "size.y: 4294967296 is not between 0 and 4294967295" },
	{ WITH("\"size\": {\"x\": \"1\"}"), "size.x: an integer is expected" },
	{ WITH("\"size\": {\"x\": 1, \"z\": 1}"), "size.z: unknown field" },
	{ WITH("\"tags\": {}"), "tags: a list is expected" },
	{ WITH("\"tags\": [\"a\", 1]"), "tags[1]: a string is expected" },
	{ WITH("\"tags\": [\"a\", null]"), "tags[1]: a string is expected" },
	{ WITH("\"tags\": [\"\"]"), "tags[0]: a string that is not empty is expected" },
	{ WITH("\"shapes\": [7]"), "shapes[0]: an object is expected" },
	{ WITH("\"shapes\": [{\"name\": \"a\"}, {}]"), "shapes[1].name: the field is missing" },
	{ WITH("\"shapes\": [{\"name\": \"a\", \"corners\": [{\"x\": 1}, {\"x\": 9}]}]"),
	  "shapes[0].corners[1].x: 9 is not between -5 and 5" },
	{ WITH("\"shapes\": [{\"name\": \"a\", \"corners\": [{}, {}, {}, {}]}]"),
	  "shapes[0].corners: 4 entries, at most 3 are possible" },
	{ WITH("\"tips\": {}"), "tips: a list is expected" },
	{ WITH("\"tips\": [1]"), "tips[0]: an object is expected" },
	{ WITH("\"tips\": [{\"x\": 1}]"), "tips[0].colour: the field is missing" },
	{ WITH("\"tips\": [{\"colour\": \"red\"}]"), "tips[0].x: the field is missing" },
	{ WITH("\"tips\": [{\"colour\": \"red\", \"x\": 1}, {\"colour\": \"blue\", \"x\": 1}]"),
	  "tips[1].colour: one of red, green is expected" },
	{ WITH("\"tips\": [{\"colour\": null, \"x\": 1}]"),
	  "tips[0].colour: one of red, green is expected" },
	{ WITH("\"colour\": \"blue\""), "colour: one of red, green is expected" },
	{ WITH("\"framed\": 1"), "framed: true or false is expected" },
	{ WITH("\"layers\": [1]"), "layers: one is enough" },
	{ WITH("\"layers\": {}"), "layers: one is enough" },
	{ WITH("\"sound\": true"), "sound: not supported yet" },
};

START_TEST(what_was_read_before_is_replaced)
{
	ck_assert_int_eq(read_picture(whole), 0);
	ck_assert_int_eq(read_picture("{\"letter\": \"b\", \"tags\": [\"x\"], \"shapes\": []}"), 0);
	ck_assert_str_eq(picture.tags[0], "x");
	ck_assert_ptr_null(picture.tags[1]);
	ck_assert_uint_eq(picture.shape_count, 0);
	ck_assert_uint_eq(picture.path_count, 1);
}
END_TEST

START_TEST(what_is_owned_is_freed_and_forgotten)
{
	ck_assert_int_eq(read_picture(whole), 0);
	fields_free(fields, &picture);
	ck_assert_ptr_null(picture.shapes);
	ck_assert_uint_eq(picture.shape_count, 0);
	ck_assert_ptr_null(picture.tags);
	ck_assert_ptr_null(picture.path);
	ck_assert_int_eq(picture.size.x, 5);
}
END_TEST

START_TEST(fault_is_named_with_its_place)
{
	ck_assert_msg(read_picture(bad[_i].text) < 0, "taken: %s", bad[_i].text);
	ck_assert_str_eq(err.text, bad[_i].sentence);
}
END_TEST

START_TEST(what_is_no_object_is_said_without_a_name)
{
	json_t *list = json_array();

	ck_assert_int_eq(fields_read(list, fields, &picture, &err), -EINVAL);
	ck_assert_str_eq(err.text, "an object is expected");
	json_decref(list);
}
END_TEST

START_TEST(nothing_is_required_of_a_change)
{
	json_t *change = json_pack("{s:b}", "framed", 1);

	picture.letter = 'k';
	ck_assert_int_eq(fields_read(change, fields, &picture, &err), -EINVAL);
	ck_assert_int_eq(fields_read_some(change, fields, &picture, &err), 0);
	ck_assert(picture.framed);
	ck_assert_int_eq(picture.letter, 'k');
	json_decref(change);
}
END_TEST

START_TEST(null_and_what_is_required_is_no_change)
{
	json_t *none = json_pack("{s:s, s:n}", "letter", "a", "framed");
	json_t *one = json_pack("{s:s, s:b}", "letter", "a", "framed", 0);

	ck_assert(!fields_given(none, fields, true));
	ck_assert(fields_given(none, fields, false));
	ck_assert(fields_given(one, fields, true));
	json_decref(none);
	json_decref(one);
}
END_TEST

Suite *fields_suite(void)
{
	Suite *suite =
		SUITE("fields", set_up, tear_down, everything_is_read_into_its_place,
		      everything_is_written_as_it_was_read,
		      what_is_not_given_is_left_out_or_null_or_an_empty_list,
		      what_was_read_before_is_replaced, what_is_owned_is_freed_and_forgotten,
		      what_is_no_object_is_said_without_a_name, nothing_is_required_of_a_change,
		      null_and_what_is_required_is_no_change);

	add_table_test(suite, set_up, tear_down, fault_is_named_with_its_place, ARRAY_SIZE(bad));
	return suite;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "base/printable.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

static const struct {
	const char *text;
	const char *line;
	const char *stream;
} texts[] = {
	{ "plain", "plain", "plain" },
	{ "a\r\n\tb\n", "a???b?", "a\n\tb\n" },
	{ "\033[31m\b\a\177", "?[31m???", "?[31m???" },
	{ "\302\233"
	  "31m",
	  "??31m", "??31m" }, /* U+009B */
	{ "\302\200\302\237\302\240", "????\302\240", "????\302\240" },
	{ "\23331m\200", "?31m?", "?31m?" }, /* bytes that are no UTF-8 */
	{ "\303\233 \342\202\254 \360\237\230\200", "\303\233 \342\202\254 \360\237\230\200",
	  "\303\233 \342\202\254 \360\237\230\200" },
	{ "\300\233 \340\202\233 \360\200\202\233", "?? ??? ????", "?? ??? ????" }, /* overlong */
	{ "\355\240\200 \364\220\200\200 \377", "??? ???? ?", "??? ???? ?" },
	{ "\342\202x\302", "??x?", "??x" }, /* the last may be going on */
	{ "\342\033[2J", "??[2J", "??[2J" },
};

START_TEST(line_does_not_command_a_terminal)
{
	char *line = strdup(texts[_i].text);

	printable_line(line, strlen(line));
	ck_assert_str_eq(line, texts[_i].line);
	free(line);
}
END_TEST

/* However it is cut. */
START_TEST(stream_does_not_command_a_terminal)
{
	const size_t size = strlen(texts[_i].text);

	for (size_t piece = 1; piece <= size; piece++) {
		struct printable printable = { .have = 0 };
		char out[64] = "";
		size_t used = 0;

		for (size_t at = 0; at < size; at += piece)
			used += printable_stream(&printable, texts[_i].text + at,
						 piece < size - at ? piece : size - at, out + used);
		out[used] = '\0';
		ck_assert_str_eq(out, texts[_i].stream);
	}
}
END_TEST

START_TEST(json_has_its_controls_as_escapes)
{
	static const char text[] = "\"\303\233 \302\233 \177 \302\200\302\240\"";
	json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
	char *dumped = cli_json_text(json, JSON_ENCODE_ANY);
	json_t *again = json_loads(dumped, JSON_DECODE_ANY, NULL);

	ck_assert_str_eq(dumped, "\"\303\233 \\u009b \\u007f \\u0080\302\240\"");
	ck_assert(json_equal(json, again));
	json_decref(json);
	json_decref(again);
	free(dumped);
}
END_TEST

Suite *printable_suite(void)
{
	Suite *suite = SUITE("printable", NULL, NULL, json_has_its_controls_as_escapes);

	add_table_test(suite, NULL, NULL, line_does_not_command_a_terminal, ARRAY_SIZE(texts));
	add_table_test(suite, NULL, NULL, stream_does_not_command_a_terminal, ARRAY_SIZE(texts));
	return suite;
}

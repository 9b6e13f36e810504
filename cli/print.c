/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/printable.h"
#include "cli/cli.h"

int cli_fail(int status, const struct err *err)
{
	char text[sizeof(err->text)];

	memcpy(text, err->text, sizeof(text));
	cli_clean(text);
	fprintf(stderr, "mote: %s\n", text);
	return status;
}

bool cli_is_help(const char *word)
{
	return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

void cli_print_json(const json_t *json)
{
	char *text = cli_json_text(json, JSON_INDENT(2));

	puts(text ? text : "null");
	free(text);
}

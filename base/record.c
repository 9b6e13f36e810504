/* SPDX-License-Identifier: Apache-2.0 */
#include "base/record.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/printable.h"
#include "base/text.h"

static int record_fd = -1;

void record_to(int fd)
{
	const int flags = fcntl(fd, F_GETFL);

	record_fd = flags < 0 ? -1 : fd;
	if (flags >= 0)
		(void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

void record_write(const char *line, size_t len)
{
	const int saved = errno;
	ssize_t n = record_fd < 0 || len > RECORD_MAX ? 0 : write(record_fd, line, len);

	(void)n; /* nobody reads it, or not fast enough */
	errno = saved;
}

static void add_quoted(struct text *text, const char *string)
{
	char one[] = "\\?";

	text_add(text, "\"");
	for (; *string; string++) {
		one[1] = *string;
		text_add(text, *string == '"' || *string == '\\' ? one : one + 1);
	}
	text_add(text, "\"");
}

void record_error(const char *sentence)
{
	char printable[ERR_TEXT_SIZE], line[RECORD_MAX];
	struct text text = text_in(line, sizeof(line));
	const size_t len = strnlen(sentence, sizeof(printable) - 1);

	_Static_assert(RECORD_MAX > 2 * ERR_TEXT_SIZE + 64, "any sentence fits");
	memcpy(printable, sentence, len);
	printable[len] = '\0';
	printable_line(printable, len);
	text_add(&text, "{\"event\":\"error\",\"error\":");
	add_quoted(&text, printable);
	text_add(&text, "}\n");
	record_write(line, text.used);
}

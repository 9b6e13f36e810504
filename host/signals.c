/* SPDX-License-Identifier: Apache-2.0 */
#include "host/signals.h"

#include <ctype.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#include "base/array.h"
#include "host/values.h"

bool signal_is_passed_on(int number)
{
	static const int kept[] = { SIGKILL, SIGSTOP, SIGCHLD, SIGPIPE, SIGTTIN,
				    SIGTTOU, SIGSEGV, SIGBUS,  SIGFPE,	SIGILL,
				    SIGTRAP, SIGSYS,  SIGABRT, SIGXCPU, SIGXFSZ };

	for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
		if (number == kept[i])
			return false;
	}
	return number > 0 && number <= SIGRTMAX;
}

static int real_time(const char *text)
{
	const int up = strncasecmp(text, "RTMIN", 5) == 0;
	int offset = 0;

	if (!up && strncasecmp(text, "RTMAX", 5) != 0)
		return -1;
	if (text[5] && (text[5] != (up ? '+' : '-') || value_number(text + 6, &offset) < 0 ||
			offset > SIGRTMAX - SIGRTMIN))
		return -1;
	return up ? SIGRTMIN + offset : SIGRTMAX - offset;
}

int signal_number(const char *text)
{
	int number;

	if (isdigit((unsigned char)text[0]))
		return value_number(text, &number) == 0 && number <= SIGRTMAX ? number : -1;
	if (strncasecmp(text, "SIG", 3) == 0)
		text += 3;
	for (number = 1; number < SIGSYS + 1; number++) {
		const char *name = sigabbrev_np(number);

		if (name && strcasecmp(text, name) == 0)
			return number;
	}
	return real_time(text);
}

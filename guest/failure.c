/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/failure.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agent-protocol/protocol.h"

int failure_set(struct failure *failure, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(failure->text, sizeof(failure->text), fmt, args);
	va_end(args);
	failure->status = PROTOCOL_STATUS_AGENT;
	return -1;
}

int failure_sys(struct failure *failure, int errnum, const char *fmt, ...)
{
	va_list args;
	size_t used;

	va_start(args, fmt);
	vsnprintf(failure->text, sizeof(failure->text), fmt, args);
	va_end(args);
	used = strlen(failure->text);
	snprintf(failure->text + used, sizeof(failure->text) - used, ": %s",
		 strerrordesc_np(errnum) ? strerrordesc_np(errnum) : "unknown error");
	failure->status = PROTOCOL_STATUS_AGENT;
	return -1;
}

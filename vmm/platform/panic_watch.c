/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/platform/panic_watch.h"

static const char prefix[] = "Kernel panic - not syncing: ";

static void cause_byte(struct panic_watch *watch, uint8_t byte)
{
	if (byte == '\n' || byte == '\r') {
		watch->in_cause = false;
	} else if (byte >= ' ' && byte <= '~' && watch->cause_length < sizeof(watch->cause) - 1) {
		watch->cause[watch->cause_length++] = (char)byte;
		watch->cause[watch->cause_length] = '\0';
	}
}

void panic_watch_byte(void *opaque, uint8_t byte)
{
	struct panic_watch *watch = opaque;

	if (watch->in_cause) {
		cause_byte(watch, byte);
		return;
	}
	/* No proper prefix of the text is also its suffix but the one letter it starts with. */
	if (byte == (uint8_t)prefix[watch->matched])
		watch->matched++;
	else
		watch->matched = byte == (uint8_t)prefix[0] ? 1 : 0;
	if (watch->matched == sizeof(prefix) - 1) {
		watch->matched = 0;
		watch->seen = true;
		watch->in_cause = true;
		watch->cause_length = 0;
		watch->cause[0] = '\0';
	}
}

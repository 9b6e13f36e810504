/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

void terminal_make_raw(struct terminal *terminal)
{
	struct termios raw;

	if (tcgetattr(STDIN_FILENO, &terminal->settings) < 0)
		return;
	raw = terminal->settings;
	cfmakeraw(&raw);
	terminal->raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

void terminal_restore(struct terminal *terminal)
{
	if (terminal->raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &terminal->settings);
	terminal->raw = false;
}

bool terminal_size(uint16_t *rows, uint16_t *columns)
{
	struct winsize size;

	*rows = 24;
	*columns = 80;
	for (int fd = 0; fd < 3; fd++) {
		if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0) {
			*rows = size.ws_row;
			*columns = size.ws_col;
			return true;
		}
	}
	return false;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

void cli_clean(char *text)
{
	for (unsigned char *at = (unsigned char *)text; *at; at++) {
		/* U+0080 to U+009F are two bytes each. */
		if (at[0] == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0)
			at[0] = at[1] = '?';
		else if (*at < ' ' || *at == 0x7f)
			*at = '?';
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Says a word and powers off. */
#include "guest.h"

void guest_main(void *zero_page)
{
	(void)zero_page;
	guest_put("hello\n");
}

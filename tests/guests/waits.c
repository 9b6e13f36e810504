/* SPDX-License-Identifier: Apache-2.0 */
/* Says a word and does nothing more, at no cost, until it is ended. */
#include "guest.h"

void guest_main(void *zero_page)
{
	(void)zero_page;
	guest_put("Hello from the guest.\n");
	guest_halt();
}

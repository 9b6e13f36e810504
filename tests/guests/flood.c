/* SPDX-License-Identifier: Apache-2.0 */
/* Writes for ever, in bursts, whether or not anybody reads. */
#include "guest.h"

#define LSR (PORT_SERIAL + 5)
#define LSR_THR_EMPTY 0x20
#define BURST 700

void guest_main(void *zero_page)
{
	(void)zero_page;
	for (;;) {
		while (!(inb(LSR) & LSR_THR_EMPTY))
			;
		for (int i = 0; i < BURST; i++)
			outb(PORT_SERIAL, '.');
	}
}

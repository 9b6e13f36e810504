/* SPDX-License-Identifier: Apache-2.0 */
/* Counts in memory for ever, reading a port in every round, so that an I/O is often half done. */
#include "guest.h"

#define COUNTER 0x8000
#define LSR (PORT_SERIAL + 5)

void guest_main(void *zero_page)
{
	volatile uint64_t *counter = (volatile uint64_t *)COUNTER;

	(void)zero_page;
	for (;;) {
		/* A read that was answered wrongly, or twice, would end the count. */
		if (inb(LSR) == 0x60)
			(*counter)++;
		else
			guest_halt();
	}
}

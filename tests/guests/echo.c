/* SPDX-License-Identifier: Apache-2.0 */
/* Sends back what the serial line brings, up to a 'q'. */
#include "guest.h"

#define MCR (PORT_SERIAL + 4)
#define LSR (PORT_SERIAL + 5)
#define MCR_RTS 0x02
#define LSR_DATA_READY 0x01

void guest_main(void *zero_page)
{
	uint8_t byte = 0;

	(void)zero_page;
	outb(MCR, MCR_RTS);
	while (byte != 'q') {
		if (!(inb(LSR) & LSR_DATA_READY))
			continue;
		byte = inb(PORT_SERIAL);
		outb(PORT_SERIAL, byte);
	}
}

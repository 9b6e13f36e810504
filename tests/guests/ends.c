/* SPDX-License-Identifier: Apache-2.0 */
/* Ends in the way that END names when it is compiled. */
#include "guest.h"

#define RESET 1
#define TRIPLE_FAULT 2
#define PANIC_RESET 3
#define EXECUTE_MMIO 4
#define HALT 5
#define SPIN 6

#define I8042_RESET 0xfe

static void reset(void)
{
	outb(PORT_I8042_COMMAND, I8042_RESET);
}

void guest_main(void *zero_page)
{
	(void)zero_page;
	guest_put("ending\n");
	switch (END) {
	case RESET:
		reset();
		break;
	case TRIPLE_FAULT:
		/* The interrupt table is empty, so the fault's handler faults, and that one's too.
		 */
		__asm__ volatile("ud2");
		break;
	case PANIC_RESET:
		guest_put("[    0.1] Kernel panic - not syncing: out of \x1b[1mbiscuits\r\n");
		reset();
		break;
	case EXECUTE_MMIO:
		/* No instruction can be fetched from a device's registers. */
		guest_map(0xd0000000);
		((void (*)(void))0xd0000000)();
		break;
	case SPIN:
		for (;;)
			__asm__ volatile("pause");
	}
	guest_halt();
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Every kind of I/O exit: widths, unclaimed addresses, string I/O, the devices' registers. */
#include "guest.h"

#define PORT_NOBODY 0x1234
#define PORT_I8042_DATA 0x60
#define MMIO_NOBODY 0xd0000000
#define BOOT_TIMER 0xc0000000

static void string_output(const char *text, uint64_t count)
{
	__asm__ volatile("rep outsb" : "+S"(text), "+c"(count) : "d"(PORT_SERIAL) : "memory");
}

void guest_main(void *zero_page)
{
	(void)zero_page;
	guest_check("byte port nobody claims", inb(PORT_NOBODY) == 0xff);
	guest_check("word port nobody claims", inw(PORT_NOBODY) == 0xffff);
	guest_check("long port nobody claims", inl(PORT_NOBODY) == 0xffffffff);
	outb(PORT_NOBODY, 1);
	outw(PORT_NOBODY, 2);
	outl(PORT_NOBODY, 3);
	/* A word that straddles the end of the serial port belongs to nobody. */
	guest_check("straddling port access", inw(PORT_SERIAL + 7) == 0xffff);

	guest_map(MMIO_NOBODY);
	guest_check("MMIO nobody claims", read32(MMIO_NOBODY) == 0xffffffff);
	write32(MMIO_NOBODY, 7);
	guest_check("MMIO write lost", read32(MMIO_NOBODY) == 0xffffffff);

	guest_map(BOOT_TIMER);
	*(volatile uint8_t *)BOOT_TIMER = 1;
	*(volatile uint8_t *)BOOT_TIMER = 123;
	guest_check("boot timer reads zero", read32(BOOT_TIMER) == 0);

	outb(PORT_I8042_COMMAND, 0xaa);
	guest_check("i8042 self test",
		    (inb(PORT_I8042_COMMAND) & 1) && inb(PORT_I8042_DATA) == 0x55);
	guest_check("sleep status", inb(PORT_SLEEP + 1) == 0);
	outb(PORT_SLEEP, 0x20 | 3 << 2); /* S3 does not exist */
	string_output("ok string output\n", 17);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Starts every other processor by INIT and start-up interrupts, and counts who arrives. */
#include "guest.h"

#define LAPIC 0xfee00000
#define ICR_LOW (LAPIC + 0x300)
#define ICR_HIGH (LAPIC + 0x310)
#define ICR_INIT_ALL_OTHERS 0xc4500
#define ICR_STARTUP_ALL_OTHERS 0xc4600

#define TRAMPOLINE 0x8000
#define ARRIVED 0x8800 /* 16-bit counter */

extern const uint8_t trampoline_start[], trampoline_end[];

/* Real mode, at TRAMPOLINE: add one to the counter, halt. */
__asm__(".section .rodata\n"
	".code16\n"
	"trampoline_start:\n"
	"	xor %ax, %ax\n"
	"	mov %ax, %ds\n"
	"	lock incw 0x8800\n"
	"1:	hlt\n"
	"	jmp 1b\n"
	"trampoline_end:\n"
	".code64\n"
	".text\n");

void guest_main(void *zero_page)
{
	volatile uint16_t *arrived = (volatile uint16_t *)ARRIVED;
	volatile uint8_t *to = (volatile uint8_t *)TRAMPOLINE;

	(void)zero_page;
	for (const uint8_t *from = trampoline_start; from < trampoline_end; from++)
		*to++ = *from;
	*arrived = 0;
	guest_map(LAPIC & ~0x1fffff);
	write32(ICR_LOW, ICR_INIT_ALL_OTHERS);
	write32(ICR_LOW, ICR_STARTUP_ALL_OTHERS | TRAMPOLINE >> 12);
	/* The host's test has a time limit; a processor that never comes shows there. */
	while (*arrived < OTHERS)
		__asm__ volatile("pause");
	guest_put("arrived ");
	guest_put_number(*arrived);
	guest_put("\n");
}

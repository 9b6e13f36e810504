/* SPDX-License-Identifier: Apache-2.0 */
#include "guest.h"

#define LSR (PORT_SERIAL + 5)
#define LSR_THR_EMPTY 0x20
#define SLEEP_S5_NOW 0x34 /* SLP_TYP 5, SLP_EN */

#define PML4 0x9000
#define PRESENT_WRITABLE 0x3
#define HUGE 0x80

void guest_put(const char *text)
{
	for (; *text; text++) {
		while (!(inb(LSR) & LSR_THR_EMPTY))
			;
		outb(PORT_SERIAL, (uint8_t)*text);
	}
}

void guest_put_number(uint64_t value)
{
	char digits[21];
	int at = 20;

	digits[at] = '\0';
	do {
		digits[--at] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	guest_put(digits + at);
}

void guest_check(const char *name, int good)
{
	guest_put(good ? "ok " : "FAIL ");
	guest_put(name);
	guest_put("\n");
}

void guest_halt(void)
{
	for (;;)
		__asm__ volatile("hlt");
}

void guest_power_off(void)
{
	outb(PORT_SLEEP, SLEEP_S5_NOW);
	guest_halt();
}

static uint64_t *next_table(uint64_t *table, unsigned int index)
{
	static uint64_t pool[8][512] __attribute__((aligned(4096)));
	static unsigned int used;

	if (!(table[index] & 1))
		table[index] = (uint64_t)pool[used++] | PRESENT_WRITABLE;
	return (uint64_t *)(table[index] & ~(uint64_t)0xfff);
}

void guest_map(uint64_t addr)
{
	uint64_t *pdpt = next_table((uint64_t *)PML4, addr >> 39 & 511);
	uint64_t *pd = next_table(pdpt, addr >> 30 & 511);

	pd[addr >> 21 & 511] = (addr & ~(uint64_t)0x1fffff) | HUGE | PRESENT_WRITABLE;
	__asm__ volatile("mov %%cr3, %%rax; mov %%rax, %%cr3" : : : "rax", "memory");
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "guest.h"

#define MCR (PORT_SERIAL + 4)
#define MCR_RTS 0x02 /* without it nothing is sent to us */
#define LSR (PORT_SERIAL + 5)
#define LSR_DATA_READY 0x01
#define LSR_THR_EMPTY 0x20
#define SLEEP_S5_NOW 0x34 /* SLP_TYP 5, SLP_EN */

/* Behind the guest's image. */
#define FREE_MEMORY 0x400000
#define PAGE 4096

#define ZERO_PAGE_CMD_LINE 0x228

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

char guest_get(void)
{
	outb(MCR, MCR_RTS);
	while (!(inb(LSR) & LSR_DATA_READY))
		;
	return (char)inb(PORT_SERIAL);
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

void *guest_alloc(size_t size)
{
	static uint64_t next = FREE_MEMORY;
	uint64_t at = next;

	next += (size + PAGE - 1) & ~(uint64_t)(PAGE - 1);
	return (void *)at;
}

/* The text behind "NAME=" at the start of a word, or NULL. */
static const char *find_option(const void *zero_page, const char *name)
{
	const char *at = (const char *)(uint64_t) *
			 (const uint32_t *)((const uint8_t *)zero_page + ZERO_PAGE_CMD_LINE);

	while (*at) {
		const char *want = name;

		while (*want && *at == *want) {
			at++;
			want++;
		}
		if (!*want && *at == '=')
			return at + 1;
		while (*at && *at != ' ')
			at++;
		while (*at == ' ')
			at++;
	}
	return NULL;
}

bool guest_option(const void *zero_page, const char *name, char *value, size_t room)
{
	const char *from = find_option(zero_page, name);

	for (; from && *from && *from != ' ' && room > 1; room--)
		*value++ = *from++;
	*value = '\0';
	return from;
}

unsigned int guest_number(const void *zero_page, const char *name, unsigned int otherwise)
{
	const char *from = find_option(zero_page, name);
	unsigned int value = 0;

	if (!from)
		return otherwise;
	while (*from >= '0' && *from <= '9')
		value = value * 10 + (unsigned int)(*from++ - '0');
	return value;
}

bool guest_same(const char *one, const char *other)
{
	while (*one && *one == *other) {
		one++;
		other++;
	}
	return *one == *other;
}

/* Eight bytes at a time, because each costs as much as one. */
void *memcpy(void *to, const void *from, size_t size)
{
	void *at = to;
	size_t words = size / 8, bytes = size % 8;

	__asm__ volatile("rep movsq\n\tmov %3, %2\n\trep movsb"
			 : "+D"(at), "+S"(from), "+c"(words)
			 : "r"(bytes)
			 : "memory");
	return to;
}

void *memset(void *to, int value, size_t size)
{
	void *at = to;
	size_t words = size / 8, bytes = size % 8;

	__asm__ volatile("rep stosq\n\tmov %2, %1\n\trep stosb"
			 : "+D"(at), "+c"(words)
			 : "r"(bytes), "a"((uint8_t)value * UINT64_C(0x0101010101010101))
			 : "memory");
	return to;
}

int memcmp(const void *one, const void *other, size_t size)
{
	const uint8_t *a = one, *b = other;

	for (; size >= 8 && *(const uint64_t *)a == *(const uint64_t *)b; size -= 8) {
		a += 8;
		b += 8;
	}
	for (; size > 0; size--, a++, b++) {
		if (*a != *b)
			return *a - *b;
	}
	return 0;
}

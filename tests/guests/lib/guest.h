/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A freestanding library for guests of a few thousand instructions. Where guest ring 0 is emulated,
 * each instruction costs about 0.6 us and some do not exist: nothing here uses SSE, popcnt or
 * interrupts.
 */
#ifndef MOTE_TESTS_GUEST_H
#define MOTE_TESTS_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PORT_SERIAL 0x3f8
#define PORT_I8042_COMMAND 0x64
#define PORT_SLEEP 0x600

static inline void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outw(uint16_t port, uint16_t value)
{
	__asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outl(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline uint16_t inw(uint16_t port)
{
	uint16_t value;

	__asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline void write32(uint64_t addr, uint32_t value)
{
	*(volatile uint32_t *)addr = value;
}

static inline uint32_t read32(uint64_t addr)
{
	return *(volatile uint32_t *)addr;
}

static inline uint64_t guest_clock(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

/* Ticks of the clock within which the host has surely answered: 10 s of a fast processor. */
#define GUEST_PATIENCE UINT64_C(60000000000)

static inline void guest_barrier(void)
{
	__asm__ volatile("lock orl $0, (%%rsp)" : : : "memory");
}

/* What each guest defines; returning powers off. */
void guest_main(void *zero_page);

void guest_put(const char *text);
void guest_put_number(uint64_t value);
/* Waits for a byte of serial input. */
char guest_get(void);
/* Writes "ok NAME" or "FAIL NAME" on a line. */
void guest_check(const char *name, int good);
_Noreturn void guest_power_off(void);
_Noreturn void guest_halt(void);

/* Maps the 2 MiB page at a physical address (2 MiB-aligned) onto the same virtual one. */
void guest_map(uint64_t addr);

/* Memory that is all zeroes and begins a page. There is no way to give it back. */
void *guest_alloc(size_t size);

/*
 * The value of NAME=VALUE on the kernel command line, cut to what `room` bytes hold; false, and
 * empty, if it is not there.
 */
bool guest_option(const void *zero_page, const char *name, char *value, size_t room);
/* The same for a number. */
unsigned int guest_number(const void *zero_page, const char *name, unsigned int otherwise);

bool guest_same(const char *one, const char *other);

/* The compiler calls these by itself. */
void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *one, const void *other, size_t size);

#endif

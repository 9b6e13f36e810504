/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A freestanding library for guests of a few thousand instructions. Where guest ring 0 is emulated,
 * each instruction costs about 0.6 us and some do not exist: nothing here uses SSE, popcnt or
 * interrupts.
 */
#ifndef MOTE_TESTS_GUEST_H
#define MOTE_TESTS_GUEST_H

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

/* What each guest defines; returning powers off. */
void guest_main(void *zero_page);

void guest_put(const char *text);
void guest_put_number(uint64_t value);
/* Writes "ok NAME" or "FAIL NAME" on a line. */
void guest_check(const char *name, int good);
_Noreturn void guest_power_off(void);
_Noreturn void guest_halt(void);

/* Maps the 2 MiB page at a physical address (2 MiB-aligned) onto the same virtual one. */
void guest_map(uint64_t addr);

#endif

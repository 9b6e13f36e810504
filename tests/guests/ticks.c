/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts that each follow from the one before, so that one that is lost ends them: a timer's,
 * which is set anew when it has rung (`deadline=1`: by the processor's clock), and with `others=3`
 * what one processor sends to another that halts, as soon as it has come. One more halts for ever.
 *
 * With `hold=1` there is one that is due, and not taken before the keyboard has something to say;
 * with `hold=2` it is taken, and not done before that. Then it says how often that rang.
 */
#include "cpus.h"
#include "guest.h"

#define TICKS 0x8800 /* of the timer */
#define EARLY 0x8808 /* of them, before they were due */
#define PINGS 0x8810 /* from one processor to another */

#define LAPIC 0xfee00000
#define LAPIC_ID (LAPIC + 0x20)
#define LAPIC_EOI (LAPIC + 0xb0)
#define LAPIC_SPURIOUS (LAPIC + 0xf0)
#define LAPIC_ENABLE 0x1ff
#define ICR_LOW (LAPIC + 0x300)
#define ICR_HIGH (LAPIC + 0x310)
#define LVT_TIMER (LAPIC + 0x320)
#define TIMER_DEADLINE 0x40000
#define TIMER_COUNT (LAPIC + 0x380)
#define TIMER_DIVIDE (LAPIC + 0x3e0)
#define TIMER_BY_1 0xb
#define IA32_TSC_DEADLINE 0x6e0

#define LAPIC_REQUESTS (LAPIC + 0x200) /* 32 vectors in each 16 bytes */
#define LVT_LINT0 (LAPIC + 0x350)
#define LVT_MASKED 0x10000
#define PORT_I8042_DATA 0x60
#define I8042_HAS_DATA 0x01
#define I8042_WRITE_CONFIG 0x60
#define I8042_INTERRUPT 0x01
#define LATER 100000000 /* by then what is due has come */

#define TIMER_VECTOR 0x40
#define PING_VECTOR 0x41
#define PERIOD 1000000 /* ticks of a clock: below a millisecond */

struct gate {
	uint16_t low;
	uint16_t selector;
	uint8_t stack;
	uint8_t type;
	uint16_t middle;
	uint32_t high;
	uint32_t zero;
};

#define INTERRUPT_GATE 0x8e

struct frame;

static struct gate gates[CPUS_MAX][PING_VECTOR + 1];
static volatile uint64_t *const ticks = (volatile uint64_t *)TICKS;
static volatile uint64_t *const early = (volatile uint64_t *)EARLY;
static volatile uint64_t *const pings = (volatile uint64_t *)PINGS;
static volatile uint32_t pinged; /* its APIC's id, with bit 31; 0 before it is there */
enum { GO_ON, HOLD_DUE, HOLD_IN_SERVICE };
static bool by_deadline;
static unsigned int hold;
static uint64_t deadline;

static void arm(void)
{
	if (!by_deadline) {
		write32(TIMER_COUNT, PERIOD);
		return;
	}
	deadline = guest_clock() + PERIOD;
	__asm__ volatile("wrmsr"
			 :
			 : "c"(IA32_TSC_DEADLINE), "a"((uint32_t)deadline),
			   "d"((uint32_t)(deadline >> 32)));
}

static void wait_for_keyboard(void)
{
	guest_put("due\n");
	while (!(inb(PORT_I8042_COMMAND) & I8042_HAS_DATA))
		__asm__ volatile("pause");
}

static __attribute__((interrupt)) void on_timer(struct frame *frame)
{
	(void)frame;
	if (by_deadline && guest_clock() < deadline)
		(*early)++;
	(*ticks)++;
	if (hold == HOLD_IN_SERVICE && *ticks == 1)
		wait_for_keyboard();
	write32(LAPIC_EOI, 0);
	if (hold == GO_ON)
		arm();
}

static __attribute__((interrupt)) void on_ping(struct frame *frame)
{
	(void)frame;
	(*pings)++;
	write32(LAPIC_EOI, 0);
}

static void take(unsigned int cpu, unsigned int vector, void (*handler)(struct frame *frame))
{
	const uint64_t address = (uint64_t)handler;
	const struct __attribute__((packed)) {
		uint16_t limit;
		uint64_t base;
	} table = { sizeof(gates[cpu]) - 1, (uint64_t)gates[cpu] };
	uint16_t code;

	__asm__("mov %%cs, %0" : "=r"(code));
	gates[cpu][vector] = (struct gate){
		.low = (uint16_t)address,
		.selector = code,
		.type = INTERRUPT_GATE,
		.middle = (uint16_t)(address >> 16),
		.high = (uint32_t)(address >> 32),
	};
	__asm__ volatile("lidt %0" : : "m"(table));
	write32(LAPIC_SPURIOUS, LAPIC_ENABLE);
}

static _Noreturn void halt_between_interrupts(void)
{
	for (;;)
		__asm__ volatile("sti; hlt");
}

static void run_other(unsigned int index)
{
	uint64_t before;

	if (index == 1) {
		take(index, PING_VECTOR, on_ping);
		pinged = read32(LAPIC_ID) >> 24 | 0x80000000;
		halt_between_interrupts();
	}
	while (index == 2) {
		while (!pinged)
			__asm__ volatile("pause");
		before = *pings;
		write32(ICR_HIGH, (pinged & 0xff) << 24);
		write32(ICR_LOW, PING_VECTOR);
		while (*pings == before)
			__asm__ volatile("pause");
	}
}

static void tell_how_often_it_rings(void)
{
	uint64_t end;

	/* The keyboard's interrupt is asked for, which what it says depends on, and not let in. */
	write32(LVT_LINT0, LVT_MASKED);
	outb(PORT_I8042_COMMAND, I8042_WRITE_CONFIG);
	outb(PORT_I8042_DATA, I8042_INTERRUPT);
	if (hold == HOLD_DUE) {
		while (!(read32(LAPIC_REQUESTS + TIMER_VECTOR / 32 * 16) & 1u << TIMER_VECTOR % 32))
			__asm__ volatile("pause");
		wait_for_keyboard();
	}
	__asm__ volatile("sti");
	while (*ticks == 0)
		__asm__ volatile("pause");
	end = guest_clock() + LATER;
	while (guest_clock() < end)
		__asm__ volatile("pause");
	guest_put("rang ");
	guest_put_number(*ticks);
	guest_put("\n");
}

void guest_main(void *zero_page)
{
	unsigned int others = guest_number(zero_page, "others", 0);

	by_deadline = guest_number(zero_page, "deadline", 0);
	hold = guest_number(zero_page, "hold", GO_ON);
	*ticks = *early = *pings = 0;
	guest_map(LAPIC & ~UINT64_C(0x1fffff));
	if (others > 0)
		cpus_start(others, run_other);
	take(0, TIMER_VECTOR, on_timer);
	write32(TIMER_DIVIDE, TIMER_BY_1);
	write32(LVT_TIMER, TIMER_VECTOR | (by_deadline ? TIMER_DEADLINE : 0));
	guest_put("ticking\n");
	arm();
	if (hold)
		tell_how_often_it_rings();
	halt_between_interrupts();
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "cpus.h"

#include "guest.h"

#define LAPIC 0xfee00000
#define ICR_LOW (LAPIC + 0x300)
#define ICR_INIT_ALL_OTHERS 0xc4500
#define ICR_STARTUP_ALL_OTHERS 0xc4600

#define TRAMPOLINE 0x8000
#define STACK_SIZE 8192

extern const uint8_t cpus_trampoline[], cpus_trampoline_end[];
uint8_t cpus_stacks[CPUS_MAX][STACK_SIZE] __attribute__((aligned(16)));
volatile uint32_t cpus_arrived;
void cpus_enter(unsigned int index);

static void (*volatile cpus_run)(unsigned int index);

/* Copied to TRAMPOLINE, where real mode can run: from there to long mode at once. */
__asm__(".section .rodata\n"
	".code16\n"
	"cpus_trampoline:\n"
	"	cli\n"
	"	xor %ax, %ax\n"
	"	mov %ax, %ds\n"
	"	lgdtl 0x8000 + cpus_gdt_pointer - cpus_trampoline\n"
	"	mov %cr4, %eax\n"
	"	or $0x20, %eax\n" /* PAE */
	"	mov %eax, %cr4\n"
	"	mov $0x9000, %eax\n" /* the page tables of the first one */
	"	mov %eax, %cr3\n"
	"	mov $0xc0000080, %ecx\n" /* EFER */
	"	rdmsr\n"
	"	or $0x100, %eax\n" /* LME */
	"	wrmsr\n"
	"	mov %cr0, %eax\n"
	"	or $0x80000001, %eax\n" /* PG, PE */
	"	mov %eax, %cr0\n"
	"	ljmpl $8, $0x8000 + cpus_long - cpus_trampoline\n"
	".code64\n"
	"cpus_long:\n"
	"	mov $16, %eax\n"
	"	mov %eax, %ds\n"
	"	mov %eax, %es\n"
	"	mov %eax, %ss\n"
	"	mov $1, %edi\n"
	"	lock xadd %edi, cpus_arrived\n"
	"	inc %edi\n"
	"	mov %edi, %eax\n"
	"	shl $13, %eax\n" /* STACK_SIZE; it grows down from the end of the index's own */
	"	lea cpus_stacks(%rax), %rsp\n"
	"	mov $cpus_enter, %eax\n"
	"	call *%rax\n"
	"	.balign 8\n"
	"cpus_gdt:\n"
	"	.quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff\n"
	"cpus_gdt_pointer:\n"
	"	.word 23\n"
	"	.long 0x8000 + cpus_gdt - cpus_trampoline\n"
	"cpus_trampoline_end:\n"
	".text\n");

void cpus_enter(unsigned int index)
{
	cpus_run(index);
	guest_halt();
}

void cpus_start(unsigned int count, void (*run)(unsigned int index))
{
	volatile uint8_t *to = (volatile uint8_t *)TRAMPOLINE;

	for (const uint8_t *from = cpus_trampoline; from < cpus_trampoline_end; from++)
		*to++ = *from;
	cpus_run = run;
	cpus_arrived = 0;
	guest_map(LAPIC & ~UINT64_C(0x1fffff));
	write32(ICR_LOW, ICR_INIT_ALL_OTHERS);
	write32(ICR_LOW, ICR_STARTUP_ALL_OTHERS | TRAMPOLINE >> 12);
	while (cpus_arrived < count)
		__asm__ volatile("pause");
}

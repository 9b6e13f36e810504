/* SPDX-License-Identifier: Apache-2.0 */
/* Entered by the 64-bit boot protocol; rsi is the zero page. */
	.section .text.start, "ax"
	.globl _start
_start:
	lea	boot_stack_end(%rip), %rsp
	mov	%rsi, %rdi
	call	guest_main
	call	guest_power_off

	.bss
	.balign	16
	.skip	16384
boot_stack_end:
	.section .note.GNU-stack, "", @progbits

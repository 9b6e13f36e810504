/* SPDX-License-Identifier: Apache-2.0 */
/* Tells a CPUID leaf and an MSR, as its command line names them: leaf=, subleaf=, msr= (decimal).
 */
#include "guest.h"

static void tell(const char *name, uint64_t value)
{
	guest_put(name);
	guest_put(" ");
	guest_put_number(value);
	guest_put("\n");
}

void guest_main(void *zero_page)
{
	uint32_t eax = guest_number(zero_page, "leaf", 0);
	uint32_t ecx = guest_number(zero_page, "subleaf", 0);
	uint32_t ebx, edx, low, high;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	tell("eax", eax);
	tell("ebx", ebx);
	tell("ecx", ecx);
	tell("edx", edx);
	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(guest_number(zero_page, "msr", 0)));
	tell("msr", (uint64_t)high << 32 | low);
}

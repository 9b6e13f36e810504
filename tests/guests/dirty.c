/* SPDX-License-Identifier: Apache-2.0 */
/* Writes to each page of `mib` MiB, says so, and then one byte after the other for ever. */
#include "guest.h"

#define PAGE 4096

void guest_main(void *zero_page)
{
	const uint64_t mib = guest_number(zero_page, "mib", 0);

	for (uint64_t at = 0x200000; at < mib << 20; at += PAGE)
		*(volatile uint64_t *)(at + 8) = at ^ 0x9e3779b97f4a7c15;
	guest_put("ready\n");
	for (;;)
		guest_put(".");
}

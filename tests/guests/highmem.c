/* SPDX-License-Identifier: Apache-2.0 */
/* Memory above 4 GiB: there, zeroed, distinct; above its end and in the gap: not there. */
#include "guest.h"

#define GIB (UINT64_C(1) << 30)

static int zero_at(uint64_t addr)
{
	guest_map(addr);
	return read32(addr) == 0 && read32(addr + 0x1ffffc) == 0;
}

void guest_main(void *zero_page)
{
	(void)zero_page;
	/* 5 GiB: 3 below the gap, 2 above 4 GiB. */
	guest_check("zero at 4 GiB", zero_at(4 * GIB));
	guest_check("zero below 6 GiB", zero_at(6 * GIB - 0x200000));
	write32(4 * GIB, 0x11111111);
	write32(6 * GIB - 4, 0x22222222);
	guest_check("kept", read32(4 * GIB) == 0x11111111 && read32(6 * GIB - 4) == 0x22222222);
	guest_check("not an alias of low memory", zero_at(1 * GIB) && zero_at(2 * GIB));
	guest_map(6 * GIB);
	guest_check("nothing at 6 GiB", read32(6 * GIB) == 0xffffffff);
	guest_map(3 * GIB + 0x200000);
	guest_check("nothing in the gap", read32(3 * GIB + 0x200000) == 0xffffffff);
}

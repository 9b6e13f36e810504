/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fills `mib` of its memory, with `high=1` some above 4 GiB, too, and looks for ever whether each
 * page has what it was given.
 */
#include "guest.h"

#define ROUNDS 0x8000
#define MIB (UINT64_C(1) << 20)
#define START (16 * MIB)
#define HIGH (UINT64_C(4) << 30)
#define PAGE 4096
#define HIGH_PAGES 512 /* which guest_map() maps */

static uint64_t content(uint64_t at)
{
	return at * UINT64_C(0x9e3779b97f4a7c15) | 1;
}

static void fill(uint64_t from, uint64_t to)
{
	for (uint64_t at = from; at < to; at += PAGE)
		*(volatile uint64_t *)(at + 8) = content(at);
}

static bool is_kept(uint64_t from, uint64_t to)
{
	for (uint64_t at = from; at < to; at += PAGE) {
		if (*(volatile uint64_t *)(at + 8) != content(at) || *(volatile uint64_t *)at != 0)
			return false;
	}
	return true;
}

void guest_main(void *zero_page)
{
	volatile uint64_t *rounds = (volatile uint64_t *)ROUNDS;
	uint64_t end = START + guest_number(zero_page, "mib", 1) * MIB, high_end = HIGH;

	if (guest_number(zero_page, "high", 0)) {
		guest_map(HIGH);
		high_end += HIGH_PAGES * PAGE;
	}
	*rounds = 0;
	fill(START, end);
	fill(HIGH, high_end);
	guest_put("filled\n");
	while (is_kept(START, end) && is_kept(HIGH, high_end))
		(*rounds)++;
	guest_put("FAIL memory\n");
}

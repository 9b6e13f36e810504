/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MOTE_VMM_BOOT_CHECKSUM_H
#define MOTE_VMM_BOOT_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* The byte that makes the bytes of a firmware table add up to zero. */
static inline uint8_t table_checksum(const void *table, size_t size)
{
	const uint8_t *bytes = table;
	uint8_t sum = 0;

	for (size_t i = 0; i < size; i++)
		sum = (uint8_t)(sum + bytes[i]);
	return (uint8_t)-sum;
}

#endif

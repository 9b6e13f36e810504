/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of the network's order, and the Internet checksum, apart from the code under test. */
#ifndef MOTE_TESTS_UNIT_PACKET_H
#define MOTE_TESTS_UNIT_PACKET_H

#include <stddef.h>
#include <stdint.h>

static inline uint32_t get(const uint8_t *from, unsigned int size)
{
	uint32_t value = 0;

	while (size-- > 0)
		value = value << 8 | *from++;
	return value;
}

static inline void put(uint8_t *to, uint32_t value, unsigned int size)
{
	while (size-- > 0) {
		to[size] = (uint8_t)value;
		value >>= 8;
	}
}

/* The ones' complement sum, byte by byte, from `start` on. */
static inline uint16_t sum(const uint8_t *data, size_t size, uint32_t start)
{
	for (size_t i = 0; i < size; i++)
		start += i % 2 ? data[i] : (uint32_t)data[i] << 8;
	while (start >> 16)
		start = (start & 0xffff) + (start >> 16);
	return (uint16_t)start;
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The fuzzer's bytes, taken from the front; zeros behind their end. */
#ifndef MOTE_TESTS_FUZZ_INPUT_H
#define MOTE_TESTS_FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>

struct input {
	const uint8_t *data;
	size_t size;
};

static inline uint8_t take(struct input *input)
{
	if (input->size == 0)
		return 0;
	input->size--;
	return *input->data++;
}

static inline uint16_t take_u16(struct input *input)
{
	uint16_t low = take(input);

	return (uint16_t)(low | take(input) << 8);
}

static inline uint32_t take_u32(struct input *input)
{
	uint32_t low = take_u16(input);

	return low | (uint32_t)take_u16(input) << 16;
}

#endif

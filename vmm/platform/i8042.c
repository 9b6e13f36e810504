/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/platform/i8042.h"

#include <string.h>

#define REG_DATA 0
#define REG_COMMAND 4

#define STATUS_OUTPUT_FULL 0x01

#define COMMAND_READ_CONFIG 0x20
#define COMMAND_WRITE_CONFIG 0x60
#define COMMAND_SELF_TEST 0xaa
#define COMMAND_TEST_KEYBOARD 0xab
#define COMMAND_RESET 0xfe
#define SELF_TEST_PASSED 0x55

static void answer(struct i8042 *i8042, uint8_t value)
{
	i8042->output = value;
	i8042->output_full = true;
}

static void i8042_read(void *device, uint64_t offset, uint8_t *data, unsigned int len)
{
	struct i8042 *i8042 = device;

	memset(data, 0, len);
	if (offset == REG_DATA) {
		data[0] = i8042->output;
		i8042->output_full = false;
	} else if (offset == REG_COMMAND) {
		data[0] = i8042->output_full ? STATUS_OUTPUT_FULL : 0;
	}
}

static void write_command(struct i8042 *i8042, uint8_t command)
{
	i8042->command = 0;
	switch (command) {
	case COMMAND_READ_CONFIG:
		answer(i8042, i8042->config);
		break;
	case COMMAND_WRITE_CONFIG:
		i8042->command = command;
		break;
	case COMMAND_SELF_TEST:
		answer(i8042, SELF_TEST_PASSED);
		break;
	case COMMAND_TEST_KEYBOARD:
		answer(i8042, 0);
		break;
	case COMMAND_RESET:
		i8042->reset(i8042->opaque);
		break;
	default:
		break;
	}
}

static void i8042_write(void *device, uint64_t offset, const uint8_t *data, unsigned int len)
{
	struct i8042 *i8042 = device;

	if (len != 1)
		return;
	if (offset == REG_COMMAND) {
		write_command(i8042, data[0]);
	} else if (offset == REG_DATA && i8042->command == COMMAND_WRITE_CONFIG) {
		i8042->config = data[0];
		i8042->command = 0;
	}
}

const struct io_ops i8042_ops = { i8042_read, i8042_write };

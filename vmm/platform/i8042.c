/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/platform/i8042.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/state.h"

#define REG_DATA 0
#define REG_COMMAND 4

#define STATUS_OUTPUT_FULL 0x01

#define CONFIG_KEYBOARD_INTERRUPT 0x01
#define CONFIG_SYSTEM 0x04 /* the self test has passed */

#define COMMAND_READ_CONFIG 0x20
#define COMMAND_WRITE_CONFIG 0x60
#define COMMAND_SELF_TEST 0xaa
#define COMMAND_TEST_KEYBOARD 0xab
#define COMMAND_RESET 0xfe
#define SELF_TEST_PASSED 0x55

#define KEYBOARD_ACK 0xfa

/* What the keys send when pressed, in scan code set 2. */
static const uint8_t ctrl_alt_del[] = { 0x14, 0x11, 0xe0, 0x71 };

const struct metric i8042_metric_table[] = {
	METRIC_NEVER("error_count"),
	METRIC_NEVER("missed_read_count"),
	METRIC(i8042_metrics, missed_write_count),
	METRIC(i8042_metrics, read_count),
	METRIC(i8042_metrics, reset_count),
	METRIC(i8042_metrics, write_count),
	{ NULL },
};

int i8042_open(struct i8042 *i8042, struct err *err)
{
	i8042->irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (i8042->irq_fd < 0)
		return err_sys(err, errno, "keyboard controller: eventfd");
	pthread_mutex_init(&i8042->lock, NULL);
	i8042->config = CONFIG_SYSTEM;
	return 0;
}

void i8042_close(struct i8042 *i8042)
{
	if (i8042->irq_fd <= 0)
		return;
	fd_close(&i8042->irq_fd);
	pthread_mutex_destroy(&i8042->lock);
}

static void interrupt(struct i8042 *i8042)
{
	if (i8042->config & CONFIG_KEYBOARD_INTERRUPT)
		fd_signal(i8042->irq_fd);
}

static bool output_full(const struct i8042 *i8042)
{
	return i8042->head != i8042->tail;
}

static bool answer(struct i8042 *i8042, const uint8_t *bytes, unsigned int count)
{
	bool was_full = output_full(i8042);

	if (I8042_OUTPUT - (i8042->tail - i8042->head) < count)
		return false;
	for (unsigned int i = 0; i < count; i++)
		i8042->output[i8042->tail++ % I8042_OUTPUT] = bytes[i];
	if (!was_full)
		interrupt(i8042);
	return true;
}

static void answer_byte(struct i8042 *i8042, uint8_t byte)
{
	(void)answer(i8042, &byte, 1);
}

static uint8_t read_data(struct i8042 *i8042)
{
	if (output_full(i8042)) {
		i8042->last = i8042->output[i8042->head++ % I8042_OUTPUT];
		if (output_full(i8042))
			interrupt(i8042);
	}
	return i8042->last;
}

static void i8042_read(void *device, uint64_t offset, uint8_t *data, unsigned int len)
{
	struct i8042 *i8042 = device;

	memset(data, 0, len);
	pthread_mutex_lock(&i8042->lock);
	metric_add(&i8042->metrics.read_count, 1);
	if (offset == REG_DATA)
		data[0] = read_data(i8042);
	else if (offset == REG_COMMAND)
		data[0] = output_full(i8042) ? STATUS_OUTPUT_FULL : 0;
	pthread_mutex_unlock(&i8042->lock);
}

static void write_command(struct i8042 *i8042, uint8_t command)
{
	i8042->command = 0;
	switch (command) {
	case COMMAND_READ_CONFIG:
		answer_byte(i8042, i8042->config);
		break;
	case COMMAND_WRITE_CONFIG:
		i8042->command = command;
		break;
	case COMMAND_SELF_TEST:
		answer_byte(i8042, SELF_TEST_PASSED);
		break;
	case COMMAND_TEST_KEYBOARD:
		answer_byte(i8042, 0);
		break;
	case COMMAND_RESET:
		metric_add(&i8042->metrics.reset_count, 1);
		i8042->reset(i8042->opaque);
		break;
	default:
		break;
	}
}

static void write_data(struct i8042 *i8042, uint8_t byte)
{
	if (i8042->command == COMMAND_WRITE_CONFIG) {
		i8042->config = byte;
		i8042->command = 0;
	} else {
		/* For the keyboard, which takes whatever it is told. */
		answer_byte(i8042, KEYBOARD_ACK);
	}
}

static void i8042_write(void *device, uint64_t offset, const uint8_t *data, unsigned int len)
{
	struct i8042 *i8042 = device;

	pthread_mutex_lock(&i8042->lock);
	metric_add(len == 1 ? &i8042->metrics.write_count : &i8042->metrics.missed_write_count, 1);
	if (len == 1 && offset == REG_COMMAND)
		write_command(i8042, data[0]);
	else if (len == 1 && offset == REG_DATA)
		write_data(i8042, data[0]);
	pthread_mutex_unlock(&i8042->lock);
}

const struct io_ops i8042_ops = { i8042_read, i8042_write };

int i8042_ctrl_alt_del(struct i8042 *i8042)
{
	int rc = 0;

	pthread_mutex_lock(&i8042->lock);
	if (!(i8042->config & CONFIG_KEYBOARD_INTERRUPT))
		rc = -ENXIO;
	else if (!answer(i8042, ctrl_alt_del, sizeof(ctrl_alt_del)))
		rc = -ENOBUFS;
	pthread_mutex_unlock(&i8042->lock);
	return rc;
}

void i8042_save(const struct i8042 *i8042, struct state_writer *out)
{
	state_put_u8(out, i8042->config);
	state_put_u8(out, i8042->command);
	state_put_u8(out, i8042->last);
	state_put_u32(out, i8042->tail - i8042->head);
	for (unsigned int i = i8042->head; i != i8042->tail; i++)
		state_put_u8(out, i8042->output[i % I8042_OUTPUT]);
}

int i8042_restore(struct i8042 *i8042, struct state_reader *in, uint32_t version, struct err *err)
{
	const uint8_t config = state_get_u8(in);
	const uint8_t command = state_get_u8(in);
	const uint8_t last = state_get_u8(in);
	const uint32_t count = state_get_u32(in);
	uint8_t output[I8042_OUTPUT];

	(void)version;
	if (count <= I8042_OUTPUT)
		state_get_bytes(in, output, count);
	if (count > I8042_OUTPUT || !state_is_done(in))
		return err_set(err, EINVAL,
			       "keyboard controller: its saved state is cut off, or has a size "
			       "that it cannot have");
	if (command != 0 && command != COMMAND_WRITE_CONFIG)
		return err_set(err, EINVAL, "keyboard controller: saved command 0x%x", command);
	pthread_mutex_lock(&i8042->lock);
	i8042->config = config;
	i8042->command = command;
	i8042->last = last;
	i8042->head = 0;
	i8042->tail = count;
	memcpy(i8042->output, output, count);
	if (output_full(i8042))
		interrupt(i8042);
	pthread_mutex_unlock(&i8042->lock);
	return 0;
}

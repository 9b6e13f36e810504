/* SPDX-License-Identifier: Apache-2.0 */
/* The platform's devices that are saved, and those that take their places. */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "base/state.h"
#include "tests/unit/serial_fixture.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "vmm/console.h"
#include "vmm/console_ring.h"
#include "vmm/platform/i8042.h"

/* Where the serial port's fields are. */
#define AT_FIFO_ENABLED 6
#define AT_INPUT 9

#define KEYBOARD_DATA 0
#define KEYBOARD_COMMAND 4
#define KEYBOARD_INTERRUPT 0x01

static struct state_writer saved;
static struct i8042 i8042;
static struct console_ring ring;
static struct err err;

static void set_up(void)
{
	serial_set_up();
	memset(&i8042, 0, sizeof(i8042));
	ck_assert_int_eq(i8042_open(&i8042, &err), 0);
	ck_assert_int_eq(console_ring_open(&ring, 8, &err), 0);
}

static void tear_down(void)
{
	serial_tear_down();
	i8042_close(&i8042);
	console_ring_close(&ring);
	state_writer_free(&saved);
}

/* A copy of that size: the address sanitizer sees what is beyond it. */
static struct state_reader copy_of_saved(uint8_t **copy)
{
	*copy = malloc(saved.size + 1);
	ck_assert_ptr_nonnull(*copy);
	memcpy(*copy + 1, saved.data, saved.size);
	return (struct state_reader){ .at = *copy + 1, .left = saved.size };
}

static int restore_serial(void)
{
	uint8_t *copy;
	struct state_reader reader = copy_of_saved(&copy);
	int rc = serial_restore(&serial, &reader, SERIAL_STATE_VERSION, &err);

	free(copy);
	return rc;
}

static int restore_i8042(void)
{
	uint8_t *copy;
	struct state_reader reader = copy_of_saved(&copy);
	int rc = i8042_restore(&i8042, &reader, I8042_STATE_VERSION, &err);

	free(copy);
	return rc;
}

static int restore_ring(void)
{
	uint8_t *copy;
	struct state_reader reader = copy_of_saved(&copy);
	int rc = console_ring_restore(&ring, &reader, CONSOLE_RING_STATE_VERSION, &err);

	free(copy);
	return rc;
}

static void replace_serial(void)
{
	serial_save(&serial, &saved);
	serial_tear_down();
	serial_set_up();
}

static void move_serial(void)
{
	replace_serial();
	ck_assert_msg(restore_serial() == 0, "%s", err.text);
}

START_TEST(port_that_nobody_has_touched)
{
	move_serial();
	ck_assert(!serial_interrupted());
	ck_assert_uint_eq(uart_get(LSR), LSR_TRANSMIT_EMPTY);
	ck_assert_uint_eq(uart_get(IIR), IIR_NONE);
}
END_TEST

START_TEST(registers_are_kept)
{
	uart_put(LCR, LCR_DLAB | 3);
	uart_put(DATA, 0x34);
	uart_put(IER, 0x12);
	uart_put(SCRATCH, 0x5a);
	uart_put(FCR, FCR_ENABLE);
	uart_put(MCR, MCR_RTS | MCR_OUT2);
	move_serial();
	ck_assert_uint_eq(uart_get(LCR), LCR_DLAB | 3);
	ck_assert_uint_eq(uart_get(DATA), 0x34);
	ck_assert_uint_eq(uart_get(IER), 0x12);
	ck_assert_uint_eq(uart_get(SCRATCH), 0x5a);
	ck_assert_uint_eq(uart_get(IIR), 0xc0 | IIR_NONE);
	ck_assert_uint_eq(uart_get(MCR), MCR_RTS | MCR_OUT2);
}
END_TEST

START_TEST(looped_byte_is_kept)
{
	uart_put(MCR, MCR_LOOP);
	uart_put(DATA, 'x');
	move_serial();
	ck_assert_uint_eq(uart_get(DATA), 'x');
	ck_assert_uint_eq(uart_get(LSR), LSR_TRANSMIT_EMPTY);
}
END_TEST

START_TEST(input_is_kept_and_interrupts_again)
{
	uart_put(IER, IER_RECEIVED);
	uart_put(MCR, MCR_RTS);
	serial_input("abc");
	ck_assert_uint_eq(uart_get(DATA), 'a');
	move_serial();
	ck_assert(serial_interrupted());
	ck_assert_uint_eq(uart_get(IIR), IIR_RECEIVED);
	ck_assert_uint_eq(uart_get(DATA), 'b');
	ck_assert_uint_eq(uart_get(DATA), 'c');
	ck_assert_uint_eq(uart_get(LSR), LSR_TRANSMIT_EMPTY);
}
END_TEST

/* Of a ring that goes over its end. */
START_TEST(full_input_is_kept)
{
	uint8_t byte = 0;

	uart_put(MCR, MCR_RTS);
	for (unsigned int i = 0; i < 100; i++) {
		serial_input("x");
		(void)uart_get(DATA);
	}
	while (serial_receive(&serial, &byte, 1) == 1)
		byte = (uint8_t)((byte + 1) % 251);
	move_serial();
	ck_assert_uint_eq(serial_service(&serial).input_room, 0);
	for (unsigned int i = 0; i < SERIAL_BUFFER; i++) {
		ck_assert_uint_eq(uart_get(DATA), i % 251);
		/* As before, whoever feeds it hears of the room. */
		ck_assert_uint_eq(serial_notified(), i >= SERIAL_BUFFER / 2 - 1);
	}
}
END_TEST

/* The interrupt was given, and KVM had it still; or the guest was about to ask. */
START_TEST(transmitter_is_never_stuck)
{
	uart_put(IER, IER_TRANSMIT_EMPTY);
	uart_put(DATA, 'x');
	if (_i)
		(void)uart_get(IIR);
	move_serial();
	ck_assert(serial_interrupted());
	ck_assert_uint_eq(uart_get(IIR), IIR_TRANSMIT_EMPTY);
	ck_assert_uint_eq(uart_get(IIR), IIR_NONE);
}
END_TEST

/* What the reader had no room for goes to the new one's output, and then it is empty. */
START_TEST(output_that_was_not_written_is_kept)
{
	size_t sent, waiting;

	uart_put(IER, IER_TRANSMIT_EMPTY);
	sent = uart_transmit_all();
	waiting = sent - serial_output_waiting();
	ck_assert_uint_gt(waiting, SERIAL_BUFFER - SERIAL_BURST);
	move_serial();
	ck_assert(!serial_interrupted());
	ck_assert_uint_eq(uart_get(SCRATCH), 0);
	ck_assert(serial_notified());
	ck_assert(serial_service(&serial).flush);
	(void)serial_flush(&serial);
	ck_assert(serial_interrupted());
	ck_assert_uint_eq(serial_output_waiting(), waiting);
	assert_output_pattern(sent - waiting, waiting);
	ck_assert_uint_eq(uart_get(LSR), LSR_TRANSMIT_EMPTY);
}
END_TEST

START_TEST(mangled_port_is_refused_or_harmless)
{
	const char sentence[] = "serial port: its saved state is cut off, or has a value or a size "
				"that it cannot have";
	size_t size;

	uart_put(MCR, MCR_RTS);
	serial_input("input");
	uart_put(DATA, 'o');
	replace_serial();
	size = saved.size;
	for (saved.size = 0; saved.size < size; saved.size++) {
		ck_assert_int_eq(restore_serial(), -EINVAL);
		ck_assert_str_eq(err.text, sentence);
		ck_assert_uint_eq(uart_get(MCR), MCR_OUT2);
	}
	for (size_t i = 0; i < saved.size * 8; i++) {
		saved.data[i / 8] ^= (uint8_t)(1 << i % 8);
		if (restore_serial() == 0) {
			for (unsigned int reg = 0; reg < SERIAL_PORTS; reg++) {
				uart_put(reg, uart_get(reg));
				(void)uart_get(reg);
			}
			(void)serial_flush(&serial);
			ck_assert_uint_le(serial_service(&serial).input_room, SERIAL_BUFFER);
			(void)serial_receive(&serial, (const uint8_t *)"more", 4);
			serial_tear_down();
			serial_set_up();
		}
		saved.data[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	state_put_u8(&saved, 0);
	ck_assert_int_eq(restore_serial(), -EINVAL);
}
END_TEST

static const struct {
	size_t at;
	uint32_t value;
	unsigned int size;
} hostile[] = {
	{ AT_FIFO_ENABLED, 2, 1 },
	{ AT_INPUT, SERIAL_BUFFER + 1, 4 },
	{ AT_INPUT, UINT32_MAX, 4 },
};

START_TEST(hostile_port_is_refused)
{
	replace_serial();
	for (unsigned int i = 0; i < SERIAL_BUFFER + 1; i++)
		state_put_u8(&saved, 0);
	memcpy(saved.data + hostile[_i].at, &hostile[_i].value, hostile[_i].size);
	ck_assert_int_eq(restore_serial(), -EINVAL);
}
END_TEST

/* Input that comes after a restore has the room that is left. */
START_TEST(console_gives_no_more_than_there_is_room_for)
{
	struct event_base *base = event_base_new();
	struct console console;
	uint8_t byte = 0;
	int input[2];

	uart_put(MCR, MCR_RTS);
	for (unsigned int i = 0; i < SERIAL_BUFFER - 2; i++)
		ck_assert_uint_eq(serial_receive(&serial, &byte, 1), 1);
	replace_serial();
	ck_assert_int_eq(pipe2(input, O_CLOEXEC | O_NONBLOCK), 0);
	ck_assert_int_eq(console_open(&console, base, &serial, input[0], out_write, &err), 0);
	ck_assert_int_eq(write(input[1], "abcd", 4), 4);
	ck_assert_int_eq(restore_serial(), 0);
	for (unsigned int i = 0; i < 5; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
	for (unsigned int i = 0; i < SERIAL_BUFFER - 2; i++)
		(void)uart_get(DATA);
	ck_assert_uint_eq(uart_get(DATA), 'a');
	ck_assert_uint_eq(uart_get(DATA), 'b');
	for (unsigned int i = 0; i < 5; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
	ck_assert_uint_eq(uart_get(DATA), 'c');
	ck_assert_uint_eq(uart_get(DATA), 'd');
	console_close(&console);
	close(input[0]);
	close(input[1]);
	event_base_free(base);
}
END_TEST

static void keyboard_put(uint64_t reg, uint8_t value)
{
	i8042_ops.write(&i8042, reg, &value, 1);
}

static uint8_t keyboard_get(uint64_t reg)
{
	uint8_t value;

	i8042_ops.read(&i8042, reg, &value, 1);
	return value;
}

static void replace_i8042(void)
{
	i8042_save(&i8042, &saved);
	i8042_close(&i8042);
	memset(&i8042, 0, sizeof(i8042));
	ck_assert_int_eq(i8042_open(&i8042, &err), 0);
}

static void move_i8042(void)
{
	replace_i8042();
	ck_assert_msg(restore_i8042() == 0, "%s", err.text);
}

START_TEST(keyboard_that_nobody_has_touched)
{
	move_i8042();
	ck_assert_uint_eq(take_eventfd(i8042.irq_fd), 0);
	keyboard_put(KEYBOARD_COMMAND, 0x20);
	ck_assert_uint_eq(keyboard_get(KEYBOARD_DATA), 0x04);
}
END_TEST

START_TEST(keys_are_kept_and_interrupt_again)
{
	keyboard_put(KEYBOARD_COMMAND, 0x60);
	keyboard_put(KEYBOARD_DATA, KEYBOARD_INTERRUPT);
	/* So that the output goes over its buffer's end. */
	for (unsigned int i = 0; i < I8042_OUTPUT - 2; i++) {
		keyboard_put(KEYBOARD_DATA, 0);
		(void)keyboard_get(KEYBOARD_DATA);
	}
	ck_assert_int_eq(i8042_ctrl_alt_del(&i8042), 0);
	ck_assert_uint_eq(keyboard_get(KEYBOARD_DATA), 0x14);
	move_i8042();
	ck_assert_uint_eq(take_eventfd(i8042.irq_fd), 1);
	ck_assert_uint_eq(keyboard_get(KEYBOARD_DATA), 0x11);
	ck_assert_uint_eq(take_eventfd(i8042.irq_fd), 1);
	ck_assert_uint_eq(keyboard_get(KEYBOARD_DATA), 0xe0);
	ck_assert_uint_eq(keyboard_get(KEYBOARD_DATA), 0x71);
	ck_assert_uint_eq(keyboard_get(KEYBOARD_COMMAND), 0);
}
END_TEST

START_TEST(command_that_waits_for_its_byte)
{
	keyboard_put(KEYBOARD_DATA, 1);
	(void)keyboard_get(KEYBOARD_DATA);
	keyboard_put(KEYBOARD_COMMAND, 0x60);
	move_i8042();
	ck_assert_uint_eq(keyboard_get(KEYBOARD_DATA), 0xfa); /* the last one */
	keyboard_put(KEYBOARD_DATA, 0x45);
	keyboard_put(KEYBOARD_COMMAND, 0x20);
	ck_assert_uint_eq(keyboard_get(KEYBOARD_DATA), 0x45);
}
END_TEST

START_TEST(hostile_keyboard_is_refused)
{
	size_t size;

	keyboard_put(KEYBOARD_DATA, 1);
	replace_i8042();
	size = saved.size;
	for (saved.size = 0; saved.size < size; saved.size++) {
		ck_assert_int_eq(restore_i8042(), -EINVAL);
		assert_contains(err.text, "keyboard controller: its saved state is cut off");
	}
	saved.data[1] = 0x61;
	ck_assert_int_eq(restore_i8042(), -EINVAL);
	ck_assert_str_eq(err.text, "keyboard controller: saved command 0x61");
	saved.data[1] = 0;
	state_put_u8(&saved, 0);
	ck_assert_int_eq(restore_i8042(), -EINVAL);
	/* More than it has room for, whether they are there or not. */
	saved.data[3] = I8042_OUTPUT + 1;
	saved.size = 7;
	ck_assert_int_eq(restore_i8042(), -EINVAL);
	for (unsigned int i = 0; i < I8042_OUTPUT + 1; i++)
		state_put_u8(&saved, 0);
	ck_assert_int_eq(restore_i8042(), -EINVAL);
	ck_assert_uint_eq(keyboard_get(KEYBOARD_COMMAND), 0);
}
END_TEST

static void print(const char *text)
{
	for (; *text; text++)
		console_ring_put(&ring, (uint8_t)*text);
}

static void expect_output(const char *expected)
{
	uint64_t seen = 0;
	size_t len = 0;
	char *text = console_ring_read(&ring, &seen, &len);

	ck_assert_uint_eq(len, strlen(expected));
	ck_assert_mem_eq(text ? text : "", expected, len);
	free(text);
}

static const struct {
	const char *printed, *kept;
} outputs[] = {
	{ "", "" }, { "abc", "abc" }, { "abcdefgh", "abcdefgh" }, { "abcdefghijk", "defghijk" }
};

START_TEST(console_output_is_kept)
{
	print(outputs[_i].printed);
	console_ring_save(&ring, &saved);
	console_ring_close(&ring);
	ck_assert_int_eq(console_ring_open(&ring, 10, &err), 0);
	ck_assert_int_eq(restore_ring(), 0);
	expect_output(outputs[_i].kept);
	print("XYZ");
	ck_assert_uint_eq(ring.written, strlen(outputs[_i].kept) + 3);
}
END_TEST

START_TEST(hostile_console_output_is_refused)
{
	print("abcdef");
	console_ring_save(&ring, &saved);
	console_ring_close(&ring);
	ck_assert_int_eq(console_ring_open(&ring, 5, &err), 0);
	ck_assert_int_eq(restore_ring(), -EINVAL);
	ck_assert_str_eq(err.text, "console buffer: has 5 bytes, and 6 are saved");
	saved.data[0] = 5;
	ck_assert_int_eq(restore_ring(), -EINVAL);
	saved.size -= 2;
	ck_assert_int_eq(restore_ring(), -EINVAL);
	ck_assert_str_eq(err.text,
			 "console buffer: its saved state is cut off, or has another size");
	saved.size = 2;
	ck_assert_int_eq(restore_ring(), -EINVAL);
	expect_output("");
}
END_TEST

Suite *platform_state_suite(void)
{
	Suite *suite = SUITE(
		"platform_state", set_up, tear_down, port_that_nobody_has_touched,
		registers_are_kept, looped_byte_is_kept, input_is_kept_and_interrupts_again,
		full_input_is_kept, output_that_was_not_written_is_kept,
		mangled_port_is_refused_or_harmless, console_gives_no_more_than_there_is_room_for,
		keyboard_that_nobody_has_touched, keys_are_kept_and_interrupt_again,
		command_that_waits_for_its_byte, hostile_keyboard_is_refused,
		hostile_console_output_is_refused);

	add_table_test(suite, set_up, tear_down, transmitter_is_never_stuck, 2);
	add_table_test(suite, set_up, tear_down, hostile_port_is_refused, ARRAY_SIZE(hostile));
	add_table_test(suite, set_up, tear_down, console_output_is_kept, ARRAY_SIZE(outputs));
	return suite;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The serial port's registers, interrupts and input. */
#include <unistd.h>

#include "base/array.h"
#include "tests/unit/serial_fixture.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

START_TEST(received_bytes_are_read_in_order)
{
	serial_input("ab");
	ck_assert_uint_eq(uart_get(DATA), 'a');
	ck_assert_uint_eq(uart_get(DATA), 'b');
}
END_TEST

START_TEST(reading_without_data_gives_zero)
{
	ck_assert_uint_eq(uart_get(DATA), 0);
}
END_TEST

START_TEST(line_status_tells_of_data_and_empty_transmitter)
{
	ck_assert_uint_eq(uart_get(LSR), LSR_TRANSMIT_EMPTY);
	serial_input("a");
	ck_assert_uint_eq(uart_get(LSR), LSR_TRANSMIT_EMPTY | LSR_DATA_READY);
	uart_get(DATA);
	ck_assert_uint_eq(uart_get(LSR), LSR_TRANSMIT_EMPTY);
}
END_TEST

START_TEST(no_interrupt_unless_enabled)
{
	serial_input("a");
	uart_put(DATA, 'x');
	ck_assert_uint_eq(uart_get(IIR), IIR_NONE);
	ck_assert(!serial_interrupted());
}
END_TEST

START_TEST(received_data_interrupts)
{
	uart_put(IER, IER_RECEIVED);
	ck_assert(!serial_interrupted());
	serial_input("a");
	ck_assert(serial_interrupted());
	ck_assert_uint_eq(uart_get(IIR), IIR_RECEIVED);
}
END_TEST

START_TEST(received_data_interrupt_ends_with_the_data)
{
	uart_put(IER, IER_RECEIVED);
	serial_input("ab");
	uart_get(DATA);
	ck_assert_uint_eq(uart_get(IIR), IIR_RECEIVED);
	uart_get(DATA);
	ck_assert_uint_eq(uart_get(IIR), IIR_NONE);
}
END_TEST

START_TEST(enabling_the_received_interrupt_raises_it_for_waiting_data)
{
	serial_input("a");
	uart_put(IER, IER_RECEIVED);
	ck_assert(serial_interrupted());
}
END_TEST

START_TEST(enabling_the_transmit_interrupt_raises_it_at_once)
{
	uart_put(IER, IER_TRANSMIT_EMPTY);
	ck_assert(serial_interrupted());
	ck_assert_uint_eq(uart_get(IIR), IIR_TRANSMIT_EMPTY);
}
END_TEST

START_TEST(reading_the_identity_clears_the_transmit_interrupt)
{
	uart_put(IER, IER_TRANSMIT_EMPTY);
	uart_get(IIR);
	ck_assert_uint_eq(uart_get(IIR), IIR_NONE);
}
END_TEST

START_TEST(each_byte_sent_interrupts_again)
{
	uart_put(IER, IER_TRANSMIT_EMPTY);
	uart_get(IIR);
	serial_interrupted();
	uart_put(DATA, 'x');
	ck_assert(serial_interrupted());
	ck_assert_uint_eq(uart_get(IIR), IIR_TRANSMIT_EMPTY);
}
END_TEST

START_TEST(setting_the_same_enable_bits_raises_nothing_new)
{
	uart_put(IER, IER_TRANSMIT_EMPTY);
	uart_get(IIR);
	serial_interrupted();
	uart_put(IER, IER_TRANSMIT_EMPTY);
	ck_assert(!serial_interrupted());
	ck_assert_uint_eq(uart_get(IIR), IIR_NONE);
}
END_TEST

START_TEST(received_data_comes_before_the_transmitter)
{
	uart_put(IER, IER_RECEIVED | IER_TRANSMIT_EMPTY);
	serial_input("a");
	ck_assert_uint_eq(uart_get(IIR), IIR_RECEIVED);
	ck_assert_uint_eq(uart_get(IIR), IIR_RECEIVED);
	uart_get(DATA);
	ck_assert_uint_eq(uart_get(IIR), IIR_TRANSMIT_EMPTY);
}
END_TEST

START_TEST(identity_shows_enabled_fifos)
{
	uart_put(FCR, FCR_ENABLE);
	ck_assert_uint_eq(uart_get(IIR), 0xc0 | IIR_NONE);
	uart_put(FCR, 0);
	ck_assert_uint_eq(uart_get(IIR), IIR_NONE);
}
END_TEST

/* The steps by which Linux's 8250 driver decides that this is a 16550A. */
START_TEST(linux_finds_a_16550a)
{
	uart_put(IER, 0);
	ck_assert_uint_eq(uart_get(IER), 0);
	uart_put(IER, 0x0f);
	ck_assert_uint_eq(uart_get(IER), 0x0f);
	uart_put(IER, 0);
	uart_put(MCR, MCR_LOOP | MCR_OUT2 | MCR_RTS);
	ck_assert_uint_eq(uart_get(MSR) & 0xf0, 0x90);
	uart_put(MCR, 0);
	uart_put(LCR, 0);
	uart_put(FCR, FCR_ENABLE);
	ck_assert_uint_eq(uart_get(IIR) >> 6, 3);
	uart_put(SCRATCH, 0xa5);
	ck_assert_uint_eq(uart_get(SCRATCH), 0xa5);
	/* No enhanced registers, no 64-byte FIFO, no XScale's UART unit enable. */
	uart_put(LCR, LCR_DLAB | 0x3f);
	ck_assert_uint_ne(uart_get(IIR), 0);
	uart_put(LCR, 0);
	uart_put(FCR, 0x21);
	ck_assert_uint_eq(uart_get(IIR) & 0x20, 0);
	uart_put(IER, 0x40);
	ck_assert_uint_eq(uart_get(IER) & 0x40, 0);
}
END_TEST

static const struct {
	uint8_t control, status;
} loops[] = {
	{ 0, 0 }, { 0x01, 0x20 }, { 0x02, 0x10 }, { 0x04, 0x40 }, { 0x08, 0x80 }, { 0x0f, 0xf0 },
};

START_TEST(loopback_turns_control_into_status)
{
	uart_put(MCR, MCR_LOOP | loops[_i].control);
	ck_assert_uint_eq(uart_get(MSR), loops[_i].status);
}
END_TEST

START_TEST(without_loopback_the_other_end_is_ready)
{
	uart_put(MCR, 0);
	ck_assert_uint_eq(uart_get(MSR), 0xb0);
}
END_TEST

START_TEST(loopback_receives_what_is_sent)
{
	uart_put(MCR, MCR_LOOP);
	uart_put(DATA, 'x');
	ck_assert(uart_get(LSR) & LSR_DATA_READY);
	ck_assert_uint_eq(uart_get(DATA), 'x');
}
END_TEST

START_TEST(loopback_keeps_the_output_out_of_it)
{
	char byte;

	uart_put(MCR, MCR_LOOP);
	uart_put(DATA, 'x');
	uart_put(MCR, 0);
	uart_put(DATA, 'y');
	uart_get(LSR);
	read_all(out_read, &byte, 1);
	ck_assert_int_eq(byte, 'y');
}
END_TEST

START_TEST(divisor_latch_hides_data_and_interrupt_enable)
{
	uart_put(IER, IER_RECEIVED);
	serial_input("a");
	uart_put(LCR, LCR_DLAB | 3);
	uart_put(DATA, 0x34);
	uart_put(IER, 0x12);
	ck_assert_uint_eq(uart_get(DATA), 0x34);
	ck_assert_uint_eq(uart_get(IER), 0x12);
	uart_put(LCR, 3);
	ck_assert_uint_eq(uart_get(IER), IER_RECEIVED);
	ck_assert_uint_eq(uart_get(DATA), 'a');
}
END_TEST

START_TEST(clearing_the_receive_fifo_drops_the_input)
{
	serial_input("abc");
	uart_put(FCR, FCR_ENABLE | FCR_CLEAR_RECEIVE);
	ck_assert_uint_eq(uart_get(LSR) & LSR_DATA_READY, 0);
	serial_input("d");
	ck_assert_uint_eq(uart_get(DATA), 'd');
}
END_TEST

/* Linux clears the FIFOs when the port is opened; who feeds it must learn of the room. */
START_TEST(clearing_a_full_receive_fifo_asks_for_more)
{
	serial_input_all();
	serial_service(&serial);
	uart_put(FCR, FCR_ENABLE | FCR_CLEAR_RECEIVE);
	ck_assert(serial_notified());
	ck_assert_uint_eq(serial_service(&serial).input_room, SERIAL_BUFFER);
}
END_TEST

START_TEST(without_rts_input_waits)
{
	uart_put(IER, IER_RECEIVED);
	uart_put(MCR, MCR_OUT2);
	serial_input("a");
	ck_assert(!serial_interrupted());
	ck_assert_uint_eq(uart_get(LSR) & LSR_DATA_READY, 0);
	ck_assert_uint_eq(uart_get(DATA), 0);
	uart_put(MCR, MCR_OUT2 | MCR_RTS);
	ck_assert(serial_interrupted());
	ck_assert_uint_eq(uart_get(DATA), 'a');
}
END_TEST

START_TEST(input_is_taken_until_the_buffer_is_full)
{
	serial_input_all();
	ck_assert_uint_eq(serial_receive(&serial, (const uint8_t *)"x", 1), 0);
	ck_assert_uint_eq(serial_service(&serial).input_room, 0);
}
END_TEST

START_TEST(half_empty_input_asks_for_more)
{
	serial_input_all();
	for (unsigned int i = 0; i < SERIAL_BUFFER / 2 - 1; i++)
		uart_get(DATA);
	ck_assert(!serial_notified());
	uart_get(DATA);
	ck_assert(serial_notified());
	ck_assert_uint_eq(serial_service(&serial).input_room, SERIAL_BUFFER / 2);
	ck_assert(!serial_notified());
}
END_TEST

START_TEST(input_beyond_the_buffer_arrives_in_order)
{
	uint8_t data[3 * SERIAL_BUFFER];
	size_t given = 0;

	fill_pattern(data, sizeof(data));
	for (size_t i = 0; i < sizeof(data); i++) {
		if (serial_service(&serial).input_room > 0)
			given += serial_receive(&serial, data + given, sizeof(data) - given);
		ck_assert_uint_eq(uart_get(DATA), data[i]);
	}
}
END_TEST

START_TEST(wide_write_is_one_to_consecutive_ports)
{
	const uint8_t data[2] = { 3, MCR_RTS };

	serial_ops.write(&serial, LCR, data, 2);
	ck_assert_uint_eq(uart_get(LCR), 3);
	ck_assert_uint_eq(uart_get(MCR), MCR_RTS);
}
END_TEST

START_TEST(wide_read_is_one_of_consecutive_ports)
{
	uint8_t data[4];

	uart_put(SCRATCH, 0x77);
	serial_ops.read(&serial, MCR, data, 4);
	ck_assert_uint_eq(data[0], MCR_RTS | MCR_OUT2);
	ck_assert_uint_eq(data[1], LSR_TRANSMIT_EMPTY);
	ck_assert_uint_eq(data[3], 0x77);
}
END_TEST

static void tap_byte(void *opaque, uint8_t byte)
{
	strncat(opaque, (char[]){ (char)byte, '\0' }, 7);
}

START_TEST(tap_sees_what_is_transmitted)
{
	char seen[16] = "";

	serial.tap = tap_byte;
	serial.tap_opaque = seen;
	uart_put(DATA, 'h');
	uart_put(DATA, 'i');
	uart_put(MCR, MCR_LOOP);
	uart_put(DATA, 'x');
	ck_assert_str_eq(seen, "hi");
}
END_TEST

START_TEST(close_may_be_repeated)
{
	unsigned int fds = count_open_fds();

	serial_close(&serial);
	serial_close(&serial);
	ck_assert_uint_eq(count_open_fds(), fds - 2);
}
END_TEST

Suite *serial_suite(void)
{
	Suite *suite = SUITE(
		"serial", serial_set_up_receiving, serial_tear_down,
		received_bytes_are_read_in_order, reading_without_data_gives_zero,
		line_status_tells_of_data_and_empty_transmitter, no_interrupt_unless_enabled,
		received_data_interrupts, received_data_interrupt_ends_with_the_data,
		enabling_the_received_interrupt_raises_it_for_waiting_data,
		enabling_the_transmit_interrupt_raises_it_at_once,
		reading_the_identity_clears_the_transmit_interrupt, each_byte_sent_interrupts_again,
		setting_the_same_enable_bits_raises_nothing_new,
		received_data_comes_before_the_transmitter, identity_shows_enabled_fifos,
		linux_finds_a_16550a, without_loopback_the_other_end_is_ready,
		loopback_receives_what_is_sent, loopback_keeps_the_output_out_of_it,
		divisor_latch_hides_data_and_interrupt_enable,
		clearing_the_receive_fifo_drops_the_input,
		clearing_a_full_receive_fifo_asks_for_more, without_rts_input_waits,
		input_is_taken_until_the_buffer_is_full, half_empty_input_asks_for_more,
		input_beyond_the_buffer_arrives_in_order, wide_write_is_one_to_consecutive_ports,
		wide_read_is_one_of_consecutive_ports, tap_sees_what_is_transmitted,
		close_may_be_repeated);

	add_table_test(suite, serial_set_up, serial_tear_down, loopback_turns_control_into_status,
		       ARRAY_SIZE(loops));
	return suite;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The serial port's transmitter, and what it does when nobody reads. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/log.h"
#include "tests/unit/serial_fixture.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

START_TEST(looking_at_the_status_sends_what_waits)
{
	uart_put_pattern(0, 3);
	ck_assert_uint_eq(serial_output_waiting(), 0);
	uart_get(LSR);
	assert_output_pattern(0, 3);
}
END_TEST

START_TEST(looking_for_interrupts_sends_what_waits)
{
	uart_put_pattern(0, 3);
	uart_get(IIR);
	assert_output_pattern(0, 3);
}
END_TEST

START_TEST(enabling_interrupts_sends_what_waits)
{
	uart_put_pattern(0, 3);
	uart_put(IER, IER_TRANSMIT_EMPTY);
	assert_output_pattern(0, 3);
}
END_TEST

START_TEST(burst_is_sent_at_once)
{
	uart_put_pattern(0, SERIAL_BURST);
	assert_output_pattern(0, SERIAL_BURST);
}
END_TEST

START_TEST(bytes_that_wait_are_flushed_in_time)
{
	uart_put_pattern(0, 3);
	ck_assert_uint_eq(take_eventfd(serial.notify_fd), 1);
	ck_assert(serial_service(&serial).flush);
	ck_assert(!serial_flush(&serial).flush);
	assert_output_pattern(0, 3);
}
END_TEST

START_TEST(next_byte_after_a_flush_asks_for_another)
{
	uart_put_pattern(0, 1);
	serial_service(&serial);
	serial_flush(&serial);
	uart_put_pattern(1, 1);
	ck_assert(serial_notified());
	ck_assert(serial_service(&serial).flush);
}
END_TEST

START_TEST(slow_reader_keeps_the_transmitter_busy)
{
	size_t sent = uart_transmit_all();

	ck_assert_uint_eq(sent - serial_output_waiting(), SERIAL_BUFFER - SERIAL_BURST + 1);
	ck_assert(serial_notified());
	ck_assert(serial_service(&serial).output);
}
END_TEST

START_TEST(empty_transmitter_takes_a_whole_burst)
{
	size_t sent = 0;

	while (uart_get(LSR) & LSR_TRANSMIT_EMPTY) {
		uart_put_pattern(sent, SERIAL_BURST);
		sent += SERIAL_BURST;
	}
	for (size_t got = 0; got < sent; serial_flush(&serial)) {
		size_t size = serial_output_waiting();

		ck_assert_uint_gt(size, 0);
		assert_output_pattern(got, size);
		got += size;
	}
}
END_TEST

START_TEST(busy_transmitter_withholds_its_interrupt)
{
	uart_transmit_all();
	uart_put(IER, IER_TRANSMIT_EMPTY);
	ck_assert(!serial_interrupted());
	ck_assert_uint_eq(uart_get(IIR), IIR_NONE);
}
END_TEST

START_TEST(full_transmitter_drops_what_is_forced_on_it)
{
	size_t sent = uart_transmit_all();
	size_t passed = serial_output_waiting();

	uart_put_pattern(sent, SERIAL_BURST - 1);
	sent += SERIAL_BURST - 1;
	ck_assert_uint_eq(serial.metrics.missed_write_count, 0);
	uart_put(DATA, 0xff);
	ck_assert_uint_eq(serial.metrics.missed_write_count, 1);
	ck_assert_uint_gt(serial.metrics.write_count, sent);
	ck_assert_uint_gt(serial.metrics.flush_count, 0);
	ck_assert_uint_eq(serial.metrics.error_count, 0);
	assert_output_pattern(0, passed);
	ck_assert(!serial_flush(&serial).output);
	assert_output_pattern(passed, sent - passed);
	ck_assert_uint_eq(serial_output_waiting(), 0);
}
END_TEST

START_TEST(drained_output_interrupts)
{
	uart_transmit_all();
	uart_put(IER, IER_TRANSMIT_EMPTY);
	assert_output_pattern(0, serial_output_waiting());
	serial_flush(&serial);
	ck_assert(serial_interrupted());
	ck_assert_uint_eq(uart_get(IIR), IIR_TRANSMIT_EMPTY);
	ck_assert_uint_eq(uart_get(LSR) & LSR_TRANSMIT_EMPTY, LSR_TRANSMIT_EMPTY);
}
END_TEST

START_TEST(flush_that_writes_nothing_raises_nothing)
{
	uart_transmit_all();
	uart_put(IER, IER_TRANSMIT_EMPTY);
	ck_assert(serial_flush(&serial).output);
	ck_assert(!serial_interrupted());
}
END_TEST

struct guest {
	size_t size;
	atomic_bool done;
};

static void *transmit_as_linux_does(void *opaque)
{
	struct guest *guest = opaque;

	for (size_t i = 0; i < guest->size; i++) {
		while (!(uart_get(LSR) & LSR_TRANSMIT_EMPTY))
			;
		uart_put(DATA, (uint8_t)(i % 251));
	}
	atomic_store(&guest->done, true);
	return NULL;
}

START_TEST(every_byte_arrives_in_order_from_another_thread)
{
	struct guest guest = { .size = 5 * (PIPE_SIZE + SERIAL_BUFFER) + 17 };
	size_t got = 0;
	pthread_t thread;

	ck_assert_int_eq(fcntl(out_read, F_SETFL, O_NONBLOCK), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, transmit_as_linux_does, &guest), 0);
	while (got < guest.size) {
		uint8_t data[1000];
		ssize_t n = read(out_read, data, sizeof(data));

		for (ssize_t i = 0; i < n; i++)
			ck_assert_uint_eq(data[i], got++ % 251);
		serial_flush(&serial);
	}
	pthread_join(thread, NULL);
	ck_assert(atomic_load(&guest.done));
}
END_TEST

static void count_byte(void *opaque, uint8_t byte)
{
	(void)byte;
	++*(size_t *)opaque;
}

START_TEST(reader_that_is_given_up_stalls_nobody)
{
	size_t seen = 0, sent, passed;

	serial.tap = count_byte;
	serial.tap_opaque = &seen;
	sent = uart_transmit_all();
	passed = serial_output_waiting();
	uart_put(IER, IER_TRANSMIT_EMPTY);
	ck_assert(!serial_interrupted());
	ck_assert(serial_give_up(&serial).given_up);
	ck_assert(serial_interrupted());
	for (size_t i = 0; i < 3 * (size_t)SERIAL_BUFFER; i++) {
		ck_assert_uint_eq(uart_get(LSR) & LSR_TRANSMIT_EMPTY, LSR_TRANSMIT_EMPTY);
		uart_put_pattern(sent + i, 1);
	}
	/* What came last is lost, and counted; others have seen it. */
	ck_assert_uint_eq(seen, sent + 3 * SERIAL_BUFFER);
	ck_assert_uint_eq(serial.metrics.missed_write_count,
			  sent - passed + 3 * SERIAL_BUFFER - SERIAL_BUFFER);
	/* It takes something: all that still waits, and it is waited for again. */
	assert_output_pattern(0, passed);
	ck_assert(!serial_flush(&serial).given_up);
	assert_output_pattern(passed, SERIAL_BUFFER);
	(void)uart_transmit_all();
	ck_assert_uint_eq(uart_get(LSR) & LSR_TRANSMIT_EMPTY, 0);
}
END_TEST

START_TEST(reader_that_takes_is_not_given_up)
{
	uart_put_pattern(0, 3);
	ck_assert(!serial_give_up(&serial).given_up);
}
END_TEST

START_TEST(drain_does_not_wait_for_a_reader_that_was_given_up)
{
	uart_transmit_all();
	ck_assert(serial_give_up(&serial).given_up);
	serial_drain(&serial, -1);
}
END_TEST

START_TEST(drain_writes_what_is_left)
{
	size_t sent = uart_transmit_all();
	size_t passed = serial_output_waiting();

	assert_output_pattern(0, passed);
	serial_drain(&serial, 1000);
	assert_output_pattern(passed, sent - passed);
}
END_TEST

START_TEST(drain_gives_up_on_a_reader_that_sleeps)
{
	uart_transmit_all();
	serial_drain(&serial, 1);
}
END_TEST

START_TEST(output_is_discarded_once_the_reader_has_gone)
{
	log_set_level(LOG_ERROR);
	fd_close(&out_read);
	for (int i = 0; i < 3 * SERIAL_BUFFER; i++) {
		ck_assert(uart_get(LSR) & LSR_TRANSMIT_EMPTY);
		uart_put(DATA, 'x');
	}
	ck_assert(!serial_flush(&serial).output);
}
END_TEST

START_TEST(reader_that_goes_while_output_waits_frees_the_transmitter)
{
	log_set_level(LOG_ERROR);
	uart_transmit_all();
	uart_put(IER, IER_TRANSMIT_EMPTY);
	fd_close(&out_read);
	ck_assert(!serial_flush(&serial).output);
	ck_assert(serial_interrupted());
	ck_assert(uart_get(LSR) & LSR_TRANSMIT_EMPTY);
}
END_TEST

START_TEST(port_without_output_discards)
{
	struct err err;

	serial_close(&serial);
	ck_assert_int_eq(serial_open(&serial, -1, &err), 0);
	for (int i = 0; i < 2 * SERIAL_BUFFER; i++)
		uart_put(DATA, 'x');
	ck_assert(uart_get(LSR) & LSR_TRANSMIT_EMPTY);
}
END_TEST

Suite *serial_output_suite(void)
{
	return SUITE(
		"serial_output", serial_set_up_receiving, serial_tear_down,
		looking_at_the_status_sends_what_waits, looking_for_interrupts_sends_what_waits,
		enabling_interrupts_sends_what_waits, burst_is_sent_at_once,
		bytes_that_wait_are_flushed_in_time, next_byte_after_a_flush_asks_for_another,
		slow_reader_keeps_the_transmitter_busy, busy_transmitter_withholds_its_interrupt,
		empty_transmitter_takes_a_whole_burst, full_transmitter_drops_what_is_forced_on_it,
		drained_output_interrupts, flush_that_writes_nothing_raises_nothing,
		every_byte_arrives_in_order_from_another_thread, drain_writes_what_is_left,
		drain_gives_up_on_a_reader_that_sleeps, reader_that_is_given_up_stalls_nobody,
		reader_that_takes_is_not_given_up,
		drain_does_not_wait_for_a_reader_that_was_given_up,
		output_is_discarded_once_the_reader_has_gone,
		reader_that_goes_while_output_waits_frees_the_transmitter,
		port_without_output_discards);
}

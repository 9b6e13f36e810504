/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/platform/serial.h"

#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/log.h"
#include "rootfs-tools/init/protocol.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "vmm/boot/layout.h"

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCRATCH, FCR = IIR };

#define IER_RECEIVED 0x01
#define IER_TRANSMIT_EMPTY 0x02
#define IIR_NONE 0x01
#define IIR_TRANSMIT_EMPTY 0x02
#define IIR_RECEIVED 0x04
#define FCR_ENABLE 0x01
#define FCR_CLEAR_RECEIVE 0x02
#define LCR_DLAB 0x80
#define MCR_RTS 0x02
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10
#define LSR_DATA_READY 0x01
#define LSR_TRANSMIT_EMPTY 0x60

/* Of two pages, so that it is full soon. */
#define PIPE_SIZE 8192

static struct serial serial;
static struct err err;
static int out_read = -1;
static int out_write = -1;

static void set_up(void)
{
	int ends[2];

	ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
	out_read = ends[0];
	out_write = ends[1];
	ck_assert_int_eq(fcntl(out_write, F_SETPIPE_SZ, PIPE_SIZE), PIPE_SIZE);
	ck_assert_int_eq(serial_open(&serial, out_write, &err), 0);
}

static void tear_down(void)
{
	serial_close(&serial);
	fd_close(&out_read);
	fd_close(&out_write);
}

static void put(uint64_t reg, uint8_t value)
{
	serial_ops.write(&serial, reg, &value, 1);
}

static uint8_t get(uint64_t reg)
{
	uint8_t value;

	serial_ops.read(&serial, reg, &value, 1);
	return value;
}

static void set_up_receiving(void)
{
	set_up();
	put(MCR, MCR_RTS | MCR_OUT2);
}

static bool interrupted(void)
{
	return take_eventfd(serial.irq_fd) != 0;
}

static bool notified(void)
{
	struct pollfd readable = { .fd = serial.notify_fd, .events = POLLIN };

	return poll(&readable, 1, 0) == 1;
}

static void receive(const char *text)
{
	ck_assert_uint_eq(serial_receive(&serial, (const uint8_t *)text, strlen(text)),
			  strlen(text));
}

/* Input until there is no room. */
static void receive_all(void)
{
	static uint8_t data[SERIAL_BUFFER];

	fill_pattern(data, sizeof(data));
	ck_assert_uint_eq(serial_receive(&serial, data, sizeof(data)), sizeof(data));
}

static void put_pattern(size_t from, size_t size)
{
	for (size_t i = from; i < from + size; i++)
		put(DATA, (uint8_t)(i % 251));
}

/* Output, of a pattern, until the transmitter is busy; how much that was. */
static size_t transmit_all(void)
{
	size_t sent = 0;

	while (get(LSR) & LSR_TRANSMIT_EMPTY)
		put_pattern(sent++, 1);
	return sent;
}

static size_t output_waiting(void)
{
	int size;

	ck_assert_int_eq(ioctl(out_read, FIONREAD, &size), 0);
	return (size_t)size;
}

static void assert_output_pattern(size_t from, size_t size)
{
	for (size_t i = from; i < from + size; i++) {
		uint8_t byte;

		read_all(out_read, &byte, 1);
		ck_assert_uint_eq(byte, i % 251);
	}
}

START_TEST(looking_at_the_status_sends_what_waits)
{
	put_pattern(0, 3);
	ck_assert_uint_eq(output_waiting(), 0);
	get(LSR);
	assert_output_pattern(0, 3);
}
END_TEST

START_TEST(looking_for_interrupts_sends_what_waits)
{
	put_pattern(0, 3);
	get(IIR);
	assert_output_pattern(0, 3);
}
END_TEST

START_TEST(enabling_interrupts_sends_what_waits)
{
	put_pattern(0, 3);
	put(IER, IER_TRANSMIT_EMPTY);
	assert_output_pattern(0, 3);
}
END_TEST

START_TEST(burst_is_sent_at_once)
{
	put_pattern(0, SERIAL_BURST);
	assert_output_pattern(0, SERIAL_BURST);
}
END_TEST

START_TEST(bytes_that_wait_are_flushed_in_time)
{
	put_pattern(0, 3);
	ck_assert_uint_eq(take_eventfd(serial.notify_fd), 1);
	ck_assert(serial_service(&serial).flush);
	ck_assert(!serial_flush(&serial).flush);
	assert_output_pattern(0, 3);
}
END_TEST

START_TEST(next_byte_after_a_flush_asks_for_another)
{
	put_pattern(0, 1);
	serial_service(&serial);
	serial_flush(&serial);
	put_pattern(1, 1);
	ck_assert(notified());
	ck_assert(serial_service(&serial).flush);
}
END_TEST

START_TEST(agent_and_port_agree_about_bursts)
{
	ck_assert_uint_eq(PROTOCOL_SERIAL_BURST, SERIAL_BURST);
	ck_assert_uint_eq(PROTOCOL_SERIAL_BURST_PORT, LAYOUT_PORT_SERIAL_BURST);
}
END_TEST

START_TEST(burst_port_transmits_whatever_the_divisor_latch)
{
	put(LCR, LCR_DLAB);
	serial_burst_ops.write(&serial, 0, (const uint8_t[]){ 0 }, 1);
	serial_burst_ops.write(&serial, 0, (const uint8_t[]){ 1 }, 1);
	get(LSR);
	assert_output_pattern(0, 2);
}
END_TEST

START_TEST(burst_port_tells_that_it_is_there)
{
	uint8_t byte = 0;

	serial_burst_ops.read(&serial, 0, &byte, 1);
	ck_assert_uint_eq(byte, SERIAL_BURST_MAGIC);
}
END_TEST

START_TEST(received_bytes_are_read_in_order)
{
	receive("ab");
	ck_assert_uint_eq(get(DATA), 'a');
	ck_assert_uint_eq(get(DATA), 'b');
}
END_TEST

START_TEST(reading_without_data_gives_zero)
{
	ck_assert_uint_eq(get(DATA), 0);
}
END_TEST

START_TEST(line_status_tells_of_data_and_empty_transmitter)
{
	ck_assert_uint_eq(get(LSR), LSR_TRANSMIT_EMPTY);
	receive("a");
	ck_assert_uint_eq(get(LSR), LSR_TRANSMIT_EMPTY | LSR_DATA_READY);
	get(DATA);
	ck_assert_uint_eq(get(LSR), LSR_TRANSMIT_EMPTY);
}
END_TEST

START_TEST(no_interrupt_unless_enabled)
{
	receive("a");
	put(DATA, 'x');
	ck_assert_uint_eq(get(IIR), IIR_NONE);
	ck_assert(!interrupted());
}
END_TEST

START_TEST(received_data_interrupts)
{
	put(IER, IER_RECEIVED);
	ck_assert(!interrupted());
	receive("a");
	ck_assert(interrupted());
	ck_assert_uint_eq(get(IIR), IIR_RECEIVED);
}
END_TEST

START_TEST(received_data_interrupt_ends_with_the_data)
{
	put(IER, IER_RECEIVED);
	receive("ab");
	get(DATA);
	ck_assert_uint_eq(get(IIR), IIR_RECEIVED);
	get(DATA);
	ck_assert_uint_eq(get(IIR), IIR_NONE);
}
END_TEST

START_TEST(enabling_the_received_interrupt_raises_it_for_waiting_data)
{
	receive("a");
	put(IER, IER_RECEIVED);
	ck_assert(interrupted());
}
END_TEST

START_TEST(enabling_the_transmit_interrupt_raises_it_at_once)
{
	put(IER, IER_TRANSMIT_EMPTY);
	ck_assert(interrupted());
	ck_assert_uint_eq(get(IIR), IIR_TRANSMIT_EMPTY);
}
END_TEST

START_TEST(reading_the_identity_clears_the_transmit_interrupt)
{
	put(IER, IER_TRANSMIT_EMPTY);
	get(IIR);
	ck_assert_uint_eq(get(IIR), IIR_NONE);
}
END_TEST

START_TEST(each_byte_sent_interrupts_again)
{
	put(IER, IER_TRANSMIT_EMPTY);
	get(IIR);
	interrupted();
	put(DATA, 'x');
	ck_assert(interrupted());
	ck_assert_uint_eq(get(IIR), IIR_TRANSMIT_EMPTY);
}
END_TEST

START_TEST(setting_the_same_enable_bits_raises_nothing_new)
{
	put(IER, IER_TRANSMIT_EMPTY);
	get(IIR);
	interrupted();
	put(IER, IER_TRANSMIT_EMPTY);
	ck_assert(!interrupted());
	ck_assert_uint_eq(get(IIR), IIR_NONE);
}
END_TEST

START_TEST(received_data_comes_before_the_transmitter)
{
	put(IER, IER_RECEIVED | IER_TRANSMIT_EMPTY);
	receive("a");
	ck_assert_uint_eq(get(IIR), IIR_RECEIVED);
	ck_assert_uint_eq(get(IIR), IIR_RECEIVED);
	get(DATA);
	ck_assert_uint_eq(get(IIR), IIR_TRANSMIT_EMPTY);
}
END_TEST

START_TEST(identity_shows_enabled_fifos)
{
	put(FCR, FCR_ENABLE);
	ck_assert_uint_eq(get(IIR), 0xc0 | IIR_NONE);
	put(FCR, 0);
	ck_assert_uint_eq(get(IIR), IIR_NONE);
}
END_TEST

/* The steps by which Linux's 8250 driver decides that this is a 16550A. */
START_TEST(linux_finds_a_16550a)
{
	put(IER, 0);
	ck_assert_uint_eq(get(IER), 0);
	put(IER, 0x0f);
	ck_assert_uint_eq(get(IER), 0x0f);
	put(IER, 0);
	put(MCR, MCR_LOOP | MCR_OUT2 | MCR_RTS);
	ck_assert_uint_eq(get(MSR) & 0xf0, 0x90);
	put(MCR, 0);
	put(LCR, 0);
	put(FCR, FCR_ENABLE);
	ck_assert_uint_eq(get(IIR) >> 6, 3);
	put(SCRATCH, 0xa5);
	ck_assert_uint_eq(get(SCRATCH), 0xa5);
	/* No enhanced registers, no 64-byte FIFO, no XScale's UART unit enable. */
	put(LCR, LCR_DLAB | 0x3f);
	ck_assert_uint_ne(get(IIR), 0);
	put(LCR, 0);
	put(FCR, 0x21);
	ck_assert_uint_eq(get(IIR) & 0x20, 0);
	put(IER, 0x40);
	ck_assert_uint_eq(get(IER) & 0x40, 0);
}
END_TEST

static const struct {
	uint8_t control, status;
} loops[] = {
	{ 0, 0 }, { 0x01, 0x20 }, { 0x02, 0x10 }, { 0x04, 0x40 }, { 0x08, 0x80 }, { 0x0f, 0xf0 },
};

START_TEST(loopback_turns_control_into_status)
{
	put(MCR, MCR_LOOP | loops[_i].control);
	ck_assert_uint_eq(get(MSR), loops[_i].status);
}
END_TEST

START_TEST(without_loopback_the_other_end_is_ready)
{
	put(MCR, 0);
	ck_assert_uint_eq(get(MSR), 0xb0);
}
END_TEST

START_TEST(loopback_receives_what_is_sent)
{
	put(MCR, MCR_LOOP);
	put(DATA, 'x');
	ck_assert(get(LSR) & LSR_DATA_READY);
	ck_assert_uint_eq(get(DATA), 'x');
}
END_TEST

START_TEST(loopback_keeps_the_output_out_of_it)
{
	char byte;

	put(MCR, MCR_LOOP);
	put(DATA, 'x');
	put(MCR, 0);
	put(DATA, 'y');
	get(LSR);
	read_all(out_read, &byte, 1);
	ck_assert_int_eq(byte, 'y');
}
END_TEST

START_TEST(divisor_latch_hides_data_and_interrupt_enable)
{
	put(IER, IER_RECEIVED);
	receive("a");
	put(LCR, LCR_DLAB | 3);
	put(DATA, 0x34);
	put(IER, 0x12);
	ck_assert_uint_eq(get(DATA), 0x34);
	ck_assert_uint_eq(get(IER), 0x12);
	put(LCR, 3);
	ck_assert_uint_eq(get(IER), IER_RECEIVED);
	ck_assert_uint_eq(get(DATA), 'a');
}
END_TEST

START_TEST(clearing_the_receive_fifo_drops_the_input)
{
	receive("abc");
	put(FCR, FCR_ENABLE | FCR_CLEAR_RECEIVE);
	ck_assert_uint_eq(get(LSR) & LSR_DATA_READY, 0);
	receive("d");
	ck_assert_uint_eq(get(DATA), 'd');
}
END_TEST

/* Linux clears the FIFOs when the port is opened; who feeds it must learn of the room. */
START_TEST(clearing_a_full_receive_fifo_asks_for_more)
{
	receive_all();
	serial_service(&serial);
	put(FCR, FCR_ENABLE | FCR_CLEAR_RECEIVE);
	ck_assert(notified());
	ck_assert_uint_eq(serial_service(&serial).input_room, SERIAL_BUFFER);
}
END_TEST

START_TEST(without_rts_input_waits)
{
	put(IER, IER_RECEIVED);
	put(MCR, MCR_OUT2);
	receive("a");
	ck_assert(!interrupted());
	ck_assert_uint_eq(get(LSR) & LSR_DATA_READY, 0);
	ck_assert_uint_eq(get(DATA), 0);
	put(MCR, MCR_OUT2 | MCR_RTS);
	ck_assert(interrupted());
	ck_assert_uint_eq(get(DATA), 'a');
}
END_TEST

START_TEST(input_is_taken_until_the_buffer_is_full)
{
	receive_all();
	ck_assert_uint_eq(serial_receive(&serial, (const uint8_t *)"x", 1), 0);
	ck_assert_uint_eq(serial_service(&serial).input_room, 0);
}
END_TEST

START_TEST(half_empty_input_asks_for_more)
{
	receive_all();
	for (unsigned int i = 0; i < SERIAL_BUFFER / 2 - 1; i++)
		get(DATA);
	ck_assert(!notified());
	get(DATA);
	ck_assert(notified());
	ck_assert_uint_eq(serial_service(&serial).input_room, SERIAL_BUFFER / 2);
	ck_assert(!notified());
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
		ck_assert_uint_eq(get(DATA), data[i]);
	}
}
END_TEST

START_TEST(slow_reader_keeps_the_transmitter_busy)
{
	size_t sent = transmit_all();

	ck_assert_uint_eq(sent - output_waiting(), SERIAL_BUFFER - SERIAL_BURST + 1);
	ck_assert(notified());
	ck_assert(serial_service(&serial).output);
}
END_TEST

START_TEST(empty_transmitter_takes_a_whole_burst)
{
	size_t sent = 0;

	while (get(LSR) & LSR_TRANSMIT_EMPTY) {
		put_pattern(sent, SERIAL_BURST);
		sent += SERIAL_BURST;
	}
	for (size_t got = 0; got < sent; serial_flush(&serial)) {
		size_t size = output_waiting();

		ck_assert_uint_gt(size, 0);
		assert_output_pattern(got, size);
		got += size;
	}
}
END_TEST

START_TEST(busy_transmitter_withholds_its_interrupt)
{
	transmit_all();
	put(IER, IER_TRANSMIT_EMPTY);
	ck_assert(!interrupted());
	ck_assert_uint_eq(get(IIR), IIR_NONE);
}
END_TEST

START_TEST(full_transmitter_drops_what_is_forced_on_it)
{
	size_t sent = transmit_all();
	size_t passed = output_waiting();

	put_pattern(sent, SERIAL_BURST - 1);
	sent += SERIAL_BURST - 1;
	ck_assert_uint_eq(serial.metrics.missed_write_count, 0);
	put(DATA, 0xff);
	ck_assert_uint_eq(serial.metrics.missed_write_count, 1);
	ck_assert_uint_gt(serial.metrics.write_count, sent);
	ck_assert_uint_gt(serial.metrics.flush_count, 0);
	ck_assert_uint_eq(serial.metrics.error_count, 0);
	assert_output_pattern(0, passed);
	ck_assert(!serial_flush(&serial).output);
	assert_output_pattern(passed, sent - passed);
	ck_assert_uint_eq(output_waiting(), 0);
}
END_TEST

START_TEST(drained_output_interrupts)
{
	transmit_all();
	put(IER, IER_TRANSMIT_EMPTY);
	assert_output_pattern(0, output_waiting());
	serial_flush(&serial);
	ck_assert(interrupted());
	ck_assert_uint_eq(get(IIR), IIR_TRANSMIT_EMPTY);
	ck_assert_uint_eq(get(LSR) & LSR_TRANSMIT_EMPTY, LSR_TRANSMIT_EMPTY);
}
END_TEST

START_TEST(flush_that_writes_nothing_raises_nothing)
{
	transmit_all();
	put(IER, IER_TRANSMIT_EMPTY);
	ck_assert(serial_flush(&serial).output);
	ck_assert(!interrupted());
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
		while (!(get(LSR) & LSR_TRANSMIT_EMPTY))
			;
		put(DATA, (uint8_t)(i % 251));
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

START_TEST(drain_writes_what_is_left)
{
	size_t sent = transmit_all();
	size_t passed = output_waiting();

	assert_output_pattern(0, passed);
	serial_drain(&serial, 1000);
	assert_output_pattern(passed, sent - passed);
}
END_TEST

START_TEST(drain_gives_up_on_a_reader_that_sleeps)
{
	transmit_all();
	serial_drain(&serial, 1);
}
END_TEST

START_TEST(output_is_discarded_once_the_reader_has_gone)
{
	log_set_level(LOG_ERROR);
	fd_close(&out_read);
	for (int i = 0; i < 3 * SERIAL_BUFFER; i++) {
		ck_assert(get(LSR) & LSR_TRANSMIT_EMPTY);
		put(DATA, 'x');
	}
	ck_assert(!serial_flush(&serial).output);
}
END_TEST

START_TEST(reader_that_goes_while_output_waits_frees_the_transmitter)
{
	log_set_level(LOG_ERROR);
	transmit_all();
	put(IER, IER_TRANSMIT_EMPTY);
	fd_close(&out_read);
	ck_assert(!serial_flush(&serial).output);
	ck_assert(interrupted());
	ck_assert(get(LSR) & LSR_TRANSMIT_EMPTY);
}
END_TEST

START_TEST(port_without_output_discards)
{
	serial_close(&serial);
	ck_assert_int_eq(serial_open(&serial, -1, &err), 0);
	for (int i = 0; i < 2 * SERIAL_BUFFER; i++)
		put(DATA, 'x');
	ck_assert(get(LSR) & LSR_TRANSMIT_EMPTY);
}
END_TEST

START_TEST(wide_write_is_one_to_consecutive_ports)
{
	const uint8_t data[2] = { 3, MCR_RTS };

	serial_ops.write(&serial, LCR, data, 2);
	ck_assert_uint_eq(get(LCR), 3);
	ck_assert_uint_eq(get(MCR), MCR_RTS);
}
END_TEST

START_TEST(wide_read_is_one_of_consecutive_ports)
{
	uint8_t data[4];

	put(SCRATCH, 0x77);
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
	put(DATA, 'h');
	put(DATA, 'i');
	put(MCR, MCR_LOOP);
	put(DATA, 'x');
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
		"serial", set_up_receiving, tear_down, looking_at_the_status_sends_what_waits,
		looking_for_interrupts_sends_what_waits, enabling_interrupts_sends_what_waits,
		burst_is_sent_at_once, bytes_that_wait_are_flushed_in_time,
		next_byte_after_a_flush_asks_for_another, agent_and_port_agree_about_bursts,
		burst_port_transmits_whatever_the_divisor_latch, burst_port_tells_that_it_is_there,
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
		input_beyond_the_buffer_arrives_in_order, slow_reader_keeps_the_transmitter_busy,
		busy_transmitter_withholds_its_interrupt, empty_transmitter_takes_a_whole_burst,
		full_transmitter_drops_what_is_forced_on_it, drained_output_interrupts,
		flush_that_writes_nothing_raises_nothing,
		every_byte_arrives_in_order_from_another_thread, drain_writes_what_is_left,
		drain_gives_up_on_a_reader_that_sleeps,
		output_is_discarded_once_the_reader_has_gone,
		reader_that_goes_while_output_waits_frees_the_transmitter,
		port_without_output_discards, wide_write_is_one_to_consecutive_ports,
		wide_read_is_one_of_consecutive_ports, tap_sees_what_is_transmitted,
		close_may_be_repeated);

	add_table_test(suite, set_up, tear_down, loopback_turns_control_into_status,
		       ARRAY_SIZE(loops));
	return suite;
}

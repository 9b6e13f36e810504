/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/serial_fixture.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "tests/unit/support.h"

struct serial serial;
int out_read = -1;
int out_write = -1;

void serial_set_up(void)
{
	struct err err;
	int ends[2];

	ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
	out_read = ends[0];
	out_write = ends[1];
	ck_assert_int_eq(fcntl(out_write, F_SETPIPE_SZ, PIPE_SIZE), PIPE_SIZE);
	ck_assert_int_eq(serial_open(&serial, out_write, &err), 0);
}

void serial_tear_down(void)
{
	serial_close(&serial);
	fd_close(&out_read);
	fd_close(&out_write);
}

void uart_put(uint64_t reg, uint8_t value)
{
	serial_ops.write(&serial, reg, &value, 1);
}

uint8_t uart_get(uint64_t reg)
{
	uint8_t value;

	serial_ops.read(&serial, reg, &value, 1);
	return value;
}

void serial_set_up_receiving(void)
{
	serial_set_up();
	uart_put(MCR, MCR_RTS | MCR_OUT2);
}

bool serial_interrupted(void)
{
	return take_eventfd(serial.irq_fd) != 0;
}

bool serial_notified(void)
{
	struct pollfd readable = { .fd = serial.notify_fd, .events = POLLIN };

	return poll(&readable, 1, 0) == 1;
}

void serial_input(const char *text)
{
	ck_assert_uint_eq(serial_receive(&serial, (const uint8_t *)text, strlen(text)),
			  strlen(text));
}

void serial_input_all(void)
{
	static uint8_t data[SERIAL_BUFFER];

	fill_pattern(data, sizeof(data));
	ck_assert_uint_eq(serial_receive(&serial, data, sizeof(data)), sizeof(data));
}

void uart_put_pattern(size_t from, size_t size)
{
	for (size_t i = from; i < from + size; i++)
		uart_put(DATA, (uint8_t)(i % 251));
}

size_t uart_transmit_all(void)
{
	size_t sent = 0;

	while (uart_get(LSR) & LSR_TRANSMIT_EMPTY)
		uart_put_pattern(sent++, 1);
	return sent;
}

size_t serial_output_waiting(void)
{
	int size;

	ck_assert_int_eq(ioctl(out_read, FIONREAD, &size), 0);
	return (size_t)size;
}

void assert_output_pattern(size_t from, size_t size)
{
	for (size_t i = from; i < from + size; i++) {
		uint8_t byte;

		read_all(out_read, &byte, 1);
		ck_assert_uint_eq(byte, i % 251);
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is a sequence of operations of two bytes: register accesses by the guest, input, and
 * what the main loop and the output's reader do. What the transmitter has room for must come out,
 * all of it and in order; a reader that was given up stalls nobody.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/fuzz/fuzz.h"
#include "vmm/platform/serial.h"

#define PIPE_SIZE 4096
#define ACCEPTED_MAX (1 << 20)

enum operation {
	WRITE,
	WRITE_WIDE,
	READ,
	READ_WIDE,
	TRANSMIT,
	RECEIVE,
	SERVE,
	DRAIN,
	GIVE_UP,
	OPERATIONS
};

struct output {
	size_t accepted; /* bytes that the tap has seen, and that had room */
	unsigned int tail;
	size_t written; /* of them, read from the pipe */
	uint8_t bytes[ACCEPTED_MAX];
};

static struct output output;
static struct serial serial;
static int out_read, out_write;

static void accept_byte(void *opaque, uint8_t byte)
{
	(void)opaque;
	if (serial.out.tail == output.tail) {
		REQUIRE(serial.out_given_up);
		return;
	}
	output.tail = serial.out.tail;
	REQUIRE(output.accepted < ACCEPTED_MAX);
	output.bytes[output.accepted++] = byte;
}

static void open_port(void)
{
	struct err err;
	int ends[2];

	REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
	out_read = ends[0];
	out_write = ends[1];
	REQUIRE(fcntl(out_write, F_SETPIPE_SZ, PIPE_SIZE) == PIPE_SIZE);
	REQUIRE(fcntl(out_read, F_SETFL, O_NONBLOCK) == 0);
	REQUIRE(serial_open(&serial, out_write, &err) == 0);
	serial.tap = accept_byte;
	output.accepted = output.written = output.tail = 0;
}

static void close_port(void)
{
	serial_close(&serial);
	close(out_read);
	close(out_write);
}

static void read_output(void)
{
	uint8_t data[PIPE_SIZE];
	ssize_t n = read(out_read, data, sizeof(data));

	if (n <= 0)
		return;
	REQUIRE((size_t)n <= output.accepted - output.written);
	REQUIRE(memcmp(data, output.bytes + output.written, (size_t)n) == 0);
	output.written += (size_t)n;
}

static void access_registers(bool write, uint64_t reg, unsigned int len, uint8_t value)
{
	uint8_t data[8];

	memset(data, value, sizeof(data));
	/* The bus lets no access leave the device. */
	if (reg + len > SERIAL_PORTS)
		return;
	if (write)
		serial_ops.write(&serial, reg, data, len);
	else
		serial_ops.read(&serial, reg, data, len);
}

static void transmit(unsigned int size)
{
	for (unsigned int i = 0; i < size; i++) {
		const uint8_t byte = (uint8_t)i;

		serial_ops.write(&serial, 0, &byte, 1);
	}
}

static void receive(uint8_t value)
{
	uint8_t data[256];
	size_t room = serial_service(&serial).input_room;
	size_t size = (size_t)value + 1;
	size_t taken;

	memset(data, value, sizeof(data));
	taken = serial_receive(&serial, data, size);
	REQUIRE(taken == (size < room ? size : room));
}

static void operate(uint8_t first, uint8_t value)
{
	uint64_t reg = first / OPERATIONS % SERIAL_PORTS;
	struct serial_wants wants;

	switch ((enum operation)(first % OPERATIONS)) {
	case WRITE:
		access_registers(true, reg, 1, value);
		break;
	case WRITE_WIDE:
		access_registers(true, reg, 2u << (first / 64 % 3), value);
		break;
	case READ:
		access_registers(false, reg, 1, 0);
		break;
	case READ_WIDE:
		access_registers(false, reg, 2u << (first / 64 % 3), 0);
		break;
	case TRANSMIT:
		transmit(value + 1u);
		break;
	case RECEIVE:
		receive(value);
		break;
	case SERVE:
		wants = serial_flush(&serial);
		REQUIRE(!wants.flush);
		REQUIRE(wants.input_room <= SERIAL_BUFFER);
		break;
	case GIVE_UP:
		wants = serial_give_up(&serial);
		REQUIRE(!wants.output || wants.given_up);
		break;
	default:
		read_output();
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Each operation transmits at most 256 bytes. */
	const size_t operations_max = ACCEPTED_MAX / 256;

	open_port();
	for (size_t i = 0; i + 1 < size && i / 2 < operations_max; i += 2)
		operate(data[i], data[i + 1]);
	while (serial_flush(&serial).output)
		read_output();
	for (size_t before = SIZE_MAX; before != output.written;) {
		before = output.written;
		read_output();
	}
	REQUIRE(output.written == output.accepted);
	close_port();
	return 0;
}

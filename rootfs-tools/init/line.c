/* SPDX-License-Identifier: Apache-2.0 */
#include "line.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* Input comes through the driver, which has interrupts; output goes to the port itself. */
#define SERIAL_LINE "/dev/ttyS0"
#define SERIAL_PORT 0x3f8
#define SERIAL_LINE_STATUS (SERIAL_PORT + 5)
#define SERIAL_TRANSMIT_EMPTY 0x20

int line_open(void)
{
	struct termios settings;
	int fd = open(SERIAL_LINE, O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (fd < 0 || tcgetattr(fd, &settings) < 0 || ioperm(SERIAL_PORT, 8, 1) < 0 ||
	    ioperm(PROTOCOL_SERIAL_BURST_PORT, 1, 1) < 0)
		return -1;
	cfmakeraw(&settings);
	/* With flow control no byte is lost, however slowly the command reads. */
	settings.c_cflag |= CRTSCTS | CLOCAL | CREAD;
	cfsetspeed(&settings, B4000000);
	tcsetattr(fd, TCSANOW, &settings);
	return fd;
}

static void transmit(const void *data, size_t size)
{
	const struct timespec reader_is_slow = { .tv_nsec = 1000000 };
	const bool fast = inb(PROTOCOL_SERIAL_BURST_PORT) == PROTOCOL_SERIAL_BURST_MAGIC;
	const uint16_t port = fast ? PROTOCOL_SERIAL_BURST_PORT : SERIAL_PORT;
	const size_t most = fast ? PROTOCOL_SERIAL_BURST : PROTOCOL_SERIAL_FIFO;
	const uint8_t *at = data;

	while (size > 0) {
		size_t burst = size < most ? size : most;

		while (!(inb(SERIAL_LINE_STATUS) & SERIAL_TRANSMIT_EMPTY))
			nanosleep(&reader_is_slow, NULL);
		outsb(port, at, burst);
		at += burst;
		size -= burst;
	}
}

void line_send_sync(void)
{
	transmit(PROTOCOL_SYNC, PROTOCOL_SYNC_SIZE);
}

void line_send(uint8_t type, const void *payload, size_t size)
{
	const uint8_t header[PROTOCOL_HEADER_SIZE] = {
		type, (uint8_t)size, (uint8_t)(size >> 8), (uint8_t)(size >> 16), 0,
	};

	transmit(header, sizeof(header));
	transmit(payload, size);
	/* Looking at the line's status sends off what the UART still holds together. */
	(void)inb(SERIAL_LINE_STATUS);
}

void line_send_error(const char *fmt, ...)
{
	char text[512];
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (n > 0)
		line_send(PROTOCOL_ERROR, text, strlen(text));
}

ssize_t line_frame(const struct line *line)
{
	uint32_t size;

	if (line->used < PROTOCOL_HEADER_SIZE)
		return 0;
	memcpy(&size, line->buffer + 1, sizeof(size));
	if (size > PROTOCOL_PAYLOAD_MAX)
		return -EPROTO;
	return line->used < PROTOCOL_HEADER_SIZE + size ? 0 : PROTOCOL_HEADER_SIZE + (ssize_t)size;
}

void line_drop(struct line *line, size_t size)
{
	line->used -= size;
	memmove(line->buffer, line->buffer + size, line->used);
}

bool line_receive(struct line *line)
{
	ssize_t n = read(line->fd, line->buffer + line->used, sizeof(line->buffer) - line->used);

	if (n > 0)
		line->used += (size_t)n;
	return n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN));
}

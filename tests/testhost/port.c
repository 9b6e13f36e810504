/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way out of a machine that Bochs emulates: what goes to port 0xe9 is in Bochs' output.
 *
 * "port forward" sends what comes from descriptors 3 and 4 as frames of channels 1 and 2, until
 * both have ended. "port end N" sends N as a frame of channel 0, and ends Bochs.
 *
 * A frame is the byte 0x1e, the channel as a digit, the length as 4 hexadecimal digits, and so
 * many bytes.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>
#include <unistd.h>

#define DEBUG_PORT 0xe9
#define SHUTDOWN_PORT 0x8900
#define FRAME_MAX 32768

static void put(const void *from, size_t count)
{
	__asm__ volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(DEBUG_PORT) : "memory");
}

static void put_frame(unsigned int channel, const void *data, size_t size)
{
	char head[16];

	put(head, (size_t)snprintf(head, sizeof(head), "\x1e%u%04zx", channel, size));
	put(data, size);
}

static void forward(void)
{
	struct pollfd inputs[] = { { .fd = 3, .events = POLLIN }, { .fd = 4, .events = POLLIN } };
	static char buffer[FRAME_MAX];

	while (inputs[0].fd >= 0 || inputs[1].fd >= 0) {
		if (poll(inputs, 2, -1) < 0)
			continue;
		for (unsigned int i = 0; i < 2; i++) {
			ssize_t count;

			if (inputs[i].fd < 0 || !inputs[i].revents)
				continue;
			count = read(inputs[i].fd, buffer, sizeof(buffer));
			if (count > 0)
				put_frame(i + 1, buffer, (size_t)count);
			else
				inputs[i].fd = -1;
		}
	}
}

int main(int argc, char **argv)
{
	if (argc < 2 || iopl(3) < 0)
		return 1;
	if (argc == 2) {
		forward();
		return 0;
	}
	put_frame(0, argv[2], strlen(argv[2]));
	for (const char *c = "Shutdown"; *c; c++)
		outb((unsigned char)*c, SHUTDOWN_PORT);
	return 0;
}

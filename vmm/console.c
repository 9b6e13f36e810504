/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/console.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "vmm/platform/serial.h"

static void wait_for(struct console *console, struct serial_wants wants)
{
	const struct timeval flush_time = { .tv_usec = SERIAL_FLUSH_US };
	const struct timeval patience = { .tv_sec = SERIAL_PATIENCE_MS / 1000,
					  .tv_usec = SERIAL_PATIENCE_MS % 1000 * 1000 };

	if (wants.flush && !evtimer_pending(console->flush_timer, NULL))
		evtimer_add(console->flush_timer, &flush_time);
	/* The patience counts from when the output was found blocked, whatever comes until then. */
	if (wants.output && !event_pending(console->writable, EV_WRITE, NULL))
		event_add(console->writable, wants.given_up ? NULL : &patience);
	if (!console->readable)
		return;
	if (wants.input_room > 0 && console->in_fd >= 0)
		event_add(console->readable, NULL);
	else
		event_del(console->readable);
}

static void on_notified(evutil_socket_t fd, short events, void *opaque)
{
	struct console *console = opaque;

	(void)fd;
	(void)events;
	wait_for(console, serial_service(console->serial));
}

static void on_writable(evutil_socket_t fd, short events, void *opaque)
{
	struct console *console = opaque;

	(void)fd;
	wait_for(console, events & EV_TIMEOUT ? serial_give_up(console->serial)
					      : serial_flush(console->serial));
}

/* The flush's time has come. */
static void on_flush(evutil_socket_t fd, short events, void *opaque)
{
	struct console *console = opaque;

	(void)fd;
	(void)events;
	wait_for(console, serial_flush(console->serial));
}

static void on_readable(evutil_socket_t fd, short events, void *opaque)
{
	struct console *console = opaque;
	/* What was restored may have taken room since this was waited for. */
	const size_t room = serial_service(console->serial).input_room;
	uint8_t data[SERIAL_BUFFER];
	ssize_t n = room > 0 ? read(fd, data, room) : -1;

	(void)events;
	if (n > 0)
		(void)serial_receive(console->serial, data, (size_t)n);
	else if (room > 0 && (n == 0 || (errno != EAGAIN && errno != EINTR)))
		console->in_fd = -1;
	wait_for(console, serial_service(console->serial));
}

static void set_terminal(struct console *console)
{
	struct termios raw;

	if (tcgetattr(console->in_fd, &console->terminal) < 0)
		return;
	raw = console->terminal;
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	raw.c_iflag &= ~(tcflag_t)ICRNL;
	if (tcsetattr(console->in_fd, TCSANOW, &raw) == 0)
		console->terminal_changed = true;
}

int console_open(struct console *console, struct event_base *base, struct serial *serial, int in_fd,
		 int out_fd, struct err *err)
{
	memset(console, 0, sizeof(*console));
	console->serial = serial;
	console->in_fd = in_fd;
	console->out_fd = out_fd;
	console->notified =
		event_new(base, serial->notify_fd, EV_READ | EV_PERSIST, on_notified, console);
	console->flush_timer = evtimer_new(base, on_flush, console);
	console->writable = event_new(base, out_fd, EV_WRITE, on_writable, console);
	if (!console->notified || !console->flush_timer || !console->writable ||
	    event_add(console->notified, NULL) < 0) {
		console_close(console);
		return err_set(err, ENOMEM, "console: no memory for its events");
	}
	if (in_fd < 0)
		return 0;
	set_terminal(console);
	console->readable = event_new(base, in_fd, EV_READ | EV_PERSIST, on_readable, console);
	/* epoll takes neither files nor /dev/null: there, input is over before it begins. */
	if (!console->readable || event_add(console->readable, NULL) < 0)
		console->in_fd = -1;
	return 0;
}

void console_close(struct console *console)
{
	if (console->terminal_changed)
		tcsetattr(console->in_fd < 0 ? STDIN_FILENO : console->in_fd, TCSANOW,
			  &console->terminal);
	if (console->notified)
		event_free(console->notified);
	if (console->flush_timer)
		event_free(console->flush_timer);
	if (console->writable)
		event_free(console->writable);
	if (console->readable)
		event_free(console->readable);
	memset(console, 0, sizeof(*console));
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/platform/serial.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/state.h"

enum {
	REG_DATA,		/* RBR, THR; DLL with DLAB */
	REG_INTERRUPT_ENABLE,	/* DLM with DLAB */
	REG_INTERRUPT_IDENTITY, /* FCR when written */
	REG_LINE_CONTROL,
	REG_MODEM_CONTROL,
	REG_LINE_STATUS,
	REG_MODEM_STATUS,
	REG_SCRATCH,
};

#define IER_RECEIVED 0x01
#define IER_TRANSMIT_EMPTY 0x02
#define IER_MASK 0x0f

#define IIR_NONE 0x01
#define IIR_TRANSMIT_EMPTY 0x02
#define IIR_RECEIVED 0x04
#define IIR_FIFO 0xc0

#define FCR_ENABLE 0x01
#define FCR_CLEAR_RECEIVE 0x02

#define LCR_DLAB 0x80

#define MCR_DTR 0x01
#define MCR_RTS 0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10
#define MCR_MASK 0x1f

#define LSR_DATA_READY 0x01
#define LSR_TRANSMIT_EMPTY 0x60 /* holding register and shift register */

#define MSR_CTS 0x10
#define MSR_DSR 0x20
#define MSR_RI 0x40
#define MSR_DCD 0x80

const struct metric serial_metric_table[] = {
	METRIC(serial_metrics, error_count),	    METRIC(serial_metrics, flush_count),
	METRIC(serial_metrics, missed_write_count), METRIC(serial_metrics, read_count),
	METRIC(serial_metrics, write_count),	    METRIC_NEVER("missed_read_count"),
	METRIC_NEVER("rate_limiter_dropped_bytes"), { NULL },
};

static unsigned int fifo_used(const struct serial_fifo *fifo)
{
	return fifo->tail - fifo->head;
}

static bool fifo_full(const struct serial_fifo *fifo)
{
	return fifo_used(fifo) == SERIAL_BUFFER;
}

static void fifo_put(struct serial_fifo *fifo, uint8_t byte)
{
	fifo->bytes[fifo->tail++ % SERIAL_BUFFER] = byte;
}

static uint8_t fifo_take(struct serial_fifo *fifo)
{
	return fifo->bytes[fifo->head++ % SERIAL_BUFFER];
}

static bool data_ready(const struct serial *serial)
{
	if (serial->modem_control & MCR_LOOP)
		return serial->loop_full;
	/* Without RTS the other end of the line holds its data back. */
	return fifo_used(&serial->in) > 0 && (serial->modem_control & MCR_RTS);
}

static bool transmit_empty(const struct serial *serial)
{
	return serial->out_given_up || SERIAL_BUFFER - fifo_used(&serial->out) >= SERIAL_BURST;
}

static uint8_t pending_interrupt(const struct serial *serial)
{
	if ((serial->interrupt_enable & IER_RECEIVED) && data_ready(serial))
		return IIR_RECEIVED;
	if ((serial->interrupt_enable & IER_TRANSMIT_EMPTY) && serial->thr_interrupt)
		return IIR_TRANSMIT_EMPTY;
	return IIR_NONE;
}

/* The ISA interrupt is edge-triggered: one edge for each new reason, even while others stand. */
static void raise_if_pending(struct serial *serial)
{
	if (pending_interrupt(serial) != IIR_NONE)
		fd_signal(serial->irq_fd);
}

/* Writes what the reader takes without waiting. */
static void flush(struct serial *serial)
{
	struct serial_fifo *out = &serial->out;

	serial->out_blocked = false;
	while (fifo_used(out) > 0) {
		unsigned int at = out->head % SERIAL_BUFFER;
		unsigned int len = fifo_used(out);
		struct pollfd writable = { .fd = serial->out_fd, .events = POLLOUT };
		ssize_t n;

		if (serial->out_fd < 0) {
			out->head = out->tail;
			break;
		}
		/* A writable pipe takes PIPE_BUF bytes at once; setting O_NONBLOCK instead would
		 * change the terminal or pipe for everybody who shares it. */
		if (len > SERIAL_BUFFER - at)
			len = SERIAL_BUFFER - at;
		if (len > PIPE_BUF)
			len = PIPE_BUF;
		if (poll(&writable, 1, 0) <= 0) {
			serial->out_blocked = true;
			break;
		}
		n = write(serial->out_fd, out->bytes + at, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			serial->out_blocked = true;
			break;
		}
		if (n < 0) {
			log_warn("Serial output: %s; output is discarded from now on",
				 strerrordesc_np(errno));
			metric_add(&serial->metrics.error_count, 1);
			serial->out_fd = -1;
			continue;
		}
		metric_add(&serial->metrics.flush_count, 1);
		serial->out_given_up = false;
		out->head += (unsigned int)n;
	}
}

static void flush_and_notify(struct serial *serial)
{
	flush(serial);
	if (serial->out_blocked)
		fd_signal(serial->notify_fd);
}

static void transmit(struct serial *serial, uint8_t byte)
{
	if (serial->modem_control & MCR_LOOP) {
		serial->loop_byte = byte;
		serial->loop_full = true;
		serial->thr_interrupt = true;
		raise_if_pending(serial);
		return;
	}
	/* A guest that does not wait for the transmitter overwrites its own byte, as on the chip.
	 */
	if (fifo_full(&serial->out)) {
		metric_add(&serial->metrics.missed_write_count, 1);
		if (!serial->out_given_up)
			return;
	} else {
		fifo_put(&serial->out, byte);
	}
	/* It is transmitted even if it is written nowhere. */
	if (serial->tap)
		serial->tap(serial->tap_opaque, byte);
	if (!serial->out_blocked && fifo_used(&serial->out) >= SERIAL_BURST) {
		flush_and_notify(serial);
	} else if (!serial->out_blocked && !serial->flush_scheduled) {
		serial->flush_scheduled = true;
		fd_signal(serial->notify_fd);
	}
	serial->thr_interrupt = transmit_empty(serial);
	if (serial->thr_interrupt)
		raise_if_pending(serial);
}

/* The guest has come to the end of what it had to send. */
static void flush_on_status(struct serial *serial)
{
	if (fifo_used(&serial->out) > 0 && !serial->out_blocked)
		flush_and_notify(serial);
}

static uint8_t modem_status(const struct serial *serial)
{
	uint8_t control = serial->modem_control;
	uint8_t status = 0;

	if (!(control & MCR_LOOP))
		return MSR_DCD | MSR_DSR | MSR_CTS;
	if (control & MCR_RTS)
		status |= MSR_CTS;
	if (control & MCR_DTR)
		status |= MSR_DSR;
	if (control & MCR_OUT1)
		status |= MSR_RI;
	if (control & MCR_OUT2)
		status |= MSR_DCD;
	return status;
}

static void notify_of_room(struct serial *serial)
{
	if (serial->in_was_full && fifo_used(&serial->in) <= SERIAL_BUFFER / 2) {
		serial->in_was_full = false;
		fd_signal(serial->notify_fd);
	}
}

static uint8_t read_data(struct serial *serial)
{
	uint8_t byte;

	if (!data_ready(serial))
		return 0;
	if (serial->modem_control & MCR_LOOP) {
		serial->loop_full = false;
		return serial->loop_byte;
	}
	byte = fifo_take(&serial->in);
	notify_of_room(serial);
	return byte;
}

static uint8_t read_register(struct serial *serial, uint64_t reg)
{
	uint8_t value;

	switch (reg) {
	case REG_DATA:
		return serial->line_control & LCR_DLAB ? serial->divisor[0] : read_data(serial);
	case REG_INTERRUPT_ENABLE:
		return serial->line_control & LCR_DLAB ? serial->divisor[1]
						       : serial->interrupt_enable;
	case REG_INTERRUPT_IDENTITY:
		flush_on_status(serial);
		value = pending_interrupt(serial);
		if (value == IIR_TRANSMIT_EMPTY)
			serial->thr_interrupt = false;
		return (uint8_t)(value | (serial->fifo_enabled ? IIR_FIFO : 0));
	case REG_LINE_CONTROL:
		return serial->line_control;
	case REG_MODEM_CONTROL:
		return serial->modem_control;
	case REG_LINE_STATUS:
		flush_on_status(serial);
		return (uint8_t)((data_ready(serial) ? LSR_DATA_READY : 0) |
				 (transmit_empty(serial) ? LSR_TRANSMIT_EMPTY : 0));
	case REG_MODEM_STATUS:
		return modem_status(serial);
	default:
		return serial->scratch;
	}
}

static void write_interrupt_enable(struct serial *serial, uint8_t value)
{
	bool newly =
		!(serial->interrupt_enable & IER_TRANSMIT_EMPTY) && (value & IER_TRANSMIT_EMPTY);

	serial->interrupt_enable = value & IER_MASK;
	flush_on_status(serial);
	/* Enabling the interrupt while the transmitter is empty raises it at once. */
	if (newly && transmit_empty(serial))
		serial->thr_interrupt = true;
	raise_if_pending(serial);
}

static void write_register(struct serial *serial, uint64_t reg, uint8_t value)
{
	switch (reg) {
	case REG_DATA:
		if (serial->line_control & LCR_DLAB)
			serial->divisor[0] = value;
		else
			transmit(serial, value);
		break;
	case REG_INTERRUPT_ENABLE:
		if (serial->line_control & LCR_DLAB)
			serial->divisor[1] = value;
		else
			write_interrupt_enable(serial, value);
		break;
	case REG_INTERRUPT_IDENTITY:
		serial->fifo_enabled = value & FCR_ENABLE;
		if (value & FCR_CLEAR_RECEIVE) {
			serial->in.head = serial->in.tail;
			notify_of_room(serial);
		}
		break;
	case REG_LINE_CONTROL:
		serial->line_control = value;
		break;
	case REG_MODEM_CONTROL:
		serial->modem_control = value & MCR_MASK;
		raise_if_pending(serial);
		break;
	case REG_SCRATCH:
		serial->scratch = value;
		break;
	default:
		break;
	}
}

/* Wider accesses to these byte-wide registers are accesses to consecutive ports. */
static void serial_read(void *device, uint64_t offset, uint8_t *data, unsigned int len)
{
	struct serial *serial = device;

	pthread_mutex_lock(&serial->lock);
	metric_add(&serial->metrics.read_count, len);
	for (unsigned int i = 0; i < len; i++)
		data[i] = read_register(serial, offset + i);
	pthread_mutex_unlock(&serial->lock);
}

static void serial_write(void *device, uint64_t offset, const uint8_t *data, unsigned int len)
{
	struct serial *serial = device;

	pthread_mutex_lock(&serial->lock);
	metric_add(&serial->metrics.write_count, len);
	for (unsigned int i = 0; i < len; i++)
		write_register(serial, offset + i, data[i]);
	pthread_mutex_unlock(&serial->lock);
}

const struct io_ops serial_ops = { serial_read, serial_write };

int serial_open(struct serial *serial, int out_fd, struct err *err)
{
	memset(serial, 0, sizeof(*serial));
	serial->out_fd = out_fd;
	serial->divisor[0] = 12; /* 9600 baud */
	serial->line_control = 3;
	serial->modem_control = MCR_OUT2;
	serial->notify_fd = -1;
	serial->irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (serial->irq_fd >= 0)
		serial->notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (serial->irq_fd < 0 || serial->notify_fd < 0) {
		int saved = errno;

		fd_close(&serial->irq_fd);
		memset(serial, 0, sizeof(*serial));
		return err_sys(err, saved, "serial port: eventfd");
	}
	pthread_mutex_init(&serial->lock, NULL);
	return 0;
}

void serial_close(struct serial *serial)
{
	/* Descriptor 0 is standard input, so a zeroed object is recognised by it. */
	if (serial->notify_fd <= 0)
		return;
	fd_close(&serial->irq_fd);
	fd_close(&serial->notify_fd);
	pthread_mutex_destroy(&serial->lock);
	memset(serial, 0, sizeof(*serial));
}

size_t serial_receive(struct serial *serial, const uint8_t *data, size_t len)
{
	size_t taken = 0;

	pthread_mutex_lock(&serial->lock);
	while (taken < len && !fifo_full(&serial->in))
		fifo_put(&serial->in, data[taken++]);
	if (fifo_full(&serial->in))
		serial->in_was_full = true;
	raise_if_pending(serial);
	pthread_mutex_unlock(&serial->lock);
	return taken;
}

/* Under the lock. */
static struct serial_wants wants(const struct serial *serial)
{
	return (struct serial_wants){
		.flush = serial->flush_scheduled,
		.output = serial->out_blocked,
		.given_up = serial->out_given_up,
		.input_room = SERIAL_BUFFER - fifo_used(&serial->in),
	};
}

struct serial_wants serial_service(struct serial *serial)
{
	struct serial_wants result;

	pthread_mutex_lock(&serial->lock);
	fd_unsignal(serial->notify_fd);
	result = wants(serial);
	pthread_mutex_unlock(&serial->lock);
	return result;
}

struct serial_wants serial_flush(struct serial *serial)
{
	struct serial_wants result;
	bool was_busy;

	pthread_mutex_lock(&serial->lock);
	was_busy = !transmit_empty(serial);
	serial->flush_scheduled = false;
	flush(serial);
	if (was_busy && transmit_empty(serial)) {
		serial->thr_interrupt = true;
		raise_if_pending(serial);
	}
	result = wants(serial);
	pthread_mutex_unlock(&serial->lock);
	return result;
}

struct serial_wants serial_give_up(struct serial *serial)
{
	struct serial_wants result;

	pthread_mutex_lock(&serial->lock);
	if (serial->out_blocked && !serial->out_given_up) {
		serial->out_given_up = true;
		serial->thr_interrupt = true;
		raise_if_pending(serial);
	}
	result = wants(serial);
	pthread_mutex_unlock(&serial->lock);
	return result;
}

void serial_drain(struct serial *serial, int timeout_ms)
{
	struct serial_wants wanted;

	while ((wanted = serial_flush(serial)).output && !wanted.given_up) {
		struct pollfd writable = { .fd = serial->out_fd, .events = POLLOUT };

		if (poll(&writable, 1, timeout_ms) <= 0)
			return;
	}
}

static void save_fifo(const struct serial_fifo *fifo, struct state_writer *out)
{
	const unsigned int at = fifo->head % SERIAL_BUFFER;
	const unsigned int used = fifo_used(fifo);
	const unsigned int first = used < SERIAL_BUFFER - at ? used : SERIAL_BUFFER - at;

	state_put_u32(out, used);
	state_put_bytes(out, fifo->bytes + at, first);
	state_put_bytes(out, fifo->bytes, used - first);
}

static void read_fifo(struct serial_fifo *fifo, struct state_reader *in)
{
	const uint32_t used = state_get_u32(in);

	if (used > SERIAL_BUFFER)
		in->failed = true;
	fifo->head = 0;
	fifo->tail = in->failed ? 0 : used;
	state_get_bytes(in, fifo->bytes, fifo->tail);
}

void serial_save(const struct serial *serial, struct state_writer *out)
{
	state_put_u8(out, serial->interrupt_enable);
	state_put_u8(out, serial->line_control);
	state_put_u8(out, serial->modem_control);
	state_put_u8(out, serial->scratch);
	state_put_bytes(out, serial->divisor, sizeof(serial->divisor));
	state_put_bool(out, serial->fifo_enabled);
	state_put_bool(out, serial->loop_full);
	state_put_u8(out, serial->loop_byte);
	save_fifo(&serial->in, out);
	save_fifo(&serial->out, out);
}

int serial_restore(struct serial *serial, struct state_reader *in, uint32_t version,
		   struct err *err)
{
	struct serial saved = { 0 };

	(void)version;
	saved.interrupt_enable = state_get_u8(in) & IER_MASK;
	saved.line_control = state_get_u8(in);
	saved.modem_control = state_get_u8(in) & MCR_MASK;
	saved.scratch = state_get_u8(in);
	state_get_bytes(in, saved.divisor, sizeof(saved.divisor));
	saved.fifo_enabled = state_get_bool(in);
	saved.loop_full = state_get_bool(in);
	saved.loop_byte = state_get_u8(in);
	read_fifo(&saved.in, in);
	read_fifo(&saved.out, in);
	if (!state_is_done(in))
		return err_set(err, EINVAL,
			       "serial port: its saved state is cut off, or has a value or a size "
			       "that it cannot have");
	pthread_mutex_lock(&serial->lock);
	serial->interrupt_enable = saved.interrupt_enable;
	serial->line_control = saved.line_control;
	serial->modem_control = saved.modem_control;
	serial->scratch = saved.scratch;
	memcpy(serial->divisor, saved.divisor, sizeof(serial->divisor));
	serial->fifo_enabled = saved.fifo_enabled;
	serial->loop_full = saved.loop_full;
	serial->loop_byte = saved.loop_byte;
	serial->in = saved.in;
	serial->out = saved.out;
	serial->in_was_full = fifo_full(&serial->in);
	serial->flush_scheduled = fifo_used(&serial->out) > 0;
	serial->thr_interrupt = transmit_empty(serial);
	raise_if_pending(serial);
	fd_signal(serial->notify_fd);
	pthread_mutex_unlock(&serial->lock);
	return 0;
}

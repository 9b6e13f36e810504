/* SPDX-License-Identifier: Apache-2.0 */
/* A serial port on a small pipe, and its driver. One at a time, as a test is a process. */
#ifndef MOTE_TESTS_UNIT_SERIAL_FIXTURE_H
#define MOTE_TESTS_UNIT_SERIAL_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/platform/serial.h"

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

extern struct serial serial;
extern int out_read;
extern int out_write; /* not owned by the port */

void serial_set_up(void);
/* The same, with a driver that is ready to receive. */
void serial_set_up_receiving(void);
void serial_tear_down(void);

void uart_put(uint64_t reg, uint8_t value);
uint8_t uart_get(uint64_t reg);
/* Output of a pattern's bytes, from that one on. */
void uart_put_pattern(size_t from, size_t size);
/* The same until the transmitter is busy; how much that was. */
size_t uart_transmit_all(void);

/* What the port has told since the last call: the guest, and the main loop. */
bool serial_interrupted(void);
bool serial_notified(void);

void serial_input(const char *text);
/* Input until there is no room. */
void serial_input_all(void);
/* Bytes in the pipe. */
size_t serial_output_waiting(void);
/* Reads the pattern's bytes there. */
void assert_output_pattern(size_t from, size_t size);

#endif

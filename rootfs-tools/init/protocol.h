/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client and the agent in the guest say to each other.
 *
 * The agent first sends PROTOCOL_SYNC, because a serial line may carry kernel messages before it,
 * then a READY frame. The client sends one REQUEST frame; then frames flow both ways until EXIT or
 * ERROR. A frame is its type (u8), the payload's length (u32, little endian, at most
 * PROTOCOL_PAYLOAD_MAX), and the payload. docs/agent-protocol.md has the same for other languages.
 */
#ifndef MOTE_PROTOCOL_H
#define MOTE_PROTOCOL_H

#define PROTOCOL_SYNC "\x01mote/1\n"
#define PROTOCOL_SYNC_SIZE 8
#define PROTOCOL_HEADER_SIZE 5
#define PROTOCOL_PAYLOAD_MAX 65536

/*
 * Beside the UART at 0x3f8 this port transmits, too. The transmitter counts as empty when it has
 * room for a burst, which is to be followed by a read of the line status register: so one string
 * instruction and a handful of exits send what through the serial driver are a thousand exits.
 * Where the port is missing, the UART takes 16 bytes at a time.
 */
#define PROTOCOL_SERIAL_BURST_PORT 0x608
#define PROTOCOL_SERIAL_BURST_MAGIC 0x6d /* what reading that port gives where it is */
#define PROTOCOL_SERIAL_BURST 1024
#define PROTOCOL_SERIAL_FIFO 16

enum protocol_frame {
	PROTOCOL_REQUEST =
		1,	    /* to the agent: a JSON object with one member, "exec" or "shutdown" */
	PROTOCOL_STDIN = 2, /* to the agent */
	PROTOCOL_STDIN_END = 3, /* to the agent: no more STDIN */
	PROTOCOL_SIGNAL = 4,	/* to the agent: one byte, the signal's number */
	PROTOCOL_READY = 16,	/* to the client */
	PROTOCOL_STDOUT = 17,	/* to the client */
	PROTOCOL_STDERR = 18,	/* to the client */
	PROTOCOL_EXIT = 19, /* to the client: JSON {"code"|"signal", "user_us", "system_us", ...} */
	PROTOCOL_ERROR = 20, /* to the client: one sentence; the request could not be begun */
};

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client and the agent in the guest say to each other, over one vsock stream a request.
 *
 * The client sends one REQUEST frame; then frames flow both ways until EXIT, RESULT or ERROR, which
 * is the agent's last. A frame is its type (u8), the payload's length (u32, little endian, at most
 * PROTOCOL_PAYLOAD_MAX), and the payload. docs/agent-protocol.md has the same for other languages.
 */
#ifndef MOTE_AGENT_PROTOCOL_PROTOCOL_H
#define MOTE_AGENT_PROTOCOL_PROTOCOL_H

/*
 * The agent serves this port. When it starts it also connects to the same port of the host; if
 * somebody listens there, that stream is the first request's, and says that the guest is ready.
 */
#define PROTOCOL_PORT 52
/* Of the host, where mote has the metadata service answer. */
#define PROTOCOL_METADATA_PORT 80

#define PROTOCOL_HEADER_SIZE 5
#define PROTOCOL_PAYLOAD_MAX 65536
/* A request in several frames: what execve(2) takes, 2 MiB, has room in it as JSON. */
#define PROTOCOL_REQUEST_MAX (4 << 20)

/*
 * So many bytes of standard input the agent holds for a program that does not read. The client has
 * at most so many on their way that no TAKEN frame has told of; so the agent never stops reading,
 * and signals and the client's end reach it whatever the program does.
 */
#define PROTOCOL_STDIN_WINDOW 262144

enum protocol_frame {
	PROTOCOL_REQUEST = 1, /* to the agent: a JSON object with one member, the request's name */
	PROTOCOL_STDIN = 2,   /* to the agent */
	PROTOCOL_STDIN_END = 3,	   /* to the agent: no more STDIN */
	PROTOCOL_SIGNAL = 4,	   /* to the agent: one byte, the signal's number */
	PROTOCOL_REQUEST_PART = 6, /* to the agent: the beginning of a REQUEST's payload */
	PROTOCOL_WINDOW = 5,	   /* to the agent: rows and columns of the terminal (u16 each) */
	PROTOCOL_STDOUT = 17,	   /* to the client */
	PROTOCOL_STDERR = 18,	   /* to the client */
	PROTOCOL_EXIT = 19,	   /* to the client: JSON, how the program ended */
	PROTOCOL_ERROR = 20,	   /* to the client: JSON {"error": "one sentence", "status": N} */
	PROTOCOL_RESULT = 21,	   /* to the client: JSON, the answer to what is no exec */
	PROTOCOL_STARTED = 23,	   /* to the client: a program that is to be kept runs */
	PROTOCOL_TAKEN = 22, /* to the client: u32, bytes of STDIN that are out of the window */
};

/* Words mote.tmpfs= of the kernel's command line that are followed. */
#define PROTOCOL_TMPFS_MAX 16

/* What a shell would exit with, in an ERROR's "status". */
#define PROTOCOL_STATUS_AGENT 125      /* the agent could not do it */
#define PROTOCOL_STATUS_CANNOT_RUN 126 /* the program is there, but cannot be run */
#define PROTOCOL_STATUS_NOT_FOUND 127

#endif

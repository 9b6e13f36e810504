/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's side of the metadata service, frame by frame and by a clock of the test's: programs
 * that ask, and what is behind the service.
 */
#ifndef MOTE_TESTS_UNIT_MMDS_CLIENT_H
#define MOTE_TESTS_UNIT_MMDS_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mmds/mmds.h"
#include "tests/unit/mmds_guest.h"
#include "virtio/net/backend.h"

#define SECOND INT64_C(1000000000)
#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"
#define HEAD_ENDS "\r\n\r\n"

extern struct mmds *mmds;
extern struct net_backend *front;
extern int64_t now;
extern uint8_t frame[NET_HEADER_SIZE + GUEST_FRAME_MAX]; /* what send_frame sends */
extern uint8_t out[NET_FRAME_MAX];			 /* what receive_frame has received */
extern char big[5001];					 /* a value in the document */
extern struct net_backend behind;			 /* what the service is in front of */
/* Frames that went through to what is behind, and the size of the last. */
extern unsigned int passed_on;
extern size_t last_passed_on;

void mmds_client_set_up(void);
void mmds_client_tear_down(void);

/* A new document. */
void put(const char *text);

/* Of `size` bytes after the header, in two pieces. */
int send_frame(size_t size);
/* Its size; 0 if there is none now. */
size_t receive_frame(void);
void send_segment(const struct guest_segment *segment);
/* The next segment; false if there is none now. */
bool receive_segment(struct guest_segment *segment);

/* One end of a connection. */
struct client {
	uint16_t port;
	uint16_t window;
	uint32_t seq;
	uint32_t ack;
	char got[8192];
	size_t size;
	bool ended;
};

void connect_with(struct client *client, uint16_t port, uint16_t mss);
void speak(struct client *client, uint8_t flags, const char *text, size_t size);
/* Takes one segment, if there is one, and acknowledges it. */
bool listen_once(struct client *client);
/* The body of the next answer. */
const char *listen_to(struct client *client);
const char *ask(struct client *client, const char *request);

uint64_t counted(const uint64_t *counter);
#define COUNTED(name) counted(&mmds_metrics(mmds)->name)

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ethernet frames with ARP (RFC 826) and TCP over IPv4 (RFC 791, 9293), read and written. Addresses
 * are in network byte order, all other numbers in the host's.
 */
#ifndef MOTE_MMDS_FRAME_H
#define MOTE_MMDS_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_MAC_SIZE 6
/* What frame_is_for looks at, if there is as much. */
#define FRAME_HEAD_SIZE 42
/* The largest that frame_write_* write: the usual MTU. */
#define FRAME_OUT_MAX 1514
#define FRAME_MSS_MAX 1460
#define FRAME_MSS_DEFAULT 536 /* RFC 9293, 3.7.1 */

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_PSH 0x08
#define TCP_ACK 0x10

/* The other end of a connection, as its frames name it. */
struct peer {
	uint8_t mac[FRAME_MAC_SIZE];
	uint16_t port;
	uint32_t address;
};

struct segment {
	struct peer peer;
	uint16_t port; /* of the service's end */
	uint8_t flags;
	uint16_t window;
	uint16_t mss; /* the option's value; 0: it is not there */
	uint32_t seq;
	uint32_t ack;
	const uint8_t *data; /* of whoever has the frame */
	size_t size;
};

enum frame_kind {
	FRAME_BAD,	   /* cut short, or its checksum is wrong */
	FRAME_UNUSUAL,	   /* nothing that is answered */
	FRAME_ARP_REQUEST, /* only the peer's mac and address are set */
	FRAME_SEGMENT,
};

/* Whether it asks for the address, or goes to it. */
bool frame_is_for(const uint8_t *frame, size_t size, uint32_t address);

/*
 * Of a frame for the address. The guest leaves the TCP checksum to the device (virtio 1.2,
 * 5.1.6.2), and then it is not looked at. Fragments are unusual.
 */
enum frame_kind frame_read(const uint8_t *frame, size_t size, bool checksum_left, uint32_t address,
			   struct segment *segment);

/* From the service's address; each returns the frame's size, at most FRAME_OUT_MAX. */
size_t frame_write_arp_reply(uint8_t *frame, uint32_t address, const struct peer *peer);
/* The segment has at most FRAME_MSS_MAX bytes. */
size_t frame_write_segment(uint8_t *frame, uint32_t address, const struct segment *segment);

#endif

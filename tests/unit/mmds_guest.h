/* SPDX-License-Identifier: Apache-2.0 */
/* A guest's end of the metadata service: frames as its kernel makes and reads them. */
#ifndef MOTE_TESTS_UNIT_MMDS_GUEST_H
#define MOTE_TESTS_UNIT_MMDS_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUEST_ADDRESS 0x0a090002u
#define SERVICE_ADDRESS 0xa9fea9feu /* 169.254.169.254 */
#define GUEST_FRAME_MAX (14 + 60 + 60 + 65536)

#define FIN 1
#define SYN 2
#define RST 4
#define PSH 8
#define ACK 16

/* A TCP segment in either direction, numbers in the host's order. */
struct guest_segment {
	uint16_t from, to;
	uint32_t seq, ack;
	uint8_t flags;
	uint16_t window;
	uint16_t mss; /* 0: no option */
	const uint8_t *data;
	size_t size;
};

/* Each returns the frame's size. */
size_t guest_arp(uint8_t *frame, uint16_t operation, uint32_t target);
size_t guest_tcp(uint8_t *frame, uint32_t to, const struct guest_segment *segment);
/* What the kernel leaves to the device: only the pseudo header's sum is in the checksum. */
void guest_leave_checksum(uint8_t *frame, size_t size);
void guest_set_ip_checksum(uint8_t *frame);

/* Reads what the service has sent to the guest; false unless all of it is as it has to be. */
bool guest_read_tcp(const uint8_t *frame, size_t size, struct guest_segment *segment);

#endif

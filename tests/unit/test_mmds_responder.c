/* SPDX-License-Identifier: Apache-2.0 */
/* Which frames the metadata service takes, and whom it serves. */
#include <arpa/inet.h>
#include <check.h>
#include <linux/virtio_net.h>
#include <string.h>

#include "mmds/frame.h"
#include "mmds/responder.h"
#include "mmds/tcp.h"
#include "tests/unit/mmds_client.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

START_TEST(arp_requests_are_answered)
{
	static const uint8_t expected[] = {
		2,   0,	  0,   0,   0, 1, 6, 1, 0x23, 0x45, 0x67, 1,	8,    6, /* Ethernet */
		0,   1,	  8,   0,   6, 4, 0, 2, 6,    1,    0x23, 0x45, 0x67, 1,
		169, 254, 169, 254, 2, 0, 0, 0, 0,    1,    10,	  9,	0,    2,
	};

	ck_assert_int_eq(send_frame(guest_arp(frame + NET_HEADER_SIZE, 1, SERVICE_ADDRESS)), 1);
	ck_assert_int_eq(front->ops->wait(front), 0);
	ck_assert_uint_eq(receive_frame(), sizeof(expected));
	ck_assert_mem_eq(out + NET_HEADER_SIZE, expected, sizeof(expected));
	ck_assert_uint_eq(receive_frame(), 0);
	ck_assert_int_eq(front->ops->wait(front), -1);
	ck_assert_uint_eq(COUNTED(tx_frames), 1);
	ck_assert_uint_eq(COUNTED(tx_bytes), sizeof(expected));
}
END_TEST

START_TEST(all_else_passes)
{
	const struct guest_segment segment = { .from = 1, .to = 80, .flags = SYN };
	uint8_t *ethernet = frame + NET_HEADER_SIZE;
	size_t sizes[6], count = 0;

	sizes[count++] = guest_arp(ethernet, 1, SERVICE_ADDRESS + 1);
	ck_assert_int_eq(send_frame(sizes[0]), 0);
	sizes[count++] = guest_tcp(ethernet, SERVICE_ADDRESS - 1, &segment);
	ck_assert_int_eq(send_frame(sizes[1]), 0);
	/* As IPv6, behind a VLAN's tag, and cut short. */
	sizes[count] = guest_tcp(ethernet, SERVICE_ADDRESS, &segment);
	ethernet[12] = 0x86;
	ck_assert_int_eq(send_frame(sizes[count++]), 0);
	ethernet[12] = 0x81;
	ck_assert_int_eq(send_frame(sizes[2]), 0);
	(void)guest_tcp(ethernet, SERVICE_ADDRESS, &segment);
	ck_assert_int_eq(send_frame(33), 0);
	ck_assert_int_eq(send_frame(14), 0);
	ck_assert_uint_eq(passed_on, 6);
	ck_assert_uint_eq(last_passed_on, NET_HEADER_SIZE + 14);
	ck_assert_uint_eq(receive_frame(), 0);
	ck_assert_uint_eq(COUNTED(rx_accepted), 0);
	ck_assert_int_eq(front->fd, behind.fd);
	ck_assert_uint_eq(front->features, behind.features);
}
END_TEST

START_TEST(head_is_looked_at_as_far_as_it_goes)
{
	const struct guest_segment segment = { .from = 1, .to = 80, .flags = SYN };

	(void)guest_arp(frame, 1, SERVICE_ADDRESS);
	for (size_t size = 0; size <= 42; size++)
		ck_assert(frame_is_for(frame, size, htonl(SERVICE_ADDRESS)) == (size == 42));
	(void)guest_tcp(frame, SERVICE_ADDRESS, &segment);
	for (size_t size = 0; size <= 54; size++)
		ck_assert(frame_is_for(frame, size, htonl(SERVICE_ADDRESS)) == (size >= 34));
}
END_TEST

/* For the address, but nothing that is answered. */
START_TEST(what_is_not_asked_for_is_dropped)
{
	const struct guest_segment segment = { .from = 1, .to = 80, .flags = SYN };
	uint8_t *ip = frame + NET_HEADER_SIZE + 14;
	size_t size = guest_arp(frame + NET_HEADER_SIZE, 2, SERVICE_ADDRESS);

	ck_assert_int_eq(send_frame(size), 1);
	size = guest_tcp(frame + NET_HEADER_SIZE, SERVICE_ADDRESS, &segment);
	ip[9] = 17; /* UDP */
	guest_set_ip_checksum(frame + NET_HEADER_SIZE);
	ck_assert_int_eq(send_frame(size), 1);
	ip[9] = 6;
	ip[6] = 0x20; /* more fragments */
	guest_set_ip_checksum(frame + NET_HEADER_SIZE);
	ck_assert_int_eq(send_frame(size), 1);
	ip[6] = 0;
	ip[7] = 1; /* the second one */
	guest_set_ip_checksum(frame + NET_HEADER_SIZE);
	ck_assert_int_eq(send_frame(size), 1);
	ip[7] = 0;
	memcpy(ip + 12, ip + 16, 4); /* from itself */
	guest_set_ip_checksum(frame + NET_HEADER_SIZE);
	ck_assert_int_eq(send_frame(size), 1);
	ck_assert_uint_eq(passed_on, 0);
	ck_assert_uint_eq(COUNTED(rx_accepted_unusual), 5);
	ck_assert_uint_eq(receive_frame(), 0);
	ck_assert_int_eq(front->ops->wait(front), -1);
}
END_TEST

static void assert_reset(uint8_t flags, uint32_t seq, uint32_t ack)
{
	struct guest_segment segment;

	ck_assert(receive_segment(&segment));
	ck_assert_uint_eq(segment.flags, flags);
	ck_assert_uint_eq(segment.seq, seq);
	ck_assert_uint_eq(segment.ack, ack);
	ck_assert(!receive_segment(&segment));
}

START_TEST(what_belongs_to_no_connection_is_refused)
{
	struct guest_segment segment = { .from = 9, .to = 81, .seq = 10, .ack = 20, .flags = SYN };

	send_segment(&segment);
	assert_reset(RST | ACK, 0, 11);
	segment.to = 80;
	segment.flags = ACK;
	send_segment(&segment);
	assert_reset(RST, 20, 0);
	segment.flags = FIN;
	segment.data = (const uint8_t *)"abc";
	segment.size = 3;
	send_segment(&segment);
	assert_reset(RST | ACK, 0, 14);
	segment.flags = RST;
	send_segment(&segment);
	ck_assert(!receive_segment(&segment));
	ck_assert_uint_eq(COUNTED(tx_resets), 3);
}
END_TEST

START_TEST(refusals_that_wait_are_limited)
{
	struct guest_segment segment = { .to = 81, .flags = SYN };
	unsigned int count = 0;

	for (unsigned int i = 1; i <= 1000; i++) {
		segment.from = (uint16_t)i;
		send_segment(&segment);
	}
	while (receive_segment(&segment))
		ck_assert_uint_eq(segment.to, ++count);
	ck_assert_uint_eq(count, 32);
}
END_TEST

static void assert_taken(bool taken, size_t size)
{
	struct guest_segment segment;
	uint64_t errors = COUNTED(rx_accepted_err);

	ck_assert_int_eq(send_frame(size), 1);
	ck_assert_uint_eq(COUNTED(rx_accepted_err) - errors, !taken);
	ck_assert(receive_segment(&segment) == taken);
}

START_TEST(checksums_are_looked_at)
{
	struct guest_segment syn = { .from = 9, .to = 80, .flags = SYN, .mss = 1460 };
	uint8_t *ethernet = frame + NET_HEADER_SIZE;
	size_t size = guest_tcp(ethernet, SERVICE_ADDRESS, &syn);

	memset(frame, 0, NET_HEADER_SIZE);
	ethernet[14 + 20 + 16] ^= 1;
	assert_taken(false, size);
	/* That the data are good says only who has received them. */
	frame[0] = VIRTIO_NET_HDR_F_DATA_VALID;
	assert_taken(false, size);
	size = guest_tcp(ethernet, SERVICE_ADDRESS, &syn);
	guest_leave_checksum(ethernet, size);
	assert_taken(false, size);
	frame[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	assert_taken(true, size);
	/* IP's is never left to the device. */
	ethernet[14 + 10] ^= 1;
	assert_taken(false, size);
	/* Cut short, or longer than there is. */
	size = guest_tcp(ethernet, SERVICE_ADDRESS, &syn);
	assert_taken(false, size - 1);
	ethernet[14 + 20 + 12] = 0xf0;
	assert_taken(false, size);
	ethernet[14 + 20 + 12] = 0x40;
	assert_taken(false, size);
	size = guest_tcp(ethernet, SERVICE_ADDRESS, &syn);
	ethernet[14 + 20 + 25] = 1; /* an option's length */
	assert_taken(false, size);
	ethernet[14 + 20 + 25] = 5;
	assert_taken(false, size);
}
END_TEST

START_TEST(request_without_an_end_is_broken_off)
{
	static char request[TCP_IN_SIZE];
	struct client client;
	struct guest_segment segment;

	memset(request, 'x', sizeof(request));
	connect_with(&client, 40000, 1460);
	for (size_t at = 0; at < sizeof(request); at += 1024) {
		speak(&client, ACK, request + at, 1024);
		ck_assert(receive_segment(&segment));
		if (at + 1024 < sizeof(request))
			ck_assert_uint_eq(segment.window, sizeof(request) - at - 1024);
	}
	ck_assert_uint_eq(segment.flags, RST | ACK);
	ck_assert_uint_eq(COUNTED(connections_destroyed), 1);
}
END_TEST

START_TEST(connections_are_limited)
{
	struct guest_segment segment, syn = { .to = 80, .seq = 1, .flags = SYN };
	struct client client;

	for (uint16_t i = 1; i <= RESPONDER_CONNECTIONS; i++)
		connect_with(&client, i, 1460);
	syn.from = 99;
	send_segment(&syn);
	assert_reset(RST | ACK, 0, 2);
	/* The last one moves, and stays. */
	now += RESPONDER_IDLE_NS;
	ck_assert_str_eq(ask(&client, GET("/a")), "one");
	send_segment(&syn);
	ck_assert(receive_segment(&segment));
	ck_assert_uint_eq(segment.to, 1);
	ck_assert_uint_eq(segment.flags, RST | ACK);
	ck_assert(receive_segment(&segment));
	ck_assert_uint_eq(segment.to, 99);
	ck_assert_uint_eq(segment.flags, SYN | ACK);
	ck_assert_str_eq(ask(&client, GET("/a")), "one");
	ck_assert_uint_eq(COUNTED(connections_created), RESPONDER_CONNECTIONS + 1);
	ck_assert_uint_eq(COUNTED(connections_destroyed), 1);
}
END_TEST

Suite *mmds_responder_suite(void)
{
	return SUITE("mmds_responder", mmds_client_set_up, mmds_client_tear_down,
		     arp_requests_are_answered, all_else_passes,
		     head_is_looked_at_as_far_as_it_goes, what_is_not_asked_for_is_dropped,
		     what_belongs_to_no_connection_is_refused, refusals_that_wait_are_limited,
		     checksums_are_looked_at, request_without_an_end_is_broken_off,
		     connections_are_limited);
}

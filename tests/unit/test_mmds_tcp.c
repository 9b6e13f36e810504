/* SPDX-License-Identifier: Apache-2.0 */
/* Requests and answers in segments: lost, repeated, in pieces, out of order. */
#include <check.h>
#include <linux/virtio_net.h>
#include <string.h>

#include "mmds/tcp.h"
#include "tests/unit/mmds_client.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

START_TEST(request_is_answered_in_segments)
{
	struct client client;
	struct guest_segment segment;

	connect_with(&client, 40000, 1000);
	ck_assert_str_eq(ask(&client, GET("/a")), "one");
	ck_assert_ptr_nonnull(strstr(client.got, "HTTP/1.1 200 OK\r\n"));
	speak(&client, ACK | PSH, GET("/big"), strlen(GET("/big")));
	ck_assert(receive_segment(&segment));
	ck_assert_uint_eq(segment.size, 1000);
	ck_assert_uint_eq(segment.flags, ACK);
}
END_TEST

START_TEST(whole_of_a_long_answer_arrives)
{
	struct client client;

	connect_with(&client, 40000, _i ? 500 : 0); /* without the option: 536 */
	ck_assert_str_eq(ask(&client, GET("/big")), big);
	ck_assert_str_eq(ask(&client, GET("/big")), big);
	ck_assert_str_eq(ask(&client, GET("/a")), "one");
	ck_assert_uint_eq(COUNTED(connections_created), 1);
}
END_TEST

START_TEST(requests_may_come_in_pieces_and_at_once)
{
	struct client client;
	const char *request = GET("/a"), *rest;

	connect_with(&client, 40000, 1460);
	for (const char *at = request; at[1]; at++) {
		speak(&client, ACK, at, 1);
		ck_assert(listen_once(&client));
	}
	ck_assert_uint_eq(client.size, 0);
	ck_assert_str_eq(ask(&client, "\n"), "one");
	rest = ask(&client, GET("/a") GET("/none"));
	ck_assert_ptr_nonnull(strstr(rest, "one"));
	ck_assert_ptr_nonnull(strstr(rest, "404"));
	/* One before the other is answered. */
	speak(&client, ACK, GET("/a"), strlen(GET("/a")));
	rest = ask(&client, GET("/none"));
	ck_assert_ptr_nonnull(strstr(rest, "one"));
	ck_assert_ptr_nonnull(strstr(rest, "404"));
}
END_TEST

/* A guest that does not keep to the window. */
START_TEST(data_beyond_the_window_are_left)
{
	static char data[4000];
	struct client client;
	struct guest_segment segment;

	memset(data, 'x', sizeof(data));
	connect_with(&client, 40000, 1460);
	speak(&client, ACK, "GET /a HTTP/1.1\r\nX: ", 20);
	ck_assert(listen_once(&client));
	speak(&client, ACK, data, 3000);
	ck_assert(listen_once(&client));
	speak(&client, ACK | FIN, data, sizeof(data));
	ck_assert(receive_segment(&segment));
	ck_assert_uint_eq(segment.flags, RST | ACK);
	ck_assert_uint_eq(segment.ack, 5000 + TCP_IN_SIZE);
	connect_with(&client, 40000, 1460);
	ck_assert_str_eq(ask(&client, GET("/a")), "one");
}
END_TEST

START_TEST(syn_in_the_middle_is_ignored)
{
	struct client client;
	struct guest_segment segment;

	connect_with(&client, 40000, 1460);
	speak(&client, ACK, GET("/a"), strlen(GET("/a")));
	ck_assert(receive_segment(&segment));
	speak(&client, SYN | ACK, NULL, 0);
	ck_assert(!receive_segment(&segment));
	ck_assert_uint_eq(COUNTED(rx_accepted_unusual), 1);
}
END_TEST

/* What follows the end is not looked at. */
START_TEST(nothing_comes_after_the_end)
{
	struct client client;
	struct guest_segment segment;

	connect_with(&client, 40000, 1460);
	speak(&client, ACK | FIN, NULL, 0);
	speak(&client, ACK, GET("/a"), strlen(GET("/a")));
	ck_assert_uint_eq(COUNTED(rx_accepted_unusual), 1);
	ck_assert(receive_segment(&segment));
	ck_assert_uint_eq(segment.flags, ACK | FIN);
	ck_assert_uint_eq(segment.size, 0);
	ck_assert_uint_eq(segment.ack, 5001);
}
END_TEST

START_TEST(end_of_either_side_ends_it)
{
	struct client client;
	struct guest_segment segment;

	connect_with(&client, 40000, 1460);
	if (_i == 0) {
		/* The guest's: its request is answered still. */
		speak(&client, ACK | FIN, GET("/a"), strlen(GET("/a")));
		ck_assert_str_eq(listen_to(&client), "one");
	} else {
		ck_assert_str_eq(ask(&client, "GET /a HTTP/1.1\r\nConnection: close\r\n\r\n"),
				 "one");
		ck_assert(client.ended);
		speak(&client, ACK | FIN, NULL, 0);
		ck_assert(listen_once(&client));
	}
	ck_assert(client.ended);
	ck_assert_uint_eq(COUNTED(connections_destroyed), 1);
	ck_assert_int_eq(front->ops->wait(front), -1);
	/* It is forgotten. */
	speak(&client, ACK, "x", 1);
	ck_assert(receive_segment(&segment));
	ck_assert_uint_eq(segment.flags, RST);
	ck_assert_uint_eq(segment.seq, client.ack);
}
END_TEST

START_TEST(lost_answer_is_sent_again)
{
	struct client client;
	struct guest_segment segment;
	int64_t wait, expected = 300000000;

	connect_with(&client, 40000, 1460);
	speak(&client, ACK, GET("/a"), strlen(GET("/a")));
	for (unsigned int i = 0; i <= TCP_RETRIES; i++) {
		ck_assert(receive_segment(&segment));
		ck_assert_uint_eq(segment.seq, client.ack);
		ck_assert_uint_gt(segment.size, 0);
		/* What has been said once stays, whatever the owner changes. */
		ck_assert_mem_eq(segment.data + segment.size - 3, "one", 3);
		put("{\"a\": \"two\"}");
		ck_assert(!receive_segment(&segment));
		wait = front->ops->wait(front);
		ck_assert_int_eq(wait, expected);
		now += wait - 1;
		ck_assert(!receive_segment(&segment));
		now += 1;
		expected = expected * 2 < 5 * SECOND ? expected * 2 : 5 * SECOND;
	}
	ck_assert(receive_segment(&segment));
	ck_assert_uint_eq(segment.flags, RST | ACK);
	ck_assert_int_eq(front->ops->wait(front), -1);
	ck_assert_uint_eq(COUNTED(connections_destroyed), 1);
	ck_assert_uint_eq(COUNTED(tx_resets), 1);
}
END_TEST

START_TEST(lost_middle_is_sent_again)
{
	struct client client;
	struct guest_segment segment;

	connect_with(&client, 40000, 1000);
	speak(&client, ACK, GET("/big"), strlen(GET("/big")));
	ck_assert(listen_once(&client));
	/* The second is lost; what follows is not taken. */
	while (receive_segment(&segment))
		;
	speak(&client, ACK, NULL, 0);
	now += front->ops->wait(front);
	while (listen_once(&client))
		;
	client.got[client.size] = '\0';
	ck_assert_str_eq(strstr(client.got, HEAD_ENDS) + 4, big);
}
END_TEST

START_TEST(lost_syn_is_answered_again)
{
	struct guest_segment first, again,
		syn = { .from = 9, .to = 80, .seq = 1, .flags = SYN, .window = 1000 };

	send_segment(&syn);
	ck_assert(receive_segment(&first));
	send_segment(&syn);
	ck_assert(receive_segment(&again));
	ck_assert_uint_eq(again.seq, first.seq);
	ck_assert_uint_eq(again.flags, SYN | ACK);
	now += front->ops->wait(front);
	ck_assert(receive_segment(&again));
	ck_assert_uint_eq(again.seq, first.seq);
	/* Nor does a reset that is none change it. */
	send_segment(&(struct guest_segment){ .from = 9, .to = 80, .seq = 7, .flags = RST });
	ck_assert(receive_segment(&again));
	ck_assert_uint_eq(again.seq, first.seq);
	/* Another number: the guest has begun anew. */
	syn.seq = 1000;
	send_segment(&syn);
	ck_assert(receive_segment(&again));
	ck_assert_uint_eq(again.ack, 1001);
	ck_assert_uint_ne(again.seq, first.seq);
	ck_assert_uint_eq(COUNTED(connections_created), 2);
	ck_assert_uint_eq(COUNTED(connections_destroyed), 1);
}
END_TEST

START_TEST(numbers_begin_anywhere)
{
	struct guest_segment one, other, syn = { .from = 9, .to = 80, .seq = 1, .flags = SYN };

	send_segment(&syn);
	ck_assert(receive_segment(&one));
	syn.from++;
	send_segment(&syn);
	ck_assert(receive_segment(&other));
	ck_assert_uint_ne(one.seq, other.seq);
}
END_TEST

/* As a kernel sends it that leaves segmentation to the device. */
START_TEST(request_in_one_large_segment)
{
	static char request[3000];
	struct client client;
	size_t size;

	memset(request, 'x', sizeof(request));
	memcpy(request, "GET /a HTTP/1.1\r\nX: ", 20);
	memcpy(request + sizeof(request) - 4, "\r\n\r\n", 4);
	connect_with(&client, 40000, 1460);
	size = guest_tcp(frame + NET_HEADER_SIZE, SERVICE_ADDRESS,
			 &(struct guest_segment){ .from = client.port,
						  .to = 80,
						  .seq = client.seq,
						  .ack = client.ack,
						  .flags = ACK | PSH,
						  .window = 64000,
						  .data = (const uint8_t *)request,
						  .size = sizeof(request) });
	guest_leave_checksum(frame + NET_HEADER_SIZE, size);
	frame[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	frame[1] = VIRTIO_NET_HDR_GSO_TCPV4;
	ck_assert_int_eq(send_frame(size), 1);
	client.seq += (uint32_t)sizeof(request);
	ck_assert_str_eq(listen_to(&client), "one");
}
END_TEST

START_TEST(segments_out_of_order_are_dropped)
{
	static const char request[] = GET("/a");
	struct client client;

	connect_with(&client, 40000, 1460);
	client.seq += 10;
	speak(&client, ACK, request + 10, sizeof(request) - 1 - 10);
	ck_assert(listen_once(&client));
	ck_assert_uint_eq(client.size, 0);
	ck_assert_uint_eq(COUNTED(rx_accepted_unusual), 1);
	/* Overlapping is fine: what is new is taken. */
	client.seq -= (uint32_t)sizeof(request) - 1;
	speak(&client, ACK, request, 20);
	ck_assert(listen_once(&client));
	client.seq -= 10;
	speak(&client, ACK, request + 10, sizeof(request) - 1 - 10);
	ck_assert_str_eq(listen_to(&client), "one");
}
END_TEST

START_TEST(window_is_kept)
{
	struct client client;
	struct guest_segment segment;

	connect_with(&client, 40000, 1460);
	client.window = 100;
	speak(&client, ACK, GET("/big"), strlen(GET("/big")));
	ck_assert(receive_segment(&segment));
	ck_assert_uint_eq(segment.size, 100);
	ck_assert(!receive_segment(&segment));
	client.ack += 100;
	client.window = 0;
	speak(&client, ACK, NULL, 0);
	ck_assert(!receive_segment(&segment));
	/* One byte, now and then, to see whether there is room again. */
	for (int i = 0; i < 2; i++) {
		now += front->ops->wait(front);
		ck_assert(receive_segment(&segment));
		ck_assert_uint_eq(segment.size, 1);
		ck_assert_uint_eq(segment.seq, client.ack);
		speak(&client, ACK, NULL, 0);
		ck_assert(!receive_segment(&segment));
	}
	client.window = 64000;
	speak(&client, ACK, NULL, 0);
	ck_assert(listen_once(&client));
	while (listen_once(&client))
		;
	ck_assert_mem_eq(client.got + client.size - 1000, big, 1000);
}
END_TEST

START_TEST(reset_must_have_the_right_number)
{
	struct client client;

	connect_with(&client, 40000, 1460);
	client.seq += 1;
	speak(&client, RST, NULL, 0);
	ck_assert_uint_eq(COUNTED(connections_destroyed), 0);
	client.seq -= 1;
	ck_assert(listen_once(&client)); /* an acknowledgement, to ask */
	speak(&client, RST, NULL, 0);
	ck_assert_uint_eq(COUNTED(connections_destroyed), 1);
	ck_assert_uint_eq(receive_frame(), 0);
}
END_TEST

/* Acknowledging what was never sent neither frees nor sends anything. */
START_TEST(wild_acknowledgements_are_ignored)
{
	struct client client;
	uint32_t ack;

	connect_with(&client, 40000, 1000);
	speak(&client, ACK, GET("/big"), strlen(GET("/big")));
	ck_assert(listen_once(&client));
	ack = client.ack;
	for (unsigned int i = 0; i < 32; i++) {
		client.ack = ack + (1u << i) + 4000;
		speak(&client, ACK, NULL, 0);
	}
	client.ack = ack;
	while (listen_once(&client))
		;
	client.got[client.size] = '\0';
	ck_assert_str_eq(strstr(client.got, HEAD_ENDS) + 4, big);
}
END_TEST

Suite *mmds_tcp_suite(void)
{
	Suite *suite = SUITE(
		"mmds_tcp", mmds_client_set_up, mmds_client_tear_down,
		request_is_answered_in_segments, requests_may_come_in_pieces_and_at_once,
		data_beyond_the_window_are_left, syn_in_the_middle_is_ignored,
		nothing_comes_after_the_end, lost_answer_is_sent_again, lost_middle_is_sent_again,
		lost_syn_is_answered_again, numbers_begin_anywhere, request_in_one_large_segment,
		segments_out_of_order_are_dropped, window_is_kept, reset_must_have_the_right_number,
		wild_acknowledgements_are_ignored);

	add_table_test(suite, mmds_client_set_up, mmds_client_tear_down, end_of_either_side_ends_it,
		       2);
	add_table_test(suite, mmds_client_set_up, mmds_client_tear_down,
		       whole_of_a_long_answer_arrives, 2);
	return suite;
}

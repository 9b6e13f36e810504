/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/mmds_guest.h"

#include <string.h>

#include "tests/unit/packet.h"

static const uint8_t guest_mac[6] = { 2, 0, 0, 0, 0, 1 };
static const uint8_t service_mac[6] = { 6, 1, 0x23, 0x45, 0x67, 1 };

static uint16_t tcp_sum(const uint8_t *ip, size_t size)
{
	size_t head = (size_t)(ip[0] & 15) * 4;

	return sum(ip + head, size - head,
		   (uint32_t)(sum(ip + 12, 8, 0) + 6 + (uint32_t)(size - head)));
}

static void ethernet(uint8_t *frame, uint16_t type)
{
	memset(frame, 0xff, 6);
	memcpy(frame + 6, guest_mac, 6);
	put(frame + 12, type, 2);
}

size_t guest_arp(uint8_t *frame, uint16_t operation, uint32_t target)
{
	static const uint8_t head[] = { 0, 1, 8, 0, 6, 4 };

	ethernet(frame, 0x0806);
	memcpy(frame + 14, head, sizeof(head));
	put(frame + 20, operation, 2);
	memcpy(frame + 22, guest_mac, 6);
	put(frame + 28, GUEST_ADDRESS, 4);
	memset(frame + 32, 0, 6);
	put(frame + 38, target, 4);
	return 42;
}

void guest_set_ip_checksum(uint8_t *frame)
{
	uint8_t *ip = frame + 14;

	put(ip + 10, 0, 2);
	put(ip + 10, (uint16_t)~sum(ip, (size_t)(ip[0] & 15) * 4, 0), 2);
}

size_t guest_tcp(uint8_t *frame, uint32_t to, const struct guest_segment *segment)
{
	size_t head = segment->mss ? 28 : 20, size = 20 + head + segment->size;
	uint8_t *ip = frame + 14, *tcp = ip + 20;

	ethernet(frame, 0x0800);
	memset(ip, 0, 20 + head);
	ip[0] = 0x45;
	put(ip + 2, (uint32_t)size, 2);
	ip[6] = 0x40;
	ip[8] = 64;
	ip[9] = 6;
	put(ip + 12, GUEST_ADDRESS, 4);
	put(ip + 16, to, 4);
	guest_set_ip_checksum(frame);
	put(tcp, segment->from, 2);
	put(tcp + 2, segment->to, 2);
	put(tcp + 4, segment->seq, 4);
	put(tcp + 8, segment->ack, 4);
	tcp[12] = (uint8_t)(head / 4 << 4);
	tcp[13] = segment->flags;
	put(tcp + 14, segment->window, 2);
	if (segment->mss) {
		/* Among others, as Linux has it: no-operation, window scale. */
		tcp[20] = 1;
		tcp[21] = 3;
		tcp[22] = 3;
		tcp[23] = 7;
		tcp[24] = 2;
		tcp[25] = 4;
		put(tcp + 26, segment->mss, 2);
	}
	if (segment->size)
		memcpy(tcp + head, segment->data, segment->size);
	put(tcp + 16, (uint16_t)~tcp_sum(ip, size), 2);
	return 14 + size;
}

void guest_leave_checksum(uint8_t *frame, size_t size)
{
	uint8_t *ip = frame + 14, *tcp = ip + 20;

	put(tcp + 16, sum(ip + 12, 8, 6 + (uint32_t)(size - 34)), 2);
}

bool guest_read_tcp(const uint8_t *frame, size_t size, struct guest_segment *segment)
{
	const uint8_t *ip = frame + 14, *tcp = ip + 20;
	size_t head;

	if (size < 54 || memcmp(frame, guest_mac, 6) || memcmp(frame + 6, service_mac, 6) ||
	    get(frame + 12, 2) != 0x0800 || ip[0] != 0x45 || get(ip + 2, 2) != size - 14 ||
	    ip[9] != 6 || sum(ip, 20, 0) != 0xffff || get(ip + 16, 4) != GUEST_ADDRESS ||
	    tcp_sum(ip, size - 14) != 0xffff)
		return false;
	head = (size_t)(tcp[12] >> 4) * 4;
	*segment = (struct guest_segment){
		.from = (uint16_t)get(tcp, 2),
		.to = (uint16_t)get(tcp + 2, 2),
		.seq = get(tcp + 4, 4),
		.ack = get(tcp + 8, 4),
		.flags = tcp[13],
		.window = (uint16_t)get(tcp + 14, 2),
		.mss = head == 24 && tcp[20] == 2 ? (uint16_t)get(tcp + 22, 2) : 0,
		.data = tcp + head,
		.size = size - 34 - head,
	};
	return get(ip + 12, 4) == SERVICE_ADDRESS;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "mmds/frame.h"

#include <arpa/inet.h>
#include <net/ethernet.h>
#include <net/if_arp.h>
#include <netinet/if_ether.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <string.h>

#define ETHERNET sizeof(struct ether_header)
#define ARP_SIZE sizeof(struct ether_arp)
#define IP_SIZE sizeof(struct iphdr)
#define TCP_SIZE 20
#define TCP_OPTION_END 0
#define TCP_OPTION_NOP 1
#define TCP_OPTION_MSS 2
#define IP_FRAGMENT 0x3fff /* more of them, or not at the beginning */
#define TTL 64

_Static_assert(FRAME_HEAD_SIZE == ETHERNET + ARP_SIZE, "the longer of the two heads");
_Static_assert(FRAME_OUT_MAX == ETHERNET + IP_SIZE + TCP_SIZE + FRAME_MSS_MAX, "no options");

/* The service's end of the wire; Firecracker's. */
static const uint8_t own_mac[FRAME_MAC_SIZE] = { 0x06, 0x01, 0x23, 0x45, 0x67, 0x01 };

static uint16_t get16(const uint8_t *from)
{
	return (uint16_t)(from[0] << 8 | from[1]);
}

static uint32_t get32(const uint8_t *from)
{
	return (uint32_t)get16(from) << 16 | get16(from + 2);
}

static void put16(uint8_t *to, uint16_t value)
{
	to[0] = (uint8_t)(value >> 8);
	to[1] = (uint8_t)value;
}

static void put32(uint8_t *to, uint32_t value)
{
	put16(to, (uint16_t)(value >> 16));
	put16(to + 2, (uint16_t)value);
}

/* RFC 1071: 0 over what has its checksum in it. */
static uint32_t add_up(uint32_t sum, const uint8_t *data, size_t size)
{
	for (; size > 1; size -= 2, data += 2)
		sum += get16(data);
	return size > 0 ? sum + (uint32_t)(*data << 8) : sum;
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* With the pseudo header (RFC 9293, 3.1); both addresses are behind each other in IP's. */
static uint16_t tcp_checksum(const uint8_t *ip, const uint8_t *tcp, size_t size)
{
	uint32_t sum = add_up(0, ip + offsetof(struct iphdr, saddr), 2 * sizeof(uint32_t));

	return fold(add_up(sum + IPPROTO_TCP + (uint32_t)size, tcp, size));
}

bool frame_is_for(const uint8_t *frame, size_t size, uint32_t address)
{
	const uint8_t *payload = frame + ETHERNET;
	size_t at, needed;

	if (size < ETHERNET)
		return false;
	switch (get16(frame + offsetof(struct ether_header, ether_type))) {
	case ETHERTYPE_ARP:
		at = offsetof(struct ether_arp, arp_tpa);
		needed = ARP_SIZE;
		break;
	case ETHERTYPE_IP:
		at = offsetof(struct iphdr, daddr);
		needed = IP_SIZE;
		break;
	default:
		return false;
	}
	return size >= ETHERNET + needed && memcmp(payload + at, &address, sizeof(address)) == 0;
}

static enum frame_kind read_arp(const uint8_t *arp, struct segment *segment)
{
	static const uint8_t request[] = {
		0, ARPHRD_ETHER, ETHERTYPE_IP >> 8, ETHERTYPE_IP & 0xff, FRAME_MAC_SIZE, 4,
		0, ARPOP_REQUEST
	};

	if (memcmp(arp, request, sizeof(request)) != 0)
		return FRAME_UNUSUAL;
	memcpy(segment->peer.mac, arp + offsetof(struct ether_arp, arp_sha), FRAME_MAC_SIZE);
	memcpy(&segment->peer.address, arp + offsetof(struct ether_arp, arp_spa), 4);
	return FRAME_ARP_REQUEST;
}

/* False if they are cut short. */
static bool read_options(const uint8_t *options, size_t size, struct segment *segment)
{
	for (size_t i = 0; i < size && options[i] != TCP_OPTION_END;) {
		if (options[i] == TCP_OPTION_NOP) {
			i++;
			continue;
		}
		if (size - i < 2 || options[i + 1] < 2 || options[i + 1] > size - i)
			return false;
		if (options[i] == TCP_OPTION_MSS && options[i + 1] == 4)
			segment->mss = get16(options + i + 2);
		i += options[i + 1];
	}
	return true;
}

static enum frame_kind read_tcp(const uint8_t *ip, const uint8_t *tcp, size_t size,
				bool checksum_left, struct segment *segment)
{
	size_t head;

	if (size < TCP_SIZE)
		return FRAME_BAD;
	head = (size_t)(tcp[12] >> 4) * 4;
	if (head < TCP_SIZE || head > size)
		return FRAME_BAD;
	if (!checksum_left && tcp_checksum(ip, tcp, size) != 0)
		return FRAME_BAD;
	segment->peer.port = get16(tcp);
	segment->port = get16(tcp + 2);
	segment->seq = get32(tcp + 4);
	segment->ack = get32(tcp + 8);
	segment->flags = tcp[13] & (TCP_FIN | TCP_SYN | TCP_RST | TCP_PSH | TCP_ACK);
	segment->window = get16(tcp + 14);
	segment->data = tcp + head;
	segment->size = size - head;
	return read_options(tcp + TCP_SIZE, head - TCP_SIZE, segment) ? FRAME_SEGMENT : FRAME_BAD;
}

static enum frame_kind read_ip(const uint8_t *frame, size_t size, bool checksum_left,
			       uint32_t address, struct segment *segment)
{
	const uint8_t *ip = frame + ETHERNET;
	size_t head = (size_t)(ip[0] & 0xf) * 4;
	size_t total = get16(ip + offsetof(struct iphdr, tot_len));

	size -= ETHERNET;
	/* What is behind it is Ethernet's padding. */
	if (ip[0] >> 4 != IPVERSION || head < IP_SIZE || total < head || total > size ||
	    fold(add_up(0, ip, head)) != 0)
		return FRAME_BAD;
	memcpy(&segment->peer.address, ip + offsetof(struct iphdr, saddr), 4);
	memcpy(segment->peer.mac, frame + offsetof(struct ether_header, ether_shost),
	       FRAME_MAC_SIZE);
	/* The guest would send what goes there to itself. */
	if (ip[offsetof(struct iphdr, protocol)] != IPPROTO_TCP ||
	    get16(ip + offsetof(struct iphdr, frag_off)) & IP_FRAGMENT ||
	    segment->peer.address == address)
		return FRAME_UNUSUAL;
	return read_tcp(ip, ip + head, total - head, checksum_left, segment);
}

enum frame_kind frame_read(const uint8_t *frame, size_t size, bool checksum_left, uint32_t address,
			   struct segment *segment)
{
	memset(segment, 0, sizeof(*segment));
	if (!frame_is_for(frame, size, address))
		return FRAME_BAD;
	if (get16(frame + offsetof(struct ether_header, ether_type)) == ETHERTYPE_ARP)
		return read_arp(frame + ETHERNET, segment);
	return read_ip(frame, size, checksum_left, address, segment);
}

static void write_ethernet(uint8_t *frame, const struct peer *peer, uint16_t type)
{
	memcpy(frame + offsetof(struct ether_header, ether_dhost), peer->mac, FRAME_MAC_SIZE);
	memcpy(frame + offsetof(struct ether_header, ether_shost), own_mac, FRAME_MAC_SIZE);
	put16(frame + offsetof(struct ether_header, ether_type), type);
}

size_t frame_write_arp_reply(uint8_t *frame, uint32_t address, const struct peer *peer)
{
	static const uint8_t reply[] = {
		0, ARPHRD_ETHER, ETHERTYPE_IP >> 8, ETHERTYPE_IP & 0xff, FRAME_MAC_SIZE, 4,
		0, ARPOP_REPLY
	};
	uint8_t *arp = frame + ETHERNET;

	write_ethernet(frame, peer, ETHERTYPE_ARP);
	memcpy(arp, reply, sizeof(reply));
	memcpy(arp + offsetof(struct ether_arp, arp_sha), own_mac, FRAME_MAC_SIZE);
	memcpy(arp + offsetof(struct ether_arp, arp_spa), &address, 4);
	memcpy(arp + offsetof(struct ether_arp, arp_tha), peer->mac, FRAME_MAC_SIZE);
	memcpy(arp + offsetof(struct ether_arp, arp_tpa), &peer->address, 4);
	return ETHERNET + ARP_SIZE;
}

static void write_ip(uint8_t *ip, size_t size, uint32_t address, uint32_t to)
{
	memset(ip, 0, IP_SIZE);
	ip[0] = IPVERSION << 4 | IP_SIZE / 4;
	put16(ip + offsetof(struct iphdr, tot_len), (uint16_t)size);
	put16(ip + offsetof(struct iphdr, frag_off), IP_DF);
	ip[offsetof(struct iphdr, ttl)] = TTL;
	ip[offsetof(struct iphdr, protocol)] = IPPROTO_TCP;
	memcpy(ip + offsetof(struct iphdr, saddr), &address, 4);
	memcpy(ip + offsetof(struct iphdr, daddr), &to, 4);
	put16(ip + offsetof(struct iphdr, check), fold(add_up(0, ip, IP_SIZE)));
}

size_t frame_write_segment(uint8_t *frame, uint32_t address, const struct segment *segment)
{
	uint8_t *ip = frame + ETHERNET, *tcp = ip + IP_SIZE;
	size_t head = TCP_SIZE + (segment->mss > 0 ? 4 : 0);
	size_t size = head + segment->size;

	write_ethernet(frame, &segment->peer, ETHERTYPE_IP);
	write_ip(ip, IP_SIZE + size, address, segment->peer.address);
	memset(tcp, 0, head);
	put16(tcp, segment->port);
	put16(tcp + 2, segment->peer.port);
	put32(tcp + 4, segment->seq);
	put32(tcp + 8, segment->ack);
	tcp[12] = (uint8_t)(head / 4 << 4);
	tcp[13] = segment->flags;
	put16(tcp + 14, segment->window);
	if (segment->mss > 0) {
		tcp[TCP_SIZE] = TCP_OPTION_MSS;
		tcp[TCP_SIZE + 1] = 4;
		put16(tcp + TCP_SIZE + 2, segment->mss);
	}
	if (segment->size > 0)
		memcpy(tcp + head, segment->data, segment->size);
	put16(tcp + 16, tcp_checksum(ip, tcp, size));
	return ETHERNET + IP_SIZE + size;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/ipv6.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest/failure.h"

struct message {
	struct nlmsghdr header;
	union {
		struct ifaddrmsg address;
		struct rtmsg route;
	};
	char attributes[64];
};

static void begin(struct message *message, unsigned short type, size_t body)
{
	*message = (struct message){ 0 };
	message->header.nlmsg_type = type;
	message->header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
	message->header.nlmsg_len = (unsigned int)NLMSG_LENGTH(body);
}

static void add(struct message *message, unsigned short type, const void *data, size_t size)
{
	struct rtattr *attribute =
		(struct rtattr *)((char *)message + NLMSG_ALIGN(message->header.nlmsg_len));

	attribute->rta_type = type;
	attribute->rta_len = (unsigned short)RTA_LENGTH(size);
	memcpy(RTA_DATA(attribute), data, size);
	message->header.nlmsg_len =
		NLMSG_ALIGN(message->header.nlmsg_len) + (unsigned int)RTA_ALIGN(RTA_LENGTH(size));
}

/* The kernel answers before send() returns. 0 or -1 with errno set. */
static int ask(int fd, const struct message *message)
{
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		char rest[256];
	} answer;

	if (send(fd, message, message->header.nlmsg_len, 0) < 0 ||
	    recv(fd, &answer, sizeof(answer), 0) < (ssize_t)NLMSG_LENGTH(sizeof(answer.error)))
		return -1;
	errno = -answer.error.error;
	return errno ? -1 : 0;
}

static int set(int fd, int index, const struct in6_addr *ip, unsigned int prefix,
	       const struct in6_addr *gateway)
{
	struct message message;

	begin(&message, RTM_NEWADDR, sizeof(message.address));
	message.address = (struct ifaddrmsg){ .ifa_family = AF_INET6,
					      .ifa_prefixlen = (unsigned char)prefix,
					      .ifa_flags = IFA_F_NODAD,
					      .ifa_index = (unsigned int)index };
	add(&message, IFA_ADDRESS, ip, sizeof(*ip));
	if (ask(fd, &message) < 0)
		return -1;
	if (!gateway)
		return 0;
	begin(&message, RTM_NEWROUTE, sizeof(message.route));
	message.route = (struct rtmsg){ .rtm_family = AF_INET6,
					.rtm_table = RT_TABLE_MAIN,
					.rtm_protocol = RTPROT_STATIC,
					.rtm_scope = RT_SCOPE_UNIVERSE,
					.rtm_type = RTN_UNICAST };
	add(&message, RTA_OIF, &index, sizeof(index));
	add(&message, RTA_GATEWAY, gateway, sizeof(*gateway));
	return ask(fd, &message);
}

static void set_option(const char *interface, const char *option)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/%s", interface, option);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	/* A kernel without it has no IPv6, and ipv6_set says so. */
	(void)!write(fd, "0", 1);
	close(fd);
}

void ipv6_keep_one_address(const char *interface)
{
	set_option(interface, "accept_dad");
	set_option(interface, "accept_ra");
}

int ipv6_set(const char *interface, const char *text, struct failure *failure)
{
	char copy[128], *rest = copy;
	const char *address, *gateway;
	struct in6_addr ip, gateway_ip;
	unsigned long prefix = 129;
	int fd, rc;

	snprintf(copy, sizeof(copy), "%s", text);
	address = strsep(&rest, "/");
	gateway = rest ? strchr(rest, ',') : NULL;
	if (rest)
		prefix = strtoul(rest, &rest, 10);
	if (prefix > 128 || (rest && *rest && *rest != ',') ||
	    inet_pton(AF_INET6, address, &ip) != 1 ||
	    (gateway && inet_pton(AF_INET6, gateway + 1, &gateway_ip) != 1))
		return failure_set(failure,
				   "network: ADDRESS/PREFIX[,GATEWAY] is expected of IPv6");
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	rc = fd < 0 ? -1
		    : set(fd, (int)if_nametoindex(interface), &ip, (unsigned int)prefix,
			  gateway ? &gateway_ip : NULL);
	if (rc < 0)
		rc = failure_sys(failure, errno, "%s: the IPv6 address or gateway cannot be set",
				 interface);
	if (fd >= 0)
		close(fd);
	return rc;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/route.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "failure.h"

#define INTERFACE "eth0"

static struct sockaddr address_of(struct in_addr ip)
{
	const struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr = ip };
	struct sockaddr address;

	memcpy(&address, &in, sizeof(address));
	return address;
}

static int bring_up(int fd, const char *name)
{
	struct ifreq request = { 0 };

	strcpy(request.ifr_name, name);
	if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
		return -1;
	request.ifr_flags = (short)(request.ifr_flags | IFF_UP);
	return ioctl(fd, SIOCSIFFLAGS, &request);
}

static int set_address(int fd, struct in_addr ip, unsigned int prefix)
{
	struct ifreq request = { .ifr_name = INTERFACE };
	const struct in_addr mask = { prefix ? htonl(UINT32_MAX << (32 - prefix)) : 0 };

	request.ifr_addr = address_of(ip);
	if (ioctl(fd, SIOCSIFADDR, &request) < 0)
		return -1;
	request.ifr_addr = address_of(mask);
	if (ioctl(fd, SIOCSIFNETMASK, &request) < 0)
		return -1;
	return bring_up(fd, INTERFACE);
}

static int set_gateway(int fd, struct in_addr ip)
{
	const struct in_addr any = { 0 };
	struct rtentry route = {
		.rt_dst = address_of(any),
		.rt_genmask = address_of(any),
		.rt_gateway = address_of(ip),
		.rt_flags = RTF_UP | RTF_GATEWAY,
	};

	return ioctl(fd, SIOCADDRT, &route);
}

static void write_resolver(const char *dns)
{
	FILE *out;

	mkdir("/etc", 0755);
	out = fopen("/etc/resolv.conf", "we");
	if (out) {
		fprintf(out, "nameserver %s\n", dns);
		fclose(out);
	}
}

static int configure(int fd, char *text, struct failure *failure)
{
	char *address = strsep(&text, ","), *gateway = strsep(&text, ","), *dns = text;
	char *prefix = address ? strchr(address, '/') : NULL;
	struct in_addr ip, gateway_ip;
	char *end = NULL;
	unsigned long bits = 33;

	if (prefix) {
		*prefix++ = '\0';
		bits = strtoul(prefix, &end, 10);
	}
	if (!prefix || end == prefix || *end || bits > 32 ||
	    inet_pton(AF_INET, address, &ip) != 1 ||
	    (gateway && inet_pton(AF_INET, gateway, &gateway_ip) != 1)) {
		return failure_set(failure, "network: ADDRESS/PREFIX[,GATEWAY[,DNS]] is expected");
	}
	if (set_address(fd, ip, (unsigned int)bits) < 0)
		return failure_sys(failure, errno, INTERFACE ": the address cannot be set");
	if (gateway && set_gateway(fd, gateway_ip) < 0 && errno != EEXIST)
		return failure_sys(failure, errno, INTERFACE ": the gateway cannot be set");
	if (dns)
		write_resolver(dns);
	return 0;
}

int network_set_up(const char *address, struct failure *failure)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char text[256];
	int rc = 0;

	if (fd < 0)
		return address ? failure_sys(failure, errno, "network: a socket") : 0;
	(void)bring_up(fd, "lo");
	if (address) {
		snprintf(text, sizeof(text), "%s", address);
		rc = configure(fd, text, failure);
	}
	close(fd);
	return rc;
}

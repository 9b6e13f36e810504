/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <net/if.h>
#include <net/route.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest/etc.h"
#include "guest/failure.h"
#include "guest/ipv6.h"

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

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
		return -1;
	request.ifr_flags = (short)(request.ifr_flags | IFF_UP);
	return ioctl(fd, SIOCSIFFLAGS, &request);
}

static int set_address(int fd, const char *name, struct in_addr ip, unsigned int prefix)
{
	struct ifreq request = { 0 };
	const struct in_addr mask = { prefix ? htonl(UINT32_MAX << (32 - prefix)) : 0 };

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	request.ifr_addr = address_of(ip);
	if (ioctl(fd, SIOCSIFADDR, &request) < 0)
		return -1;
	request.ifr_addr = address_of(mask);
	if (ioctl(fd, SIOCSIFNETMASK, &request) < 0)
		return -1;
	return bring_up(fd, name);
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

/* Of eth0, and the rest, for what changes later. */
static struct network current;
static char current_address[INET_ADDRSTRLEN];
static char current_dns[INET_ADDRSTRLEN];
static char current_hostname[HOST_NAME_MAX + 1];

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
	if (set_address(fd, INTERFACE, ip, (unsigned int)bits) < 0)
		return failure_sys(failure, errno, INTERFACE ": the address cannot be set");
	if (gateway && set_gateway(fd, gateway_ip) < 0 && errno != EEXIST)
		return failure_sys(failure, errno, INTERFACE ": the gateway cannot be set");
	snprintf(current_address, sizeof(current_address), "%s", address);
	current.names.address = current_address;
	if (dns) {
		snprintf(current_dns, sizeof(current_dns), "%s", dns);
		current.resolver.servers = current_dns;
	}
	return 0;
}

static int set_up_interface(int fd, const char *ipv4, struct failure *failure)
{
	char text[256];

	if (fd < 0)
		return failure_sys(failure, errno, "network: a socket");
	snprintf(text, sizeof(text), "%s", ipv4);
	return configure(fd, text, failure);
}

static int set_up_interfaces(int fd, const struct network *network, struct failure *failure)
{
	(void)bring_up(fd, "lo");
	if (network->ipv6)
		ipv6_keep_one_address(INTERFACE);
	if (network->ipv4 && set_up_interface(fd, network->ipv4, failure) < 0)
		return -1;
	if (!network->ipv6)
		return 0;
	if (!network->ipv4 && bring_up(fd, INTERFACE) < 0)
		return failure_sys(failure, errno, INTERFACE);
	return ipv6_set(INTERFACE, network->ipv6, failure);
}

int network_set_up(const struct network *network, struct failure *failure)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc;

	current = *network;
	rc = set_up_interfaces(fd, network, failure);
	if (fd >= 0)
		close(fd);
	if (network->resolver.servers)
		current.resolver.servers = network->resolver.servers;
	etc_write_names(&current.names);
	if (current.resolver.servers)
		etc_write_resolver(&current.resolver);
	return rc;
}

int network_add_local(const char *address)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc;
	struct in_addr ip;

	if (fd < 0)
		return -1;
	inet_pton(AF_INET, address, &ip);
	/* Under the interface's own name it would take the place of 127.0.0.1. */
	rc = set_address(fd, "lo:0", ip, 32);
	close(fd);
	return rc;
}

int network_change(const char *ipv4, const char *hostname, struct failure *failure)
{
	int fd = ipv4 ? socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
	int rc = ipv4 ? set_up_interface(fd, ipv4, failure) : 0;

	if (fd >= 0)
		close(fd);
	if (rc < 0)
		return rc;
	if (hostname && sethostname(hostname, strlen(hostname)) < 0)
		return failure_sys(failure, errno, "resume: hostname");
	if (hostname) {
		snprintf(current_hostname, sizeof(current_hostname), "%s", hostname);
		current.names.hostname = current_hostname;
	}
	if (ipv4 || hostname)
		etc_write_names(&current.names);
	if (ipv4 && current.resolver.servers)
		etc_write_resolver(&current.resolver);
	return 0;
}

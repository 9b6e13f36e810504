/* SPDX-License-Identifier: Apache-2.0 */
#include "setup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROOT_DEVICE "/dev/vda"
#define INTERFACE "eth0"

bool setup_option(const char *name, char *value, size_t size)
{
	char line[4096];
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);
	size_t length = strlen(name);
	char *rest = line, *word;

	if (fd >= 0)
		close(fd);
	if (n < 0)
		return false;
	line[n] = '\0';
	while ((word = strsep(&rest, " \n")) != NULL) {
		if (strncmp(word, name, length) == 0 && word[length] == '=') {
			snprintf(value, size, "%s", word + length + 1);
			return true;
		}
	}
	return false;
}

static int fail(char *failure, const char *what)
{
	int saved = errno;

	snprintf(failure, SETUP_FAILURE, "%s: %s", what, strerror(saved));
	return -saved;
}

static int mount_image(const char *target, unsigned long flags)
{
	static const char *const types[] = { "ext4", "erofs" };

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		if (mount(ROOT_DEVICE, target, types[i], flags, NULL) == 0)
			return 0;
		/* Another file system, or one that this kernel does not have. */
		if (errno != EINVAL && errno != ENODEV)
			return -1;
	}
	errno = EINVAL;
	return -1;
}

/* The image below, memory on top. */
static int mount_overlay(void)
{
	mkdir("/image", 0755);
	mkdir("/changes", 0755);
	if (mount_image("/image", MS_RDONLY) < 0 ||
	    mount("tmpfs", "/changes", "tmpfs", 0, "mode=755") < 0)
		return -1;
	mkdir("/changes/upper", 0755);
	mkdir("/changes/work", 0755);
	return mount("overlay", "/root-fs", "overlay", 0,
		     "lowerdir=/image,upperdir=/changes/upper,workdir=/changes/work");
}

int setup_root(const char *mode, char *failure)
{
	bool writable = strcmp(mode, "rw") == 0;

	mkdir("/root-fs", 0755);
	if ((writable ? mount_image("/root-fs", 0) : mount_overlay()) < 0)
		return fail(failure, "the root image (" ROOT_DEVICE ") cannot be mounted");
	if (chdir("/root-fs") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0)
		return fail(failure, "the root image cannot become the root");
	return 0;
}

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

static int configure(int fd, char *text, char *failure)
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
		snprintf(failure, SETUP_FAILURE,
			 "mote.net: ADDRESS/PREFIX[,GATEWAY[,DNS]] is expected");
		return -EINVAL;
	}
	if (set_address(fd, ip, (unsigned int)bits) < 0)
		return fail(failure, INTERFACE ": the address cannot be set");
	if (gateway && set_gateway(fd, gateway_ip) < 0)
		return fail(failure, INTERFACE ": the gateway cannot be set");
	if (dns)
		write_resolver(dns);
	return 0;
}

int setup_network(const char *address, char *failure)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char text[256];
	int rc = 0;

	if (fd < 0)
		return address ? fail(failure, "a socket") : 0;
	(void)bring_up(fd, "lo");
	if (address) {
		snprintf(text, sizeof(text), "%s", address);
		rc = configure(fd, text, failure);
	}
	close(fd);
	return rc;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot, and COUNT times back from it: snapshot_bench COUNT MOTE_VMM KIND KERNEL [INITRD], in
 *an empty directory on a tmpfs. KIND is what shows that the guest goes on: output	a guest that
 *writes 64 MiB, says "ready" and writes on to its serial port
 *	echo	one byte to a vsock stream and back, of a guest with echo_init
 *	exec	`true`, run by the guest's agent
 * Lines "NAME MICROSECONDS": pause, create; then of each time api (from exec), load (its answer,
 * with resume_vm), load_to_KIND and exec_to_KIND. A file `disk` becomes its drive, and with TAP in
 *the environment the guest has that interface.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/bench/client.h"

#define VSOCK "v.sock"
#define EXEC_TRUE "{\"exec\": {\"argv\": [\"true\"]}}"

/* Reads the serial port up to this word. */
static void wait_for_word(int out, const char *word)
{
	char text[8192];
	size_t used = 0;

	while (used < sizeof(text) - 1) {
		ssize_t n = read(out, text + used, 1);

		if (n != 1)
			fail(word);
		text[++used] = '\0';
		if (strstr(text, word))
			return;
	}
	fail(word);
}

/* The agent connects to port 52 of the host when it is ready. */
static int listen_for_agent(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = VSOCK "_52" };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 1) < 0)
		fail(VSOCK "_52");
	return fd;
}

static int connect_guest(unsigned int port)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = VSOCK };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char line[32];
	int size = snprintf(line, sizeof(line), "CONNECT %u\n", port);

	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    write(fd, line, (size_t)size) != size)
		fail(VSOCK);
	do {
		if (read(fd, line, 1) != 1)
			fail("the guest's stream");
	} while (line[0] != '\n');
	return fd;
}

static void echo(void)
{
	int fd = connect_guest(7000);
	char byte = 'x';

	if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1 || byte != 'x')
		fail("the guest's echo");
	close(fd);
}

/* A frame of the type REQUEST (docs/agent-protocol.md); the answer ends with the stream. */
static void exec_true(void)
{
	static const char frame[] = "\x01\x1c\0\0\0" EXEC_TRUE;
	char answer[1024];
	size_t used = 0;
	ssize_t n;
	int fd = connect_guest(52);

	_Static_assert(sizeof(EXEC_TRUE) - 1 == 0x1c, "the frame's length is another");
	if (write(fd, frame, sizeof(frame) - 1) != sizeof(frame) - 1)
		fail("the agent's stream");
	while ((n = read(fd, answer + used, sizeof(answer) - used)) > 0)
		used += (size_t)n;
	if (n < 0 || !memmem(answer, used, "\"code\": 0", 9))
		fail("the agent's answer");
	close(fd);
}

static void configure(const struct client *client, const char *kernel, const char *initrd)
{
	const char *tap = getenv("TAP");

	request(client, "PUT /machine-config", "{\"vcpu_count\": 1, \"mem_size_mib\": 128}");
	request(client, "PUT /boot-source",
		"{\"kernel_image_path\": \"%s\", \"boot_args\": \"mib=64 console=ttyS0 quiet "
		"panic=-1 8250.nr_uarts=1 reboot=k\"%s%s%s}",
		kernel, initrd ? ", \"initrd_path\": \"" : "", initrd ? initrd : "",
		initrd ? "\"" : "");
	if (access("disk", F_OK) == 0)
		request(client, "PUT /drives/disk",
			"{\"drive_id\": \"disk\", \"path_on_host\": \"disk\", "
			"\"is_root_device\": false}");
	if (tap)
		request(client, "PUT /network-interfaces/net",
			"{\"iface_id\": \"net\", \"host_dev_name\": \"%s\"}", tap);
	if (initrd)
		request(client, "PUT /vsock", "{\"guest_cid\": 3, \"uds_path\": \"" VSOCK "\"}");
	request(client, "PUT /actions", "{\"action_type\": \"InstanceStart\"}");
}

static void save(const char *vmm, const char *kind, const char *kernel, const char *initrd)
{
	bool agent = strcmp(kind, "exec") == 0;
	int listener = agent ? listen_for_agent() : -1;
	struct client client;
	int64_t start;

	client_open(&client, vmm);
	configure(&client, kernel, initrd);
	if (!agent)
		wait_for_word(client.out, "ready");
	else if (accept(listener, NULL, NULL) < 0)
		fail("the agent");
	else
		exec_true();
	start = now_ns();
	request(&client, "PATCH /vm", "{\"state\": \"Paused\"}");
	report("pause", start);
	start = now_ns();
	request(&client, "PUT /snapshot/create",
		"{\"snapshot_path\": \"state\", \"mem_file_path\": \"memory\"}");
	report("create", start);
	client_kill(&client);
	unlink(VSOCK);
}

static void go_on(const struct client *client, const char *kind)
{
	char byte;

	if (strcmp(kind, "echo") == 0)
		echo();
	else if (strcmp(kind, "exec") == 0)
		exec_true();
	else if (read(client->out, &byte, 1) != 1)
		fail("the guest's output");
}

static void load(const char *vmm, const char *kind)
{
	struct client client;
	char name[32];
	int64_t start;

	client_open(&client, vmm);
	report("api", client.start_ns);
	start = now_ns();
	request(&client, "PUT /snapshot/load",
		"{\"snapshot_path\": \"state\", \"mem_backend\": {\"backend_type\": \"File\", "
		"\"backend_path\": \"memory\"}, \"resume_vm\": true}");
	report("load", start);
	go_on(&client, kind);
	snprintf(name, sizeof(name), "load_to_%s", kind);
	report(name, start);
	snprintf(name, sizeof(name), "exec_to_%s", kind);
	report(name, client.start_ns);
	client_kill(&client);
	unlink(VSOCK);
}

int main(int argc, char **argv)
{
	int count = argc == 5 || argc == 6 ? atoi(argv[1]) : 0;

	if (count > 0)
		save(argv[2], argv[3], argv[4], argv[5]);
	for (int i = 0; i < count; i++)
		load(argv[2], argv[3]);
	return count > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

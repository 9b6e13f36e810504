/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wall-clock of the API of mote-vmm: api_bench COUNT MOTE_VMM KERNEL DRIVE, in an empty directory.
 * Of COUNT VMs, lines "NAME MICROSECONDS":
 *   exec_to_answer  from exec to the answer to GET /
 *   put             one PUT /machine-config on a connection that is there, many of them
 *   configure       six PUTs (one of them of the drive DRIVE) and InstanceStart, up to the first
 *                   byte that the guest writes
 *   start           of which InstanceStart's answer alone
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/client.h"

#define PUTS 100

static void run_one(const char *vmm, const char *kernel, const char *drive)
{
	struct client client;
	int64_t start, starting;
	int status;
	char byte;

	client_open(&client, vmm);
	request(&client, "GET /", "%s", "");
	report("exec_to_answer", client.start_ns);
	for (int i = 0; i < PUTS; i++) {
		start = now_ns();
		request(&client, "PUT /machine-config", "{\"vcpu_count\": 1, \"mem_size_mib\": %d}",
			100 + i);
		report("put", start);
	}
	start = now_ns();
	request(&client, "PUT /logger", "{\"level\": \"Warning\"}");
	request(&client, "PUT /machine-config", "{\"vcpu_count\": 1, \"mem_size_mib\": 128}");
	request(&client, "PUT /boot-source", "{\"kernel_image_path\": \"%s\"}", kernel);
	request(&client, "PUT /drives/rootfs",
		"{\"drive_id\": \"rootfs\", \"path_on_host\": \"%s\", \"is_root_device\": true}",
		drive);
	request(&client, "PUT /vsock", "{\"guest_cid\": 3, \"uds_path\": \"v.sock\"}");
	request(&client, "PUT /serial", "{\"buffer_size\": 16384}");
	starting = now_ns();
	request(&client, "PUT /actions", "{\"action_type\": \"InstanceStart\"}");
	report("start", starting);
	if (read(client.out, &byte, 1) != 1)
		fail("the guest's first byte");
	report("configure", start);
	while (read(client.out, &byte, 1) > 0)
		;
	client_close(&client);
	if (waitpid(client.pid, &status, 0) != client.pid || status != 0)
		fail("mote-vmm's end");
}

int main(int argc, char **argv)
{
	int count = argc == 5 ? atoi(argv[1]) : 0;

	for (int i = 0; i < count; i++)
		run_one(argv[2], argv[3], argv[4]);
	return count > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* PID 1 of a guest that returns each byte of the streams to its vsock port 7000, one at a time. */
#include <linux/vm_sockets.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
	const struct sockaddr_vm address = {
		.svm_family = AF_VSOCK,
		.svm_cid = VMADDR_CID_ANY,
		.svm_port = 7000,
	};
	int listener = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (bind(listener, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(listener, 8) < 0 || write(STDOUT_FILENO, "ready\n", 6) != 6)
		return EXIT_FAILURE;
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		char byte;

		while (read(fd, &byte, 1) == 1 && write(fd, &byte, 1) == 1)
			;
		close(fd);
	}
}

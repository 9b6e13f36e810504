/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is what a client of the API sends, in two parts: the first byte says where it is cut.
 * The VM has ended, so that no request touches a file before it is refused.
 */
#include <event2/event.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api-socket/api.h"
#include "api-socket/http_connection.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/log.h"
#include "tests/fuzz/fuzz.h"
#include "vmm/control.h"

#define INPUT_MAX 32768

static struct control control;
static struct api api;
static struct event_base *base;

/* Nobody connects at its socket, which nobody need find. */
static void open_once(void)
{
	char folder[] = "/tmp/mote-fuzz-XXXXXX", path[sizeof(folder) + 2];
	struct err err;

	if (base)
		return;
	log_set_level(LOG_OFF);
	base = event_base_new();
	REQUIRE(control_open(&control, base, NULL) == 0);
	control.state = CONTROL_ENDED;
	REQUIRE(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/s", folder);
	REQUIRE(api_open(&api, &control, "fuzz", path, 1000, &err) == 0);
	unlink(path);
	rmdir(folder);
}

static void put(int fd, const uint8_t *data, size_t size)
{
	if (size > 0)
		(void)send(fd, data, size, MSG_NOSIGNAL);
	for (unsigned int i = 0; i < 4; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char answer[INPUT_MAX];
	int fds[2];
	size_t cut;
	ssize_t n;

	if (size < 2 || size > INPUT_MAX)
		return 0;
	open_once();
	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
	http_connection_open(api.server, fds[0], true);
	cut = data[0] * (size - 1) / 255;
	put(fds[1], data + 1, cut);
	put(fds[1], data + 1 + cut, size - 1 - cut);
	n = recv(fds[1], answer, sizeof(answer), 0);
	REQUIRE(n <= 0 || (n > 12 && memcmp(answer, "HTTP/1.1 ", 9) == 0));
	close(fds[1]);
	while (api.server->count > 0)
		event_base_loop(base, EVLOOP_ONCE);
	REQUIRE(api.server->turned_away == 0);
	REQUIRE(control.state == CONTROL_ENDED);
	return 0;
}

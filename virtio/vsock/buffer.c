/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/vsock/buffer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static void append(struct vsock_buffer *buffer, const uint8_t *from, uint32_t len)
{
	uint32_t end = (buffer->start + buffer->used) % VSOCK_BUFFER_SIZE;
	uint32_t first = VSOCK_BUFFER_SIZE - end < len ? VSOCK_BUFFER_SIZE - end : len;

	memcpy(buffer->data + end, from, first);
	memcpy(buffer->data, from + first, len - first);
	buffer->used += len;
}

int vsock_buffer_append(struct vsock_buffer *buffer, const struct iovec *iov, unsigned int count)
{
	if (!buffer->data)
		buffer->data = malloc(VSOCK_BUFFER_SIZE);
	if (!buffer->data)
		return -ENOMEM;
	for (unsigned int i = 0; i < count; i++)
		append(buffer, iov[i].iov_base, (uint32_t)iov[i].iov_len);
	return 0;
}

/* One write of the most that lies there: the number of bytes or -errno. */
static ssize_t write_some(const struct vsock_buffer *buffer, int fd)
{
	uint32_t to_end = VSOCK_BUFFER_SIZE - buffer->start;
	uint32_t first = buffer->used < to_end ? buffer->used : to_end;
	struct iovec iov[2] = {
		{ buffer->data + buffer->start, first },
		{ buffer->data, buffer->used - first },
	};
	const struct msghdr message = { .msg_iov = iov,
					.msg_iovlen = buffer->used > first ? 2 : 1 };
	ssize_t n;

	do {
		n = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

ssize_t vsock_buffer_flush(struct vsock_buffer *buffer, int fd)
{
	ssize_t n, total = 0;

	/* To the end or to EAGAIN, behind which there will be an event. */
	while (buffer->used > 0) {
		n = write_some(buffer, fd);
		if (n == -EAGAIN)
			return total;
		if (n < 0)
			return n;
		buffer->start = (buffer->start + (uint32_t)n) % VSOCK_BUFFER_SIZE;
		buffer->used -= (uint32_t)n;
		total += n;
	}
	vsock_buffer_drop(buffer);
	return total;
}

void vsock_buffer_drop(struct vsock_buffer *buffer)
{
	free(buffer->data);
	*buffer = (struct vsock_buffer){ 0 };
}

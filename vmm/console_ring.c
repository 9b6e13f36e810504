/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/console_ring.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/state.h"

int console_ring_open(struct console_ring *ring, size_t size, struct err *err)
{
	memset(ring, 0, sizeof(*ring));
	ring->bytes = malloc(size);
	ring->size = size;
	ring->notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!ring->bytes || ring->notify_fd < 0) {
		int rc = err_sys(err, ring->bytes ? errno : ENOMEM, "console buffer");

		fd_close(&ring->notify_fd);
		free(ring->bytes);
		ring->bytes = NULL;
		return rc;
	}
	pthread_mutex_init(&ring->lock, NULL);
	return 0;
}

void console_ring_close(struct console_ring *ring)
{
	if (!ring->bytes)
		return;
	fd_close(&ring->notify_fd);
	free(ring->bytes);
	ring->bytes = NULL;
	pthread_mutex_destroy(&ring->lock);
}

int console_ring_resize(struct console_ring *ring, size_t size, struct err *err)
{
	uint8_t *bytes = malloc(size);

	if (!bytes)
		return err_sys(err, ENOMEM, "console buffer of %zu bytes", size);
	pthread_mutex_lock(&ring->lock);
	free(ring->bytes);
	ring->bytes = bytes;
	ring->size = size;
	ring->written = 0;
	pthread_mutex_unlock(&ring->lock);
	return 0;
}

void console_ring_put(struct console_ring *ring, uint8_t byte)
{
	pthread_mutex_lock(&ring->lock);
	ring->bytes[ring->written++ % ring->size] = byte;
	if (ring->watched)
		fd_signal(ring->notify_fd);
	ring->watched = false;
	pthread_mutex_unlock(&ring->lock);
}

char *console_ring_read(struct console_ring *ring, uint64_t *seen, size_t *len)
{
	char *copy = NULL;
	uint64_t count;

	fd_unsignal(ring->notify_fd);
	pthread_mutex_lock(&ring->lock);
	ring->watched = true;
	count = ring->written - *seen;
	if (count > ring->size)
		count = ring->size;
	if (count > 0)
		copy = malloc(count);
	if (copy) {
		size_t start = (ring->written - count) % ring->size;
		size_t first = ring->size - start < count ? ring->size - start : count;

		memcpy(copy, ring->bytes + start, first);
		memcpy(copy + first, ring->bytes, count - first);
		*seen = ring->written;
		*len = count;
	}
	pthread_mutex_unlock(&ring->lock);
	return copy;
}

void console_ring_save(struct console_ring *ring, struct state_writer *out)
{
	size_t count, start, first;

	pthread_mutex_lock(&ring->lock);
	count = ring->written < ring->size ? ring->written : ring->size;
	start = (ring->written - count) % ring->size;
	first = ring->size - start < count ? ring->size - start : count;
	state_put_u32(out, (uint32_t)count);
	state_put_bytes(out, ring->bytes + start, first);
	state_put_bytes(out, ring->bytes, count - first);
	pthread_mutex_unlock(&ring->lock);
}

int console_ring_restore(struct console_ring *ring, struct state_reader *in, uint32_t version,
			 struct err *err)
{
	const uint32_t count = state_get_u32(in);

	(void)version;
	if (in->failed || count != in->left)
		return err_set(err, EINVAL,
			       "console buffer: its saved state is cut off, or has another size");
	if (count > ring->size)
		return err_set(err, EINVAL,
			       "console buffer: has %zu bytes, and %" PRIu32 " are saved",
			       ring->size, count);
	pthread_mutex_lock(&ring->lock);
	state_get_bytes(in, ring->bytes, count);
	ring->written = count;
	if (ring->watched)
		fd_signal(ring->notify_fd);
	ring->watched = false;
	pthread_mutex_unlock(&ring->lock);
	return 0;
}

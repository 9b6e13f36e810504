/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/vsock/table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/fd.h"
#include "virtio/vsock/metrics.h"

void vsock_table_init(struct vsock_table *table)
{
	memset(table, 0, sizeof(*table));
	TAILQ_INIT(&table->all);
	TAILQ_INIT(&table->waiting);
	/* The guest chooses ports; it shall not know which of them share a bucket. */
	if (getrandom(&table->hash_key, sizeof(table->hash_key), GRND_NONBLOCK) < 0)
		table->hash_key = (uint64_t)clock_ns();
	table->hash_key |= 1;
	table->last_port = VSOCK_HOST_PORTS_END - 1;
	table->timeouts = (struct vsock_timeouts){ VSOCK_HANDSHAKE_TIMEOUT, VSOCK_CONNECT_TIMEOUT,
						   VSOCK_CLOSE_TIMEOUT, VSOCK_LINGER_TIMEOUT };
}

static unsigned int bucket_of(const struct vsock_table *table, uint32_t host_port,
			      uint32_t guest_port)
{
	uint64_t ports = (uint64_t)host_port << 32 | guest_port;

	ports ^= ports >> 29;
	return (unsigned int)(ports * table->hash_key >> (64 - VSOCK_BUCKET_BITS));
}

struct vsock_connection *vsock_table_find(const struct vsock_table *table, uint32_t host_port,
					  uint32_t guest_port)
{
	struct vsock_connection *at = table->buckets[bucket_of(table, host_port, guest_port)];

	while (at && (at->host_port != host_port || at->guest_port != guest_port))
		at = at->bucket_next;
	return at;
}

void vsock_table_set_ports(struct vsock_connection *connection, uint32_t host_port,
			   uint32_t guest_port)
{
	struct vsock_table *table = connection->table;
	struct vsock_connection **bucket = &table->buckets[bucket_of(table, host_port, guest_port)];

	connection->host_port = host_port;
	connection->guest_port = guest_port;
	connection->bucket_next = *bucket;
	connection->has_ports = true;
	*bucket = connection;
	table->metrics->conns_added++;
}

void vsock_table_clear_ports(struct vsock_connection *connection)
{
	struct vsock_table *table = connection->table;
	struct vsock_connection **at =
		&table->buckets[bucket_of(table, connection->host_port, connection->guest_port)];

	if (!connection->has_ports)
		return;
	while (*at != connection)
		at = &(*at)->bucket_next;
	*at = connection->bucket_next;
	connection->has_ports = false;
	table->metrics->conns_removed++;
}

static bool port_is_used(const struct vsock_table *table, uint32_t host_port)
{
	const struct vsock_connection *at;

	TAILQ_FOREACH(at, &table->all, all)
	{
		if (at->has_ports && at->host_port == host_port)
			return true;
	}
	return false;
}

uint32_t vsock_table_new_port(struct vsock_table *table)
{
	do {
		table->last_port++;
		if (table->last_port >= VSOCK_HOST_PORTS_END)
			table->last_port = VSOCK_HOST_PORTS_START;
	} while (port_is_used(table, table->last_port));
	return table->last_port;
}

static void free_events(struct vsock_connection *connection)
{
	if (connection->read_event)
		event_free(connection->read_event);
	if (connection->write_event)
		event_free(connection->write_event);
	connection->read_event = NULL;
	connection->write_event = NULL;
}

static bool make_events(struct vsock_connection *connection, int fd)
{
	const struct vsock_table *table = connection->table;

	/*
	 * Edges: whoever cannot be served now keeps its `readable` and costs nothing until it can.
	 */
	connection->read_event = event_new(table->base, fd, EV_READ | EV_PERSIST | EV_ET,
					   table->on_readable, connection);
	connection->write_event = event_new(table->base, fd, EV_WRITE | EV_PERSIST | EV_ET,
					    table->on_writable, connection);
	return connection->read_event && connection->write_event &&
	       event_add(connection->read_event, NULL) == 0;
}

struct vsock_connection *vsock_table_add(struct vsock_table *table, int fd, enum vsock_state state)
{
	struct vsock_connection *connection;

	if (table->count >= VSOCK_CONNECTIONS_MAX)
		return NULL;
	connection = calloc(1, sizeof(*connection));
	if (!connection)
		return NULL;
	connection->table = table;
	if (!make_events(connection, fd)) {
		free_events(connection);
		free(connection);
		return NULL;
	}
	connection->fd = fd;
	connection->state = (uint8_t)state;
	table->handshakes += state == VSOCK_HANDSHAKE;
	TAILQ_INSERT_TAIL(&table->all, connection, all);
	table->count++;
	return connection;
}

void vsock_table_close_host(struct vsock_connection *connection)
{
	free_events(connection);
	vsock_buffer_drop(&connection->buffer);
	fd_close(&connection->fd);
}

void vsock_table_remove(struct vsock_connection *connection)
{
	struct vsock_table *table = connection->table;

	vsock_table_close_host(connection);
	vsock_table_clear_ports(connection);
	table->handshakes -= connection->state == VSOCK_HANDSHAKE;
	if (connection->is_waiting)
		TAILQ_REMOVE(&table->waiting, connection, waiting);
	TAILQ_REMOVE(&table->all, connection, all);
	table->count--;
	free(connection);
}

void vsock_table_remove_all(struct vsock_table *table)
{
	struct vsock_connection *at, *next;

	for (at = TAILQ_FIRST(&table->all); at; at = next) {
		next = TAILQ_NEXT(at, all);
		vsock_table_remove(at);
	}
	if (table->timer)
		event_del(table->timer);
	table->next_deadline = 0;
}

void vsock_table_wait(struct vsock_connection *connection)
{
	if (connection->is_waiting)
		return;
	TAILQ_INSERT_TAIL(&connection->table->waiting, connection, waiting);
	connection->is_waiting = true;
}

struct vsock_connection *vsock_table_next(struct vsock_table *table)
{
	struct vsock_connection *first = TAILQ_FIRST(&table->waiting);

	if (!first)
		return NULL;
	TAILQ_REMOVE(&table->waiting, first, waiting);
	first->is_waiting = false;
	return first;
}

static void set_timer(struct vsock_table *table, int64_t deadline, int64_t at)
{
	/* Rounded up, so as not to come too early. */
	int64_t us = deadline > at ? (deadline - at) / 1000 + 1 : 0;
	struct timeval delay = { us / 1000000, us % 1000000 };

	table->next_deadline = deadline;
	evtimer_add(table->timer, &delay);
}

void vsock_table_set_deadline(struct vsock_connection *connection, unsigned int timeout)
{
	struct vsock_table *table = connection->table;
	int64_t at = clock_ns();

	connection->deadline = at + timeout * NS_PER_MS;
	if (table->next_deadline == 0 || connection->deadline < table->next_deadline)
		set_timer(table, connection->deadline, at);
}

void vsock_table_clear_deadline(struct vsock_connection *connection)
{
	connection->deadline = 0;
}

struct vsock_connection *vsock_table_expired(struct vsock_table *table)
{
	struct vsock_connection *connection;
	int64_t at = clock_ns(), next = 0;

	table->next_deadline = 0;
	TAILQ_FOREACH(connection, &table->all, all)
	{
		if (connection->deadline == 0)
			continue;
		if (connection->deadline <= at) {
			connection->deadline = 0;
			return connection;
		}
		if (next == 0 || connection->deadline < next)
			next = connection->deadline;
	}
	if (next != 0)
		set_timer(table, next, at);
	return NULL;
}

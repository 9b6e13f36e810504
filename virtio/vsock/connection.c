/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/vsock/connection.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "virtio/vsock/metrics.h"

/* The guest is told of free space when it believes in less than this (5.10.6.3). */
#define LOW_SPACE (VSOCK_BUFFER_SIZE / 2)
/* But not of every byte. */
#define WORTH_TELLING (VSOCK_BUFFER_SIZE / 4)

/* Whether the host's program has closed the stream, not only one direction of it. */
static bool has_hung_up(int fd)
{
	struct pollfd poll_fd = { .fd = fd };

	return poll(&poll_fd, 1, 0) > 0 && poll_fd.revents & (POLLHUP | POLLERR);
}

static void reply(struct vsock_connection *connection, enum vsock_reply flag)
{
	connection->replies |= (uint8_t)flag;
	vsock_table_wait(connection);
}

bool vsock_connection_wants(const struct vsock_connection *connection)
{
	return connection->replies || vsock_connection_room(connection) > 0;
}

static void wait_if_wanted(struct vsock_connection *connection)
{
	if (vsock_connection_wants(connection))
		vsock_table_wait(connection);
}

/* Starts anew whenever the host has read something. */
static void limit_lingering(struct vsock_connection *connection)
{
	vsock_table_set_deadline(connection, connection->table->timeouts.linger);
}

/* The guest hears RST and nothing else; what is in `buffer` may still go to the host. */
static void end_by_reset(struct vsock_connection *connection)
{
	connection->state = VSOCK_RESETTING;
	connection->replies = 0;
	vsock_table_clear_deadline(connection);
	if (connection->buffer.used == 0)
		vsock_table_close_host(connection);
	else
		limit_lingering(connection);
	reply(connection, VSOCK_REPLY_RST);
}

/* Ends a connection that somebody has broken. */
static void kill_connection(struct vsock_connection *connection)
{
	connection->table->metrics->conns_killed++;
	vsock_table_close_host(connection);
	/* The guest has not heard of it yet, and need not. */
	if (connection->replies & VSOCK_REPLY_REQUEST)
		vsock_table_remove(connection);
	else
		end_by_reset(connection);
}

/* The guest does not know the connection any more. What it has sent before is not lost. */
static void linger(struct vsock_connection *connection)
{
	if (connection->buffer.used == 0) {
		vsock_table_remove(connection);
		return;
	}
	connection->state = VSOCK_LINGERING;
	connection->replies = 0;
	limit_lingering(connection);
	vsock_table_clear_ports(connection);
}

/* Ends the connection in order once nothing can flow in either direction. */
static void settle(struct vsock_connection *connection)
{
	uint8_t ours = connection->host_shutdown, theirs = connection->guest_shutdown;
	bool to_guest =
		!(ours & VIRTIO_VSOCK_SHUTDOWN_SEND) && !(theirs & VIRTIO_VSOCK_SHUTDOWN_RCV);
	bool to_host =
		!(ours & VIRTIO_VSOCK_SHUTDOWN_RCV) && !(theirs & VIRTIO_VSOCK_SHUTDOWN_SEND);

	if (to_guest || to_host)
		return;
	if (connection->buffer.used == 0)
		vsock_table_close_host(connection);
	if (theirs == VSOCK_SHUTDOWN_BOTH) {
		if (connection->state < VSOCK_RESETTING)
			end_by_reset(connection);
	} else if (connection->state == VSOCK_ESTABLISHED) {
		connection->state = VSOCK_CLOSING;
		connection->host_shutdown = VSOCK_SHUTDOWN_BOTH;
		vsock_table_set_deadline(connection, connection->table->timeouts.close);
		reply(connection, VSOCK_REPLY_SHUTDOWN);
	}
}

/* Tells the guest which directions the host has closed. */
static void host_has_shut(struct vsock_connection *connection, unsigned int directions)
{
	if (directions & VIRTIO_VSOCK_SHUTDOWN_RCV) {
		vsock_buffer_drop(&connection->buffer);
		connection->forwarded = connection->received;
	}
	connection->host_shutdown |= (uint8_t)directions;
	if (connection->state == VSOCK_ESTABLISHED)
		reply(connection, VSOCK_REPLY_SHUTDOWN);
	settle(connection);
}

/* Passes on what the guest has shut down, once its data has gone out. */
static void shut_host(struct vsock_connection *connection)
{
	if (connection->fd < 0)
		return;
	if (connection->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV)
		shutdown(connection->fd, SHUT_RD);
	if (connection->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND && connection->buffer.used == 0)
		shutdown(connection->fd, SHUT_WR);
}

static void announce_space(struct vsock_connection *connection)
{
	bool flows = connection->state == VSOCK_ESTABLISHED &&
		     !(connection->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND) &&
		     !(connection->host_shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV);

	if (flows && connection->received - connection->announced >= LOW_SPACE &&
	    connection->forwarded - connection->announced >= WORTH_TELLING)
		reply(connection, VSOCK_REPLY_CREDIT_UPDATE);
}

bool vsock_connection_accept(struct vsock_table *table, int fd)
{
	struct vsock_connection *connection = vsock_table_add(table, fd, VSOCK_HANDSHAKE);

	if (!connection)
		return false;
	vsock_table_set_deadline(connection, table->timeouts.handshake);
	return true;
}

static void read_command(struct vsock_connection *connection)
{
	struct vsock_table *table = connection->table;
	uint32_t guest_port;
	int rc = vsock_command_read(&connection->command, connection->fd, &guest_port);

	if (rc == 0)
		return;
	if (rc < 0) {
		vsock_table_remove(connection);
		return;
	}
	table->handshakes--;
	connection->state = VSOCK_CONNECTING;
	vsock_table_set_ports(connection, vsock_table_new_port(table), guest_port);
	vsock_table_set_deadline(connection, table->timeouts.connect);
	reply(connection, VSOCK_REPLY_REQUEST);
}

void vsock_connection_readable(struct vsock_connection *connection)
{
	connection->readable = true;
	switch ((enum vsock_state)connection->state) {
	case VSOCK_HANDSHAKE:
		read_command(connection);
		break;
	case VSOCK_CONNECTING:
		if (has_hung_up(connection->fd))
			kill_connection(connection);
		break;
	case VSOCK_ESTABLISHED:
		/* Where nothing is read any more, no read tells that it has gone altogether. */
		if ((connection->host_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND ||
		     connection->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV) &&
		    has_hung_up(connection->fd))
			host_has_shut(connection, VSOCK_SHUTDOWN_BOTH);
		else
			wait_if_wanted(connection);
		break;
	default:
		break; /* only what is in the buffer counts, and the write event watches that */
	}
}

void vsock_connection_writable(struct vsock_connection *connection)
{
	ssize_t n = vsock_buffer_flush(&connection->buffer, connection->fd);

	if (n < 0) {
		connection->table->metrics->tx_write_fails++;
		host_has_shut(connection, VIRTIO_VSOCK_SHUTDOWN_RCV);
	} else {
		connection->forwarded += (uint32_t)n;
		connection->table->metrics->tx_bytes_count += (uint64_t)n;
	}
	if (connection->buffer.used > 0) {
		if (connection->state >= VSOCK_RESETTING && n > 0)
			limit_lingering(connection);
		announce_space(connection);
		return;
	}
	if (connection->state == VSOCK_LINGERING) {
		vsock_table_remove(connection);
		return;
	}
	if (connection->write_event)
		event_del(connection->write_event);
	shut_host(connection);
	announce_space(connection);
	if (connection->state == VSOCK_RESETTING) {
		vsock_table_clear_deadline(connection);
		vsock_table_close_host(connection);
	} else {
		settle(connection);
	}
}

void vsock_connection_expire(struct vsock_connection *connection)
{
	struct vsock_metrics *metrics = connection->table->metrics;

	switch ((enum vsock_state)connection->state) {
	case VSOCK_HANDSHAKE:
		vsock_table_remove(connection);
		break;
	case VSOCK_CONNECTING:
	case VSOCK_ESTABLISHED:
		kill_connection(connection);
		break;
	case VSOCK_CLOSING:
		metrics->conns_killed++;
		end_by_reset(connection);
		break;
	case VSOCK_RESETTING:
		/* Its RST is still to be sent. */
		metrics->conns_killed++;
		vsock_table_close_host(connection);
		break;
	case VSOCK_LINGERING:
		metrics->conns_killed++;
		vsock_table_remove(connection);
		break;
	}
}

/* A guest connects to who listens on the host. */
static bool dial(struct vsock_table *table, const struct vsock_header *header)
{
	struct vsock_connection *connection;
	int fd;

	if (table->count >= VSOCK_CONNECTIONS_MAX)
		return false;
	fd = vsock_host_dial(table->uds_path, header->dst_port);
	if (fd < 0)
		return false;
	connection = vsock_table_add(table, fd, VSOCK_ESTABLISHED);
	if (!connection) {
		close(fd);
		return false;
	}
	vsock_table_set_ports(connection, header->dst_port, header->src_port);
	connection->guest_buf_alloc = header->buf_alloc;
	connection->guest_fwd_cnt = header->fwd_cnt;
	reply(connection, VSOCK_REPLY_RESPONSE);
	return true;
}

static void receive_response(struct vsock_connection *connection)
{
	if (connection->state != VSOCK_CONNECTING || connection->replies & VSOCK_REPLY_REQUEST ||
	    vsock_command_answer(connection->fd, connection->host_port) < 0) {
		kill_connection(connection);
		return;
	}
	connection->state = VSOCK_ESTABLISHED;
	connection->readable = true;
	vsock_table_clear_deadline(connection);
	wait_if_wanted(connection);
}

static void receive_reset(struct vsock_connection *connection)
{
	bool in_order = connection->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND;

	if (in_order)
		linger(connection);
	else {
		connection->table->metrics->conns_killed += connection->state < VSOCK_CLOSING;
		vsock_table_remove(connection);
	}
}

static void receive_shutdown(struct vsock_connection *connection, uint32_t flags)
{
	if (connection->state != VSOCK_ESTABLISHED && connection->state != VSOCK_CLOSING) {
		kill_connection(connection);
		return;
	}
	connection->guest_shutdown |= flags & VSOCK_SHUTDOWN_BOTH;
	shut_host(connection);
	settle(connection);
}

/* Writes to the host at once what it takes: the number of bytes, or -errno. */
static ssize_t write_through(const struct vsock_connection *connection, struct iovec *payload,
			     unsigned int count)
{
	const struct msghdr message = { .msg_iov = payload, .msg_iovlen = count };
	ssize_t n;

	if (connection->buffer.used > 0)
		return 0;
	n = sendmsg(connection->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	return n;
}

static int store(struct vsock_connection *connection, const struct iovec *rest, unsigned int count)
{
	bool was_empty = connection->buffer.used == 0;
	int rc = vsock_buffer_append(&connection->buffer, rest, count);

	if (rc == 0 && was_empty && event_add(connection->write_event, NULL) < 0)
		return -ENOMEM;
	return rc;
}

static void forward(struct vsock_connection *connection, struct iovec *payload, unsigned int count,
		    uint32_t len)
{
	ssize_t n = write_through(connection, payload, count);

	if (n < 0) {
		connection->table->metrics->tx_write_fails++;
		host_has_shut(connection, VIRTIO_VSOCK_SHUTDOWN_RCV);
		return;
	}
	connection->forwarded += (uint32_t)n;
	connection->table->metrics->tx_bytes_count += (uint64_t)n;
	if ((uint32_t)n < len) {
		count = vsock_slice(payload, payload, count, (size_t)n, len - (uint32_t)n);
		if (store(connection, payload, count) < 0) {
			kill_connection(connection);
			return;
		}
	}
	announce_space(connection);
}

static void receive_data(struct vsock_connection *connection, struct iovec *payload,
			 unsigned int count, uint32_t len)
{
	bool open =
		(connection->state == VSOCK_ESTABLISHED || connection->state == VSOCK_CLOSING) &&
		!(connection->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND);

	if (!open || len > VSOCK_BUFFER_SIZE - (connection->received - connection->forwarded)) {
		kill_connection(connection);
		return;
	}
	connection->received += len;
	/* It may not know yet that nobody reads. */
	if (connection->host_shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV)
		connection->forwarded = connection->received;
	else if (len > 0)
		forward(connection, payload, count, len);
}

static void receive_for(struct vsock_connection *connection, const struct vsock_header *header,
			struct iovec *payload, unsigned int count)
{
	switch ((enum virtio_vsock_op)header->op) {
	case VIRTIO_VSOCK_OP_RESPONSE:
		receive_response(connection);
		break;
	case VIRTIO_VSOCK_OP_RST:
		receive_reset(connection);
		break;
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		receive_shutdown(connection, header->flags);
		break;
	case VIRTIO_VSOCK_OP_RW:
		receive_data(connection, payload, count, header->len);
		break;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
		wait_if_wanted(connection);
		break;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		reply(connection, VSOCK_REPLY_CREDIT_UPDATE);
		break;
	default:
		kill_connection(connection);
		break;
	}
}

bool vsock_connection_receive(struct vsock_table *table, const struct vsock_header *header,
			      struct iovec *payload, unsigned int count)
{
	struct vsock_connection *connection =
		vsock_table_find(table, header->dst_port, header->src_port);

	if (!connection) {
		if (header->op == VIRTIO_VSOCK_OP_REQUEST)
			return dial(table, header);
		return header->op == VIRTIO_VSOCK_OP_RST;
	}
	/* A RST is on its way already. */
	if (connection->state == VSOCK_RESETTING && header->op != VIRTIO_VSOCK_OP_RST)
		return true;
	connection->guest_buf_alloc = header->buf_alloc;
	connection->guest_fwd_cnt = header->fwd_cnt;
	/* Whatever it says, it may bring credit. */
	wait_if_wanted(connection);
	receive_for(connection, header, payload, count);
	return true;
}

static void fill_header(struct vsock_connection *connection, struct vsock_header *header,
			enum virtio_vsock_op op)
{
	*header = (struct vsock_header){
		.src_cid = VSOCK_HOST_CID,
		.dst_cid = connection->table->guest_cid,
		.src_port = connection->host_port,
		.dst_port = connection->guest_port,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = (uint16_t)op,
		.buf_alloc = VSOCK_BUFFER_SIZE,
		.fwd_cnt = connection->forwarded,
	};
	connection->announced = connection->forwarded;
}

bool vsock_connection_reply(struct vsock_connection *connection, struct vsock_header *header)
{
	static const struct {
		uint8_t reply;
		uint8_t op;
	} order[] = {
		{ VSOCK_REPLY_REQUEST, VIRTIO_VSOCK_OP_REQUEST },
		{ VSOCK_REPLY_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE },
		{ VSOCK_REPLY_CREDIT_UPDATE, VIRTIO_VSOCK_OP_CREDIT_UPDATE },
		{ VSOCK_REPLY_SHUTDOWN, VIRTIO_VSOCK_OP_SHUTDOWN },
		{ VSOCK_REPLY_RST, VIRTIO_VSOCK_OP_RST },
	};
	unsigned int i = 0;

	if (!connection->replies)
		return false;
	while (!(connection->replies & order[i].reply))
		i++;
	connection->replies &= (uint8_t)~order[i].reply;
	fill_header(connection, header, (enum virtio_vsock_op)order[i].op);
	if (order[i].op == VIRTIO_VSOCK_OP_SHUTDOWN)
		header->flags = connection->host_shutdown;
	return true;
}

void vsock_connection_reset_sent(struct vsock_connection *connection)
{
	linger(connection);
}

uint32_t vsock_connection_room(const struct vsock_connection *connection)
{
	uint32_t in_flight = connection->sent - connection->guest_fwd_cnt;

	if (connection->state != VSOCK_ESTABLISHED || !connection->readable ||
	    connection->host_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND ||
	    connection->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV ||
	    in_flight >= connection->guest_buf_alloc)
		return 0;
	return connection->guest_buf_alloc - in_flight;
}

uint32_t vsock_connection_read(struct vsock_connection *connection, const struct iovec *iov,
			       unsigned int count)
{
	ssize_t n = readv(connection->fd, iov, (int)count);

	if (n > 0) {
		connection->sent += (uint32_t)n;
		connection->table->metrics->rx_bytes_count += (uint64_t)n;
		return (uint32_t)n;
	}
	if (n < 0 && errno == EINTR)
		return 0;
	connection->readable = false;
	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n < 0)
		connection->table->metrics->rx_read_fails++;
	if (n < 0 || has_hung_up(connection->fd))
		host_has_shut(connection, VSOCK_SHUTDOWN_BOTH);
	else
		host_has_shut(connection, VIRTIO_VSOCK_SHUTDOWN_SEND);
	return 0;
}

void vsock_connection_data(struct vsock_connection *connection, struct vsock_header *header,
			   uint32_t len)
{
	fill_header(connection, header, VIRTIO_VSOCK_OP_RW);
	header->len = len;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* File descriptors: scoped closing, and reads and writes that do not stop half-way. */
#ifndef MOTE_BASE_FD_H
#define MOTE_BASE_FD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Closes *fd unless it is -1, and sets it to -1. Keeps errno. */
void fd_close(int *fd);

#define CLEANUP_FD __attribute__((cleanup(fd_close)))

/*
 * Puts /dev/null where standard input, output or error are closed, so that no descriptor of ours
 * takes their place. First thing in main.
 */
void fd_reserve_standard(void);

/* Gives the descriptor away: the caller of fd_take owns it, *fd is -1 afterwards. */
int fd_take(int *fd);

/*
 * open(2) of what is there already, where "/dev/fd/N", N from 3, is a descriptor that this process
 * was given: a copy of it, with what it was opened for (or -EACCES if that is less than what flags
 * ask for). What this process has opened itself is closed on exec, what it inherited is not: that
 * tells them apart, and of its own it is -EBADF. The new descriptor or -errno.
 */
int fd_open(const char *path, int flags);

/*
 * What such a descriptor, which was opened by who gave it, is called in messages: the name is kept,
 * not copied. -ENOSPC after FD_NAMES_MAX of them. Before the first thread is started.
 */
#define FD_NAMES_MAX 64
int fd_set_name(int fd, const char *name);
/* The name of what fd_open() opens: the path itself but where it was given another. */
const char *fd_name(const char *path);

/*
 * Reads exactly len bytes at offset. 0, -errno, or -ENODATA when the file ends before.
 */
int fd_pread_exact(int fd, void *buffer, size_t len, uint64_t offset);

/*
 * A file, fifo or device to append to, created with mode 0600; or -errno. Never waits: a fifo need
 * not have a reader, and what its buffer does not take is -EAGAIN of the write.
 */
int fd_open_append(const char *path);

/* Writes all of buffer; 0 or -errno. */
int fd_write_all(int fd, const void *buffer, size_t len);

/* Makes an eventfd(2) readable. Any thread. */
void fd_signal(int event_fd);
/* Makes it unreadable again. */
void fd_unsignal(int event_fd);

#endif

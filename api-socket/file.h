/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MOTE_API_SOCKET_FILE_H
#define MOTE_API_SOCKET_FILE_H

#include <stddef.h>

struct err;

/*
 * A whole regular file of at most `max` bytes, to be freed; `what` it is begins the sentence. The
 * path may be one of fd_open()'s. 0 or -errno with err set.
 */
int file_read(const char *what, const char *path, size_t max, char **text, size_t *len,
	      struct err *err);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records: what whoever started this program has to know of it, one object of JSON a line, as
 * /events of the API tells it. They go to a descriptor that was given for them; the log is for
 * people.
 */
#ifndef MOTE_BASE_RECORD_H
#define MOTE_BASE_RECORD_H

#include <stddef.h>

/* A longer one is cut: a pipe takes so much whole, or not at all (PIPE_BUF). */
#define RECORD_MAX 4096

/*
 * All records go there from now on; not owned. It is made not to wait: what a reader that is slow
 * has no room for is lost. One that is not open, and -1, as at the start: nowhere.
 */
void record_to(int fd);

/* One line with its newline, of at most RECORD_MAX bytes. Any thread, any signal handler. */
void record_write(const char *line, size_t len);

/* {"event":"error","error":"SENTENCE"}; what is no UTF-8 in it becomes question marks. The same. */
void record_error(const char *sentence);

#endif

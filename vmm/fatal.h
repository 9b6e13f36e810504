/* SPDX-License-Identifier: Apache-2.0 */
/* What a signal that ends the process leaves behind: a line in the log, and what a callback does.
 */
#ifndef MOTE_VMM_FATAL_H
#define MOTE_VMM_FATAL_H

/*
 * From now on SIGSYS, SIGBUS, SIGSEGV, SIGXFSZ, SIGXCPU, SIGPIPE, SIGHUP, SIGILL, SIGFPE and
 * SIGABRT are logged and recorded, `last` is called, on whatever thread, in the handler, and the
 * process exits with Firecracker's exit code. A signal that is ignored or has another handler (a
 * sanitizer's) already keeps it. Call once.
 */
void fatal_watch(void (*last)(void *opaque, int signal), void *opaque);

/* The exit code that belongs to a signal; of any other than those above 2. */
int fatal_exit_code(int signal);

#endif

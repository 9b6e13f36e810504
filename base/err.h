/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One sentence about what failed: it names the object and the cause. Every fallible set-up function
 * fills it and returns a negative errno; the sentence is what the API's fault_message and the
 * command line print.
 */
#ifndef MOTE_BASE_ERR_H
#define MOTE_BASE_ERR_H

#define ERR_TEXT_SIZE 512

struct err {
	char text[ERR_TEXT_SIZE];
};

/*
 * Sets the sentence and returns -errnum (errnum > 0), so that a caller can `return err_set(...)`.
 * A sentence that does not fit is cut. err may be NULL.
 */
int err_set(struct err *err, int errnum, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The same, with ": " and the description of errnum appended. */
int err_sys(struct err *err, int errnum, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif

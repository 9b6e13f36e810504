/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of /etc by which a machine knows names: hostname, hosts and resolv.conf. What the image
 * has there is replaced, a link by a file; a link does not lead elsewhere.
 */
#ifndef MOTE_GUEST_ETC_H
#define MOTE_GUEST_ETC_H

#include <stdbool.h>

struct etc_names {
	const char *hostname;
	const char *address; /* of this host; NULL: it has its loopback alone */
	const char *hosts;   /* further ones, NAME=ADDRESS,...; may be NULL */
	bool keep;	     /* files that are there are left alone */
};

struct etc_resolver {
	const char *servers; /* ADDRESS,... */
	const char *search;  /* NAME,...; may be NULL */
	const char *options; /* WORD,...; may be NULL */
};

/* What cannot be written is said on the console. */
void etc_write_names(const struct etc_names *names);
void etc_write_resolver(const struct etc_resolver *resolver);

#endif

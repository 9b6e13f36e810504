/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leads 169.254.169.254:80 of this guest to a port of the host, where the VMM's metadata service
 * is: a process of its own that copies bytes between TCP and vsock, and looks at none of them.
 */
#ifndef MOTE_GUEST_METADATA_H
#define MOTE_GUEST_METADATA_H

struct failure;

/* `port` is the host's, as text; the loopback interface is up. 0 or -1 with failure set. */
int metadata_serve(const char *port, struct failure *failure);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MOTE_BASE_FIRECRACKER_H
#define MOTE_BASE_FIRECRACKER_H

/* The version whose API and command lines are served, which its clients look for. */
#define FIRECRACKER_VERSION "1.17.0"

#endif

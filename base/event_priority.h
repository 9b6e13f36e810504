/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Of the events of the main thread's loop. What its owner wants comes first; all others, which are
 * the guest's doing, have libevent's default, the one in the middle. In a loop of one priority, as
 * tests have, all are the same.
 */
#ifndef MOTE_BASE_EVENT_PRIORITY_H
#define MOTE_BASE_EVENT_PRIORITY_H

#define EVENT_PRIORITY_FIRST 0
#define EVENT_PRIORITIES 2

#endif

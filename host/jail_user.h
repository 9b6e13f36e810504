/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The users and groups of root's VMMs: numbers that nothing else on the host has, another for each
 * VM that runs. They are a range of as many numbers as there can be processes.
 */
#ifndef MOTE_HOST_JAIL_USER_H
#define MOTE_HOST_JAIL_USER_H

struct err;

#define JAIL_USER_VARIABLE "MOTE_FIRST_UID"
/* Above what SSSD (to 2000200000) and systemd (to 1879048191) give out unless told otherwise. */
#define JAIL_USER_FIRST 0x78000000u
/* The kernel's highest process id, and one. */
#define JAIL_USER_COUNT 0x400000u

/*
 * The number that goes with this process, of the range that the variable gives the beginning of.
 * Refused if the host knows it: as a user, a group, or one of those that /etc/subuid and
 * /etc/subgid hand over. 0 or -errno with err set.
 */
int jail_user_choose(unsigned int *user, struct err *err);

#endif

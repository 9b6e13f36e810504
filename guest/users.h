/* SPDX-License-Identifier: Apache-2.0 */
/* Users and groups of the image: /etc/passwd and /etc/group, and nothing else. */
#ifndef MOTE_GUEST_USERS_H
#define MOTE_GUEST_USERS_H

#include <sys/types.h>

struct failure;

#define USER_GROUPS_MAX 64

struct user {
	uid_t uid;
	gid_t gid;
	gid_t groups[USER_GROUPS_MAX]; /* gid, then further ones */
	int group_count;
	char home[256];
};

/* NAME or UID, with :GROUP or :GID behind it if need be. 0 or -1 with failure set. */
int users_find(const char *text, struct user *user, struct failure *failure);

#endif

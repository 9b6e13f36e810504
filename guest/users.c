/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/users.h"

#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent-protocol/protocol.h"
#include "guest/failure.h"

#define NAME_SIZE 256

/* A number that fits and is not the one that means none. */
static bool parse_id(const char *text, unsigned int *id)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (text[0] < '0' || text[0] > '9' || *end || value >= UINT_MAX)
		return false;
	*id = (unsigned int)value;
	return true;
}

/* By its name, or else by its number. */
static bool find_user(const char *text, struct user *user, char *name)
{
	FILE *file = fopen("/etc/passwd", "re");
	const struct passwd *entry;
	bool is_number = parse_id(text, &user->uid), found = false;

	while (file && !found && (entry = fgetpwent(file)) != NULL) {
		found = strcmp(entry->pw_name, text) == 0 ||
			(is_number && entry->pw_uid == user->uid);
		if (!found)
			continue;
		user->uid = entry->pw_uid;
		user->gid = entry->pw_gid;
		snprintf(user->home, sizeof(user->home), "%s", entry->pw_dir);
		snprintf(name, NAME_SIZE, "%s", entry->pw_name);
	}
	if (file)
		fclose(file);
	return found || is_number;
}

static bool is_member(const struct group *group, const char *name)
{
	for (char **member = group->gr_mem; *member; member++) {
		if (strcmp(*member, name) == 0)
			return true;
	}
	return false;
}

/* The further groups of the user `name`; and the one called `wanted`, if not NULL, as his main one.
 */
static bool find_groups(struct user *user, const char *name, const char *wanted)
{
	FILE *file = fopen("/etc/group", "re");
	const struct group *entry;
	bool found = !wanted || parse_id(wanted, &user->gid);

	user->group_count = 1;
	while (file && (entry = fgetgrent(file)) != NULL) {
		if (wanted && strcmp(entry->gr_name, wanted) == 0) {
			user->gid = entry->gr_gid;
			found = true;
		}
		/* One that names its group is in no other. */
		if (!wanted && is_member(entry, name) && user->group_count < USER_GROUPS_MAX)
			user->groups[user->group_count++] = entry->gr_gid;
	}
	if (file)
		fclose(file);
	user->groups[0] = user->gid;
	return found;
}

int users_find(const char *text, struct user *user, struct failure *failure)
{
	char name[NAME_SIZE] = "", copy[NAME_SIZE];
	char *group;

	*user = (struct user){ .home = "/" };
	snprintf(copy, sizeof(copy), "%s", text);
	group = strchr(copy, ':');
	if (group)
		*group++ = '\0';
	if (!find_user(copy, user, name))
		failure_set(failure, "user %s: there is none of this name in the image", copy);
	else if (!find_groups(user, name, group))
		failure_set(failure, "group %s: there is none of this name in the image", group);
	else
		return 0;
	failure->status = PROTOCOL_STATUS_CANNOT_RUN;
	return -1;
}

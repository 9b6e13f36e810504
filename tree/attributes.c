/* SPDX-License-Identifier: Apache-2.0 */
#include "tree/attributes.h"

#include <errno.h>
#include <linux/limits.h> /* XATTR_NAME_MAX and so on */
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

/* In `data`: the size of the value, the name with its zero, and the value, without gaps. */

int attributes_add(struct attributes *attributes, const char *name, const void *value, size_t size)
{
	const size_t length = strlen(name) + 1;
	const size_t more = sizeof(size) + length + size;
	char *to;

	if (length - 1 > XATTR_NAME_MAX || size > XATTR_SIZE_MAX ||
	    attributes->names + length > ATTRIBUTES_NAMES_MAX ||
	    attributes->size + more > ATTRIBUTES_MAX)
		return -E2BIG;
	if (attributes->room - attributes->size < more) {
		const size_t room = 2 * attributes->room + more;

		to = realloc(attributes->data, room);
		if (!to)
			return -ENOMEM;
		attributes->data = to;
		attributes->room = room;
	}
	to = attributes->data + attributes->size;
	memcpy(to, &size, sizeof(size));
	memcpy(to + sizeof(size), name, length);
	if (size > 0)
		memcpy(to + sizeof(size) + length, value, size);
	attributes->size += more;
	attributes->names += length;
	return 0;
}

bool attributes_next(const struct attributes *attributes, size_t *at, struct attribute *attribute)
{
	const char *from;

	if (*at >= attributes->size)
		return false;
	from = attributes->data + *at;
	memcpy(&attribute->size, from, sizeof(attribute->size));
	attribute->name = from + sizeof(attribute->size);
	attribute->value = attribute->name + strlen(attribute->name) + 1;
	*at = (size_t)((const char *)attribute->value - attributes->data) + attribute->size;
	return true;
}

void attributes_clear(struct attributes *attributes)
{
	attributes->size = attributes->names = 0;
}

void attributes_free(struct attributes *attributes)
{
	free(attributes->data);
	*attributes = (struct attributes){ 0 };
}

bool attributes_keep(const char *name, bool plain)
{
	return (strncmp(name, "user.", 5) == 0 && name[5]) ||
	       (!plain && strcmp(name, "security.capability") == 0);
}

int attributes_read(int fd, bool plain, struct attributes *attributes)
{
	static char names[XATTR_LIST_MAX], value[XATTR_SIZE_MAX];
	ssize_t size = flistxattr(fd, names, sizeof(names));
	int rc = 0;

	if (size < 0)
		return errno == EOPNOTSUPP ? 0 : -errno;
	for (const char *name = names; rc == 0 && name < names + size; name += strlen(name) + 1) {
		ssize_t n;

		if (!attributes_keep(name, plain))
			continue;
		n = fgetxattr(fd, name, value, sizeof(value));
		/* Somebody may have taken it away just now. */
		if (n < 0 && errno == ENODATA)
			continue;
		rc = n < 0 ? -errno : attributes_add(attributes, name, value, (size_t)n);
	}
	return rc;
}

static bool has(int fd, const struct attribute *attribute)
{
	static char value[XATTR_SIZE_MAX];
	ssize_t n = fgetxattr(fd, attribute->name, value, sizeof(value));

	return n >= 0 && (size_t)n == attribute->size &&
	       memcmp(value, attribute->value, (size_t)n) == 0;
}

int attributes_write(int fd, bool plain, const struct attributes *attributes,
		     struct attribute *failed)
{
	struct attribute attribute;

	for (size_t at = 0; attributes_next(attributes, &at, &attribute);) {
		int rc;

		if (!attributes_keep(attribute.name, plain) ||
		    fsetxattr(fd, attribute.name, attribute.value, attribute.size, 0) == 0 ||
		    errno == EOPNOTSUPP)
			continue;
		rc = -errno;
		/* Of a directory that its owner cannot write to, and that stays as it is. */
		if (rc == -EACCES && has(fd, &attribute))
			continue;
		*failed = attribute;
		return rc;
	}
	return 0;
}

bool attributes_are_there(int fd, bool plain, const struct attributes *attributes)
{
	struct attribute attribute;

	for (size_t at = 0; attributes_next(attributes, &at, &attribute);) {
		if (attributes_keep(attribute.name, plain) && !has(fd, &attribute))
			return false;
	}
	return true;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tree/tar.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "tree/tar_format.h"

/* Of what precedes an entry to describe it: a name, or all of a pax header. */
#define EXTRA_MAX 65536
#define PAX_MAX (2 << 20)

/* What precedes an entry; its extended attributes are the reader's. */
struct extra {
	struct attributes *attributes;
	bool has_path, has_link, has_size, has_mtime;
	struct tar_entry entry;
};

static int read_exactly(struct tar_reader *reader, void *data, size_t size, struct err *err)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = reader->read(reader->opaque, (char *)data + done, size - done);

		if (n <= 0)
			return err_set(err, EINVAL, "the tar stream ends in the middle");
		done += (size_t)n;
	}
	return 0;
}

static bool is_zero(const void *block)
{
	static const char zero[TAR_BLOCK];

	return memcmp(block, zero, TAR_BLOCK) == 0;
}

/* Octal digits with blanks around, or GNU's base 256; false if it is neither, or too large. */
static bool parse_number(const char *field, size_t size, uint64_t *number)
{
	uint64_t value = 0;
	size_t i = 0;

	if ((unsigned char)field[0] & BASE_256) {
		/* Negative ones begin with 0xff. */
		if ((unsigned char)field[0] != BASE_256)
			return false;
		for (i = 1; i < size; i++) {
			if (value >> 55)
				return false;
			value = value << 8 | (unsigned char)field[i];
		}
		*number = value;
		return true;
	}
	while (i < size && field[i] == ' ')
		i++;
	for (; i < size && field[i] >= '0' && field[i] <= '7'; i++)
		value = value << 3 | (uint64_t)(field[i] - '0');
	for (; i < size; i++) {
		if (field[i] != ' ' && field[i] != '\0')
			return false;
	}
	*number = value;
	return true;
}

/* Nanoseconds of ".5" and the like, as far as it is that. */
static uint32_t parse_fraction(const char *text)
{
	uint32_t ns = 0;

	if (*text++ != '.')
		return 0;
	for (uint32_t unit = 100000000; unit > 0 && *text >= '0' && *text <= '9'; unit /= 10)
		ns += (uint32_t)(*text++ - '0') * unit;
	return ns;
}

/*
 * The name of an extended attribute, which is GNU tar's: %3D and %25 are its '=' and '%'. Any other
 * '%' is one.
 */
static void decode_name(char *name)
{
	char *to = name;

	for (const char *from = name; *from; from++) {
		const bool equals = strncmp(from, "%3D", 3) == 0;

		*to++ = equals ? '=' : *from;
		if (equals || strncmp(from, "%25", 3) == 0)
			from += 2;
	}
	*to = '\0';
}

static bool is_attribute(const char *key)
{
	return strncmp(key, ATTRIBUTE_PREFIX, strlen(ATTRIBUTE_PREFIX)) == 0;
}

static int take_attribute(struct extra *extra, char *name, const char *value, size_t size,
			  struct err *err)
{
	int rc;

	decode_name(name);
	rc = name[0] ? attributes_add(extra->attributes, name, value, size) : -EINVAL;
	return rc < 0 ? err_set(err, -rc,
				"the tar stream has extended attributes that no file can have")
		      : 0;
}

/* The text of one field of a pax header. */
static int take_pax_field(struct extra *extra, const char *key, const char *value, struct err *err)
{
	char *end;

	if (strcmp(key, "path") == 0) {
		extra->has_path = true;
		snprintf(extra->entry.path, sizeof(extra->entry.path), "%s", value);
	} else if (strcmp(key, "linkpath") == 0) {
		extra->has_link = true;
		snprintf(extra->entry.link, sizeof(extra->entry.link), "%s", value);
	} else if (strcmp(key, "size") == 0) {
		extra->has_size = true;
		errno = 0;
		extra->entry.size = strtoull(value, &end, 10);
		if (*end || errno || value[0] < '0' || value[0] > '9' ||
		    extra->entry.size > INT64_MAX)
			return err_set(err, EINVAL, "the tar stream has a size that cannot be");
	} else if (strcmp(key, "mtime") == 0) {
		extra->has_mtime = true;
		extra->entry.mtime = strtoll(value, &end, 10);
		extra->entry.mtime_ns = parse_fraction(end);
	} else if (strncmp(key, "GNU.sparse.", 11) == 0) {
		return err_set(err, EINVAL, "the tar stream has a sparse file");
	}
	return 0;
}

/* Records "LENGTH KEY=VALUE\n". */
static int take_pax(struct extra *extra, char *text, size_t size, struct err *err)
{
	while (size > 0) {
		char *end, *equals;
		unsigned long length = strtoul(text, &end, 10);
		size_t value_size;

		if (text[0] < '1' || text[0] > '9' || *end != ' ' || length > size ||
		    text + length < end + 2 || text[length - 1] != '\n')
			return err_set(err, EINVAL, "the tar stream has a bad pax header");
		text[length - 1] = '\0';
		equals = strchr(++end, '=');
		if (!equals)
			return err_set(err, EINVAL, "the tar stream has a bad pax header");
		*equals = '\0';
		value_size = (size_t)(text + length - 1 - (equals + 1));
		if ((is_attribute(end) ? take_attribute(extra, end + strlen(ATTRIBUTE_PREFIX),
							equals + 1, value_size, err)
				       : take_pax_field(extra, end, equals + 1, err)) < 0)
			return -1;
		text += length;
		size -= length;
	}
	return 0;
}

static int take_extra(struct tar_reader *reader, struct extra *extra, char type, uint64_t size,
		      struct err *err)
{
	char *text;
	int rc;

	if (size > (type == PAX_NEXT ? PAX_MAX : EXTRA_MAX))
		return err_set(err, EINVAL, "the tar stream has a %s that is too long",
			       type == PAX_NEXT || type == PAX_GLOBAL ? "pax header" : "name");
	text = malloc(size + 1);
	if (!text)
		return err_sys(err, ENOMEM, "tar");
	reader->left = 0;
	reader->padding = tar_padding(size);
	rc = read_exactly(reader, text, size, err);
	text[size] = '\0';
	if (rc == 0 && type == PAX_NEXT)
		rc = take_pax(extra, text, size, err);
	else if (rc == 0 && type == GNU_LONG_NAME)
		rc = take_pax_field(extra, "path", text, err);
	else if (rc == 0 && type == GNU_LONG_LINK)
		rc = take_pax_field(extra, "linkpath", text, err);
	free(text);
	return rc;
}

static int skip(struct tar_reader *reader, struct err *err)
{
	char data[8 * TAR_BLOCK];

	while (reader->left > 0 || reader->padding > 0) {
		uint64_t left = reader->left + reader->padding;
		size_t part = left < sizeof(data) ? (size_t)left : sizeof(data);

		if (read_exactly(reader, data, part, err) < 0)
			return -1;
		reader->padding -= part > reader->left ? part - reader->left : 0;
		reader->left -= part > reader->left ? reader->left : part;
	}
	return 0;
}

static void copy_name(char *to, const struct tar_header *header)
{
	bool has_prefix = memcmp(header->magic, "ustar\0", 6) == 0 && header->prefix[0];

	snprintf(to, PATH_MAX, "%.*s%s%.*s", has_prefix ? (int)sizeof(header->prefix) : 0,
		 header->prefix, has_prefix ? "/" : "", (int)sizeof(header->name), header->name);
}

static int fill_entry(struct tar_entry *entry, const struct tar_header *header,
		      const struct extra *extra, uint64_t size, struct err *err)
{
	uint64_t mode, uid, gid, mtime, major = 0, minor = 0;

	if (!parse_number(header->mode, sizeof(header->mode), &mode) ||
	    !parse_number(header->uid, sizeof(header->uid), &uid) ||
	    !parse_number(header->gid, sizeof(header->gid), &gid) ||
	    !parse_number(header->mtime, sizeof(header->mtime), &mtime))
		return err_set(err, EINVAL, "the tar stream has a number that cannot be");
	(void)parse_number(header->major, sizeof(header->major), &major);
	(void)parse_number(header->minor, sizeof(header->minor), &minor);
	memset(entry, 0, sizeof(*entry));
	entry->mode = (mode_t)mode & 07777;
	entry->uid = (uid_t)uid;
	entry->gid = (gid_t)gid;
	entry->mtime = extra->has_mtime ? extra->entry.mtime : (int64_t)mtime;
	entry->mtime_ns = extra->entry.mtime_ns;
	entry->size = size;
	entry->major = (unsigned int)major;
	entry->minor = (unsigned int)minor;
	entry->attributes = extra->attributes;
	if (extra->has_path)
		memcpy(entry->path, extra->entry.path, sizeof(entry->path));
	else
		copy_name(entry->path, header);
	if (extra->has_link)
		memcpy(entry->link, extra->entry.link, sizeof(entry->link));
	else
		snprintf(entry->link, sizeof(entry->link), "%.*s", (int)sizeof(header->link),
			 header->link);
	/* Old ones, contiguous ones, and directories that are told by their name. */
	entry->type = header->type == '\0' || header->type == '7' ? TAR_FILE
								  : (enum tar_type)header->type;
	if (entry->type == TAR_FILE && entry->path[0] &&
	    entry->path[strlen(entry->path) - 1] == '/')
		entry->type = TAR_DIRECTORY;
	if (entry->type < TAR_FILE || entry->type > TAR_FIFO)
		return err_set(err, EINVAL, "%.200s: an entry of an unknown type", entry->path);
	/* Only files have data, whatever the size says of others. */
	if (entry->type != TAR_FILE)
		entry->size = 0;
	return 0;
}

int tar_next(struct tar_reader *reader, struct tar_entry *entry, struct err *err)
{
	struct extra extra = { .attributes = &reader->attributes };

	attributes_clear(&reader->attributes);
	for (;;) {
		struct tar_header header;
		uint64_t sum, size;

		if (skip(reader, err) < 0 || read_exactly(reader, &header, sizeof(header), err) < 0)
			return -1;
		/* Two blocks of zeroes are the end; what follows is read by nobody. */
		if (is_zero(&header))
			return 0;
		if (!parse_number(header.checksum, sizeof(header.checksum), &sum) ||
		    sum != tar_checksum(&header))
			return err_set(err, EINVAL, "this is no tar stream");
		if (!parse_number(header.size, sizeof(header.size), &size) || size > INT64_MAX)
			return err_set(err, EINVAL, "the tar stream has a size that cannot be");
		if (header.type == GNU_LONG_NAME || header.type == GNU_LONG_LINK ||
		    header.type == PAX_NEXT || header.type == PAX_GLOBAL) {
			if (take_extra(reader, &extra, header.type, size, err) < 0)
				return -1;
			continue;
		}
		if (extra.has_size)
			size = extra.entry.size;
		if (fill_entry(entry, &header, &extra, size, err) < 0)
			return -1;
		reader->left = entry->size;
		reader->padding = tar_padding(entry->size);
		return 1;
	}
}

void tar_reader_free(struct tar_reader *reader)
{
	attributes_free(&reader->attributes);
}

ssize_t tar_data(struct tar_reader *reader, void *data, size_t size, struct err *err)
{
	ssize_t n;

	if (reader->left == 0)
		return 0;
	n = reader->read(reader->opaque, data, reader->left < size ? (size_t)reader->left : size);
	if (n <= 0)
		return err_set(err, EINVAL, "the tar stream ends in the middle");
	reader->left -= (uint64_t)n;
	return n;
}

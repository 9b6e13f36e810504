/* SPDX-License-Identifier: Apache-2.0 */
#include "tree/tar.h"

#include <linux/limits.h> /* XATTR_NAME_MAX */
#include <stdio.h>
#include <string.h>

#include "tree/tar_format.h"

static void put_number(char *field, size_t size, uint64_t number, uint64_t octal_max)
{
	if (number <= octal_max) {
		/* The last byte stays zero. */
		for (size_t i = size - 1; i > 0; i--) {
			field[i - 1] = (char)('0' + (number & 7));
			number >>= 3;
		}
		return;
	}
	field[0] = (char)BASE_256;
	for (size_t i = size - 1; i > 0; i--) {
		field[i] = (char)number;
		number >>= 8;
	}
}

static void put_checksum(struct tar_header *header)
{
	memset(header->checksum, ' ', sizeof(header->checksum));
	snprintf(header->checksum, sizeof(header->checksum) - 1, "%06llo",
		 (unsigned long long)tar_checksum(header));
}

/* A name that does not fit into the header precedes it. */
static int put_long(struct tar_writer *writer, char type, const char *name)
{
	struct tar_header header = { .name = "././@LongLink", .magic = "ustar  ", .type = type };
	size_t size = strlen(name) + 1;

	put_number(header.size, sizeof(header.size), size, OCTAL_SIZE_MAX);
	put_number(header.mode, sizeof(header.mode), 0, OCTAL_ID_MAX);
	put_number(header.uid, sizeof(header.uid), 0, OCTAL_ID_MAX);
	put_number(header.gid, sizeof(header.gid), 0, OCTAL_ID_MAX);
	put_number(header.mtime, sizeof(header.mtime), 0, OCTAL_SIZE_MAX);
	put_checksum(&header);
	return writer->write(writer->opaque, &header, sizeof(header)) < 0 ||
			       writer->write(writer->opaque, name, size) < 0
		       ? -1
		       : tar_pad(writer, size);
}

/* The beginning of a record of a pax header. */
struct record {
	char text[sizeof("1048576 " ATTRIBUTE_PREFIX "=") + 3 * XATTR_NAME_MAX];
	size_t length; /* of the text */
	size_t whole;  /* with the value and the line's end */
};

/* A record begins with its own length, with these digits. */
static void fill_record(struct record *record, const char *key, size_t value_size)
{
	const size_t rest = strlen(" =\n") + strlen(key) + value_size;
	size_t digits = 1;

	while ((size_t)snprintf(NULL, 0, "%zu", digits + rest) > digits)
		digits++;
	record->whole = digits + rest;
	record->length =
		(size_t)snprintf(record->text, sizeof(record->text), "%zu %s=", record->whole, key);
}

/* As decode_name() reads it. */
static void fill_attribute(struct record *record, const struct attribute *attribute)
{
	char key[sizeof(ATTRIBUTE_PREFIX) + 3 * XATTR_NAME_MAX] = ATTRIBUTE_PREFIX;
	char *to = key + strlen(key);

	for (const char *from = attribute->name; *from; from++) {
		if (*from == '=' || *from == '%')
			to = stpcpy(to, *from == '=' ? "%3D" : "%25");
		else
			*to++ = *from;
	}
	*to = '\0';
	fill_record(record, key, attribute->size);
}

static int put_record(struct tar_writer *writer, const struct record *record, const void *value,
		      size_t size)
{
	return writer->write(writer->opaque, record->text, record->length) < 0 ||
			       (size > 0 && writer->write(writer->opaque, value, size) < 0)
		       ? -1
		       : writer->write(writer->opaque, "\n", 1);
}

/* What the header has no room for: a part of a second, and extended attributes. */
static int put_pax(struct tar_writer *writer, const struct tar_entry *entry)
{
	static const struct attributes none;
	const struct attributes *attributes = entry->attributes ? entry->attributes : &none;
	struct tar_header header = { .name = "././@PaxHeader",
				     .magic = "ustar  ",
				     .type = PAX_NEXT };
	struct attribute attribute;
	struct record record;
	char time[32] = "";
	size_t size = 0;

	if (entry->mtime >= 0 && entry->mtime_ns > 0) {
		snprintf(time, sizeof(time), "%lld.%09u", (long long)entry->mtime, entry->mtime_ns);
		fill_record(&record, "mtime", strlen(time));
		size += record.whole;
	}
	for (size_t at = 0; attributes_next(attributes, &at, &attribute); size += record.whole)
		fill_attribute(&record, &attribute);
	if (size == 0)
		return 0;
	put_number(header.size, sizeof(header.size), size, OCTAL_SIZE_MAX);
	put_checksum(&header);
	if (writer->write(writer->opaque, &header, sizeof(header)) < 0)
		return -1;
	if (time[0]) {
		fill_record(&record, "mtime", strlen(time));
		if (put_record(writer, &record, time, strlen(time)) < 0)
			return -1;
	}
	for (size_t at = 0; attributes_next(attributes, &at, &attribute);) {
		fill_attribute(&record, &attribute);
		if (put_record(writer, &record, attribute.value, attribute.size) < 0)
			return -1;
	}
	return tar_pad(writer, size);
}

/* Without the terminating zero where it fills its field. */
static int put_name(struct tar_writer *writer, char type, char *field, size_t size,
		    const char *name)
{
	size_t length = strlen(name);

	memcpy(field, name, length < size ? length : size);
	return length > size ? put_long(writer, type, name) : 0;
}

int tar_put(struct tar_writer *writer, const struct tar_entry *entry)
{
	struct tar_header header = { .magic = "ustar  ", .type = (char)entry->type };

	put_number(header.mode, sizeof(header.mode), entry->mode, OCTAL_ID_MAX);
	put_number(header.uid, sizeof(header.uid), entry->uid, OCTAL_ID_MAX);
	put_number(header.gid, sizeof(header.gid), entry->gid, OCTAL_ID_MAX);
	put_number(header.size, sizeof(header.size), entry->size, OCTAL_SIZE_MAX);
	put_number(header.mtime, sizeof(header.mtime),
		   entry->mtime < 0 ? 0 : (uint64_t)entry->mtime, OCTAL_SIZE_MAX);
	if (entry->type == TAR_CHARACTER_DEVICE || entry->type == TAR_BLOCK_DEVICE) {
		put_number(header.major, sizeof(header.major), entry->major, OCTAL_ID_MAX);
		put_number(header.minor, sizeof(header.minor), entry->minor, OCTAL_ID_MAX);
	}
	if (put_pax(writer, entry) < 0 ||
	    put_name(writer, GNU_LONG_NAME, header.name, sizeof(header.name), entry->path) < 0 ||
	    put_name(writer, GNU_LONG_LINK, header.link, sizeof(header.link), entry->link) < 0)
		return -1;
	put_checksum(&header);
	return writer->write(writer->opaque, &header, sizeof(header));
}

int tar_pad(struct tar_writer *writer, uint64_t size)
{
	static const char zero[TAR_BLOCK];
	size_t padding = (size_t)tar_padding(size);

	return padding > 0 ? writer->write(writer->opaque, zero, padding) : 0;
}

int tar_finish(struct tar_writer *writer)
{
	static const char zero[2 * TAR_BLOCK];

	return writer->write(writer->opaque, zero, sizeof(zero));
}

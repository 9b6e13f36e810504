/* SPDX-License-Identifier: Apache-2.0 */
#include "base/state.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "STATE_CODE writes what memory has");

#define ROOM_FIRST 4096
#define SECTION_HEADER (2 * sizeof(uint32_t) + sizeof(uint64_t))

void state_writer_free(struct state_writer *writer)
{
	free(writer->data);
	*writer = (struct state_writer){ 0 };
}

static bool make_room(struct state_writer *writer, size_t size)
{
	size_t room = writer->room ? writer->room : ROOM_FIRST;
	uint8_t *data;

	if (writer->failed || size > STATE_SIZE_MAX - writer->size) {
		writer->failed = true;
		return false;
	}
	while (room - writer->size < size)
		room *= 2;
	if (room == writer->room)
		return true;
	data = realloc(writer->data, room);
	if (!data) {
		writer->failed = true;
		return false;
	}
	writer->data = data;
	writer->room = room;
	return true;
}

void state_put_bytes(struct state_writer *writer, const void *bytes, size_t size)
{
	if (size == 0 || !make_room(writer, size))
		return;
	memcpy(writer->data + writer->size, bytes, size);
	writer->size += size;
}

static void to_bytes(uint8_t *bytes, uint64_t value, size_t size)
{
	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)(value >> 8 * i);
}

static void put_number(struct state_writer *writer, uint64_t value, size_t size)
{
	uint8_t bytes[sizeof(value)];

	to_bytes(bytes, value, size);
	state_put_bytes(writer, bytes, size);
}

void state_put_u8(struct state_writer *writer, uint8_t value)
{
	put_number(writer, value, sizeof(value));
}

void state_put_u16(struct state_writer *writer, uint16_t value)
{
	put_number(writer, value, sizeof(value));
}

void state_put_u32(struct state_writer *writer, uint32_t value)
{
	put_number(writer, value, sizeof(value));
}

void state_put_u64(struct state_writer *writer, uint64_t value)
{
	put_number(writer, value, sizeof(value));
}

void state_put_bool(struct state_writer *writer, bool value)
{
	state_put_u8(writer, value);
}

void state_put_text(struct state_writer *writer, const char *text)
{
	size_t size = text ? strlen(text) : 0;

	if (size > STATE_SIZE_MAX) {
		writer->failed = true;
		return;
	}
	state_put_u32(writer, (uint32_t)size);
	state_put_bytes(writer, text, size);
}

size_t state_begin(struct state_writer *writer, uint32_t kind, uint32_t version)
{
	state_put_u32(writer, kind);
	state_put_u32(writer, version);
	state_put_u64(writer, 0);
	return writer->size;
}

void state_end(struct state_writer *writer, size_t begun)
{
	if (!writer->failed)
		to_bytes(writer->data + begun - sizeof(uint64_t), writer->size - begun,
			 sizeof(uint64_t));
}

/* NULL, and `failed`, if there are not so many. */
static const uint8_t *take(struct state_reader *reader, uint64_t size)
{
	const uint8_t *at = reader->at;

	if (reader->failed || size > reader->left) {
		reader->failed = true;
		return NULL;
	}
	reader->at += size;
	reader->left -= (size_t)size;
	return at;
}

void state_get_bytes(struct state_reader *reader, void *bytes, size_t size)
{
	const uint8_t *at = take(reader, size);

	if (!at)
		memset(bytes, 0, size);
	else if (size > 0)
		memcpy(bytes, at, size);
}

static uint64_t get_number(struct state_reader *reader, size_t size)
{
	const uint8_t *at = take(reader, size);
	uint64_t value = 0;

	for (size_t i = 0; at && i < size; i++)
		value |= (uint64_t)at[i] << 8 * i;
	return value;
}

uint8_t state_get_u8(struct state_reader *reader)
{
	return (uint8_t)get_number(reader, sizeof(uint8_t));
}

uint16_t state_get_u16(struct state_reader *reader)
{
	return (uint16_t)get_number(reader, sizeof(uint16_t));
}

uint32_t state_get_u32(struct state_reader *reader)
{
	return (uint32_t)get_number(reader, sizeof(uint32_t));
}

uint64_t state_get_u64(struct state_reader *reader)
{
	return get_number(reader, sizeof(uint64_t));
}

bool state_get_bool(struct state_reader *reader)
{
	uint8_t value = state_get_u8(reader);

	if (value > 1)
		reader->failed = true;
	return value == 1;
}

void state_get_text(struct state_reader *reader, char *text, size_t room)
{
	uint32_t size = state_get_u32(reader);
	const uint8_t *at = size < room ? take(reader, size) : NULL;

	text[0] = '\0';
	if (!at || memchr(at, '\0', size)) {
		reader->failed = true;
		return;
	}
	memcpy(text, at, size);
	text[size] = '\0';
}

bool state_next(struct state_reader *reader, struct state_section *section)
{
	uint64_t size;

	if (reader->failed || reader->left == 0)
		return false;
	if (reader->left < SECTION_HEADER) {
		reader->failed = true;
		return false;
	}
	section->kind = state_get_u32(reader);
	section->version = state_get_u32(reader);
	size = state_get_u64(reader);
	section->body = (struct state_reader){ .at = take(reader, size) };
	if (reader->failed)
		return false;
	section->body.left = (size_t)size;
	return true;
}

void state_code_bytes(const struct state_codec *codec, void *bytes, size_t size)
{
	if (codec->out)
		state_put_bytes(codec->out, bytes, size);
	else
		state_get_bytes(codec->in, bytes, size);
}

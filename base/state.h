/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State as bytes: numbers in little endian one after the other, in sections, each with its kind,
 * the version of its content and its length. A file of them outlives the program that wrote it: a
 * field that is added goes to the end of its section, whose version grows, and is read only where
 * the section's version has it. No C struct is written as it is.
 */
#ifndef MOTE_BASE_STATE_H
#define MOTE_BASE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Grows as needed; up to STATE_SIZE_MAX bytes. */
struct state_writer {
	uint8_t *data; /* owned */
	size_t size;
	size_t room;
	bool failed; /* without memory, or too large: nothing is added any more */
};

#define STATE_SIZE_MAX (UINT32_C(16) << 20)

/* Safe on a zeroed object. */
void state_writer_free(struct state_writer *writer);
#define CLEANUP_STATE_WRITER __attribute__((cleanup(state_writer_free)))

void state_put_u8(struct state_writer *writer, uint8_t value);
void state_put_u16(struct state_writer *writer, uint16_t value);
void state_put_u32(struct state_writer *writer, uint32_t value);
void state_put_u64(struct state_writer *writer, uint64_t value);
void state_put_bool(struct state_writer *writer, bool value);
void state_put_bytes(struct state_writer *writer, const void *bytes, size_t size);
/* The size goes before it, as 32 bits. NULL is the empty text. */
void state_put_text(struct state_writer *writer, const char *text);

/* Begins a section, to be ended with what was returned. Sections may stand in sections. */
size_t state_begin(struct state_writer *writer, uint32_t kind, uint32_t version);
void state_end(struct state_writer *writer, size_t begun);

/* Of bytes that are not owned, and may be hostile. What cannot be read is 0, and `failed`. */
struct state_reader {
	const uint8_t *at;
	size_t left;
	bool failed;
};

uint8_t state_get_u8(struct state_reader *reader);
uint16_t state_get_u16(struct state_reader *reader);
uint32_t state_get_u32(struct state_reader *reader);
uint64_t state_get_u64(struct state_reader *reader);
/* Anything but 0 and 1 fails. */
bool state_get_bool(struct state_reader *reader);
void state_get_bytes(struct state_reader *reader, void *bytes, size_t size);
/* To `text` with `room` bytes, ended by a zero; one that has a zero, or is longer, fails. */
void state_get_text(struct state_reader *reader, char *text, size_t room);

struct state_section {
	uint32_t kind;
	uint32_t version;
	struct state_reader body;
};

/* The next one. False at the end, or if what is left is none, which fails. */
bool state_next(struct state_reader *reader, struct state_section *section);

/*
 * One list of fields for both directions: each call writes the field to `out`, or if that is NULL
 * reads it from `in`. What is written and what is read cannot differ.
 */
struct state_codec {
	struct state_writer *out;
	struct state_reader *in;
};

void state_code_bytes(const struct state_codec *codec, void *bytes, size_t size);
/* A number of any size, or an array of bytes. x86-64 has them in memory as they are written. */
#define STATE_CODE(codec, field) state_code_bytes(codec, &(field), sizeof(field))

/* Whether all was read, and nothing failed. */
static inline bool state_is_done(const struct state_reader *reader)
{
	return !reader->failed && reader->left == 0;
}

#endif

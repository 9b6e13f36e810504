/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens that programs of the guest have been given: random, each valid for its time. There is room
 * for so many; one more takes the place of the one that would expire first.
 */
#ifndef MOTE_MMDS_TOKEN_H
#define MOTE_MMDS_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#define TOKENS_MAX 256
#define TOKEN_LENGTH 48 /* hexadecimal digits */
#define TOKEN_TTL_MIN 1 /* seconds */
#define TOKEN_TTL_MAX 21600

/* Zeroed: none. Times are CLOCK_MONOTONIC. */
struct tokens {
	struct {
		int64_t expires_ns;
		char text[TOKEN_LENGTH];
	} tokens[TOKENS_MAX];
};

/* 0, or -EAGAIN if the host has no random numbers yet. */
int token_make(struct tokens *tokens, unsigned int ttl, int64_t now_ns,
	       char text[TOKEN_LENGTH + 1]);
bool token_valid(const struct tokens *tokens, const char *text, int64_t now_ns);

#endif

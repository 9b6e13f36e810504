/* SPDX-License-Identifier: Apache-2.0 */
#include "mmds/token.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

int token_make(struct tokens *tokens, unsigned int ttl, int64_t now_ns, char text[TOKEN_LENGTH + 1])
{
	uint8_t bytes[TOKEN_LENGTH / 2];
	unsigned int place = 0;

	if (getrandom(bytes, sizeof(bytes), GRND_NONBLOCK) != (ssize_t)sizeof(bytes))
		return -EAGAIN;
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	for (unsigned int i = 1; i < TOKENS_MAX; i++) {
		if (tokens->tokens[i].expires_ns < tokens->tokens[place].expires_ns)
			place = i;
	}
	tokens->tokens[place].expires_ns = now_ns + ttl * INT64_C(1000000000);
	memcpy(tokens->tokens[place].text, text, TOKEN_LENGTH);
	return 0;
}

/* How long it takes says nothing about how much of it was right. */
static bool same(const char *a, const char *b)
{
	unsigned int difference = 0;

	for (size_t i = 0; i < TOKEN_LENGTH; i++)
		difference |= (unsigned int)(a[i] ^ b[i]);
	return difference == 0;
}

bool token_valid(const struct tokens *tokens, const char *text, int64_t now_ns)
{
	bool valid = false;

	if (strlen(text) != TOKEN_LENGTH)
		return false;
	for (unsigned int i = 0; i < TOKENS_MAX; i++)
		valid |= same(tokens->tokens[i].text, text) &
			 (tokens->tokens[i].expires_ns > now_ns);
	return valid;
}

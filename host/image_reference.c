/* SPDX-License-Identifier: Apache-2.0 */
#include "host/image_reference.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"
#define TAG_MAX 128
#define DIGEST "sha256:"
#define DIGEST_LENGTH 64

static bool is_of(const char *text, size_t length, const char *characters)
{
	return strspn(text, characters) >= length;
}

const char *image_reference_without_transport(const char *text)
{
	static const char transport[] = "docker://";
	size_t length = sizeof(transport) - 1;

	return strncmp(text, transport, length) == 0 ? text + length : text;
}

bool image_reference_has_registry(const char *text)
{
	size_t length = strcspn(text, "/");

	return text[length] == '/' && (memchr(text, '.', length) || memchr(text, ':', length) ||
				       (length == 9 && memcmp(text, "localhost", 9) == 0));
}

/* HOST, HOST:PORT or [ADDRESS]:PORT. */
static bool is_registry(const char *text, size_t length)
{
	size_t host;

	if (text[0] == '[') {
		host = 1 + strspn(text + 1, "abcdefABCDEF" DIGITS ":");
		if (host == 1 || text[host] != ']')
			return false;
		host++;
	} else {
		host = strspn(text, LOWER UPPER DIGITS ".-");
		if (host == 0 || text[0] == '-' || text[0] == '.')
			return false;
	}
	return host == length || (text[host] == ':' && host + 1 < length && length - host <= 6 &&
				  is_of(text + host + 1, length - host - 1, DIGITS));
}

/* Parts of lower-case letters and digits, which single '.', '_' and such separate. */
static bool is_path(const char *text, size_t length)
{
	bool begins = true;

	for (size_t i = 0; i < length; i++) {
		bool is_plain = strchr(LOWER DIGITS, text[i]) != NULL;

		if (!is_plain && (begins || !strchr("._-/", text[i])))
			return false;
		begins = text[i] == '/';
		if (begins && !strchr(LOWER DIGITS, text[i - 1]))
			return false;
	}
	return length > 0 && strchr(LOWER DIGITS, text[length - 1]);
}

static bool is_digest(const char *text)
{
	size_t start = strlen(DIGEST);

	return strncmp(text, DIGEST, start) == 0 && strlen(text) == start + DIGEST_LENGTH &&
	       is_of(text + start, DIGEST_LENGTH, "abcdef" DIGITS);
}

static bool is_tag(const char *text, size_t length)
{
	return length >= 1 && length <= TAG_MAX && text[0] != '.' && text[0] != '-' &&
	       is_of(text, length, LOWER UPPER DIGITS "_.-");
}

int image_reference_parse(const char *text, char whole[IMAGE_REFERENCE_MAX + 1], struct err *err)
{
	bool has_registry = image_reference_has_registry(text);
	size_t registry = has_registry ? strcspn(text, "/") : 0;
	const char *path = has_registry ? text + registry + 1 : text;
	size_t end = strcspn(path, ":@");
	const char *tag = path[end] == ':' ? path + end + 1 : NULL;
	size_t tag_length = tag ? strcspn(tag, "@") : 0;
	const char *digest = strchr(path, '@');
	bool is_library = (!has_registry || (registry == 9 && memcmp(text, "docker.io", 9) == 0)) &&
			  !memchr(path, '/', end);
	int n;

	if ((has_registry && !is_registry(text, registry)) || !is_path(path, end) ||
	    (tag && !is_tag(tag, tag_length)) || (digest && !is_digest(digest + 1)))
		return err_set(err, EINVAL,
			       "image name %s: it is not like alpine:3.20 or "
			       "registry.example.org/team/app:1.0",
			       text);
	n = snprintf(whole, IMAGE_REFERENCE_MAX + 1, "%.*s/%s%.*s%s%.*s",
		     has_registry ? (int)registry : 9, has_registry ? text : "docker.io",
		     is_library ? "library/" : "", (int)end, path, digest ? "" : ":",
		     digest ? DIGEST_LENGTH + 8 : (tag ? (int)tag_length : 6),
		     digest ? digest : (tag ? tag : "latest"));
	if (n > IMAGE_REFERENCE_MAX)
		return err_set(err, EINVAL, "image name %s: it is longer than %d characters", text,
			       IMAGE_REFERENCE_MAX);
	return 0;
}

void image_reference_file(const char *name, char file[IMAGE_REFERENCE_MAX + 1])
{
	snprintf(file, IMAGE_REFERENCE_MAX + 1, "%s", name);
	for (char *at = file; *at; at++)
		*at = *at == '/' ? '%' : *at;
}

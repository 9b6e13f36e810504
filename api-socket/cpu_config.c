/* SPDX-License-Identifier: Apache-2.0 */
#include "api-socket/cpu_config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "vmm/control.h"
#include "vmm/kvm/cpu_template.h"
#include "json/fields.h"

#define CPUID_FLAGS_MAX 7 /* of KVM_CPUID_FLAG_* */

static unsigned int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned int)(c - '0');
	if (c >= 'a' && c <= 'f')
		return (unsigned int)(c - 'a') + 10;
	if (c >= 'A' && c <= 'F')
		return (unsigned int)(c - 'A') + 10;
	return 16;
}

static bool parse_u32(const char *text, uint32_t *number)
{
	unsigned int base = 10;
	uint64_t value = 0;

	if (strncmp(text, "0x", 2) == 0 || strncmp(text, "0b", 2) == 0) {
		base = text[1] == 'x' ? 16 : 2;
		text += 2;
	}
	if (!*text)
		return false;
	for (; *text; text++) {
		unsigned int digit = digit_of(*text);

		if (digit >= base)
			return false;
		value = value * base + digit;
		if (value > UINT32_MAX)
			return false;
	}
	*number = (uint32_t)value;
	return true;
}

static int parse_number(const struct field *field, const char *text, void *to, struct err *err)
{
	(void)field;
	if (!text || !parse_u32(text, to))
		return err_set(err, EINVAL,
			       "a string with a number of 32 bits is expected, as \"0x1\", "
			       "\"0b1\" or \"1\"");
	return 0;
}

static void print_number(const struct field *field, const void *from, char text[FIELD_WORD_SIZE])
{
	(void)field;
	snprintf(text, FIELD_WORD_SIZE, "0x%x", *(const uint32_t *)from);
}

/* Digits are taken from the last to the first; those not given stay as they are. */
static int parse_bitmap(const struct field *field, const char *text, void *to, struct err *err)
{
	struct bitmap *bitmap = to;
	struct bitmap read = { 0 };
	unsigned int bit = 0;

	if (!text)
		return err_set(err, EINVAL, "a string is expected");
	/* Without 0b this would be a bitmap, too, but surely not the one that is meant. */
	if (strncmp(text, "0x", 2) == 0)
		return err_set(err, EINVAL, "0b is expected, not 0x");
	if (strncmp(text, "0b", 2) == 0)
		text += 2;
	for (size_t i = strlen(text); i > 0; i--) {
		char digit = text[i - 1];

		if (digit == '_')
			continue;
		if (digit != '0' && digit != '1' && digit != 'x')
			return err_set(err, EINVAL, "0, 1, x and _ are expected behind 0b");
		if (bit == field->max)
			return err_set(err, EINVAL, "more than %lld bits", (long long)field->max);
		if (digit != 'x')
			read.mask |= UINT64_C(1) << bit;
		if (digit == '1')
			read.value |= UINT64_C(1) << bit;
		bit++;
	}
	if (bit == 0)
		return err_set(err, EINVAL, "there is no bit in it");
	/* What came before for the same register holds but for the bits of this one. */
	bitmap->value = bitmap_apply(&read, bitmap->value);
	bitmap->mask |= read.mask;
	return 0;
}

static void print_bitmap(const struct field *field, const void *from, char text[FIELD_WORD_SIZE])
{
	const struct bitmap *bitmap = from;

	_Static_assert(FIELD_WORD_SIZE > 2 + 64, "a bitmap of 64 bits has no room");

	*text++ = '0';
	*text++ = 'b';
	for (int64_t i = field->max - 1; i >= 0; i--) {
		uint64_t bit = UINT64_C(1) << i;

		*text++ = bitmap->mask & bit ? (bitmap->value & bit ? '1' : '0') : 'x';
	}
	*text = '\0';
}

static int parse_capability(const struct field *field, const char *text, void *to, struct err *err)
{
	struct capability_check *check = to;

	(void)field;
	check->dropped = text && text[0] == '!';
	if (check->dropped)
		text++;
	if (!text || strspn(text, "0123456789") != strlen(text) || !parse_u32(text, &check->number))
		return err_set(err, EINVAL,
			       "the number of a KVM capability is expected, as \"56\" or \"!56\"");
	return 0;
}

static void print_capability(const struct field *field, const void *from,
			     char text[FIELD_WORD_SIZE])
{
	const struct capability_check *check = from;

	(void)field;
	snprintf(text, FIELD_WORD_SIZE, "%s%u", check->dropped ? "!" : "", check->number);
}

#define NUMBER FIELD_WORD, .required = true, .parse = parse_number, .print = print_number
#define BITMAP(bits)                                                                               \
	FIELD_WORD, .required = true, .parse = parse_bitmap, .print = print_bitmap, .max = (bits)

static const struct field capability = {
	.type = FIELD_WORD,
	.size = sizeof(struct capability_check),
	.parse = parse_capability,
	.print = print_capability,
};

static const char *const register_names[] = {
	[CPUID_EAX] = "eax", [CPUID_EBX] = "ebx", [CPUID_ECX] = "ecx", [CPUID_EDX] = "edx", NULL,
};
static const struct field register_fields[] = {
	{ "register", FIELD_KEY, .required = true, .choices = register_names },
	{ "bitmap", BITMAP(32) },
	{ NULL },
};
static const struct field cpuid_register = {
	.type = FIELD_OBJECT,
	.size = sizeof(struct bitmap),
	.fields = register_fields,
};

static const struct field cpuid_fields[] = {
	{ "leaf", NUMBER, FIELD_AT(cpuid_modifier, leaf) },
	{ "subleaf", NUMBER, FIELD_AT(cpuid_modifier, subleaf) },
	{ "flags", FIELD_INTEGER, .required = true, FIELD_AT(cpuid_modifier, flags),
	  .max = CPUID_FLAGS_MAX },
	{ "modifiers", FIELD_SLOTS, .required = true, FIELD_AT(cpuid_modifier, registers),
	  .each = &cpuid_register },
	{ NULL },
};
static const struct field cpuid = {
	.type = FIELD_OBJECT,
	.size = sizeof(struct cpuid_modifier),
	.fields = cpuid_fields,
};

static const struct field msr_fields[] = {
	{ "addr", NUMBER, FIELD_AT(msr_modifier, addr) },
	{ "bitmap", BITMAP(64), FIELD_AT(msr_modifier, bitmap) },
	{ NULL },
};
static const struct field msr = {
	.type = FIELD_OBJECT,
	.size = sizeof(struct msr_modifier),
	.fields = msr_fields,
};

static const char of_arm[] = "only an empty list is possible on this architecture";

static const struct field template_fields[] = {
	{ "kvm_capabilities", FIELD_LIST,
	  FIELD_COUNTED(cpu_template, capabilities, capability_count), .each = &capability,
	  .max = CPU_TEMPLATE_ENTRIES_MAX },
	{ "cpuid_modifiers", FIELD_LIST, FIELD_COUNTED(cpu_template, cpuid, cpuid_count),
	  .each = &cpuid, .max = CPU_TEMPLATE_ENTRIES_MAX },
	{ "msr_modifiers", FIELD_LIST, FIELD_COUNTED(cpu_template, msrs, msr_count), .each = &msr,
	  .max = CPU_TEMPLATE_ENTRIES_MAX },
	{ "reg_modifiers", FIELD_EMPTY, .why = of_arm },
	{ "vcpu_features", FIELD_EMPTY, .why = of_arm },
	{ NULL },
};

BODY(cpu_config, template_fields, cpu_template, control_set_cpu_config);

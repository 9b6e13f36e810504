/* SPDX-License-Identifier: Apache-2.0 */
#include "api-socket/cpu_config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api-socket/apply.h"
#include "base/array.h"
#include "base/err.h"
#include "vmm/control.h"
#include "vmm/kvm/cpu_template.h"

#define CPUID_FLAGS_MAX 7 /* of KVM_CPUID_FLAG_* */

/* Where in the body a value is: "cpuid_modifiers[2].modifiers[0]". */
struct path {
	char text[80];
};

static const char *const register_names[] = {
	[CPUID_EAX] = "eax",
	[CPUID_EBX] = "ebx",
	[CPUID_ECX] = "ecx",
	[CPUID_EDX] = "edx",
};

/* That it is an object of just these fields, the last NULL, all of them there. */
static int check_fields(const json_t *object, const char *const *names, const struct path *at,
			struct err *err)
{
	const char *name;
	json_t *value;

	if (!json_is_object(object))
		return err_set(err, EINVAL, "%s: an object is expected", at->text);
	/* jansson's iterators take the object without const, and do not change it. */
	json_object_foreach ((json_t *)(uintptr_t)object, name, value) {
		size_t i = 0;

		while (names[i] && strcmp(names[i], name) != 0)
			i++;
		if (!names[i])
			return err_set(err, EINVAL, "%s.%s: unknown field", at->text, name);
	}
	for (; *names; names++) {
		if (!json_object_get(object, *names))
			return err_set(err, EINVAL, "%s.%s: the field is missing", at->text,
				       *names);
	}
	return 0;
}

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

/* The string is the last thing looked at: json_string_value of any other type is NULL. */
static int read_u32(const json_t *object, const char *name, uint32_t *number, const struct path *at,
		    struct err *err)
{
	const char *text = json_string_value(json_object_get(object, name));

	if (!text || !parse_u32(text, number))
		return err_set(err, EINVAL,
			       "%s.%s: a string with a number of 32 bits is expected, as \"0x1\", "
			       "\"0b1\" or \"1\"",
			       at->text, name);
	return 0;
}

/* Digits are taken from the last to the first; those not given stay as they are. */
static int read_bitmap(const json_t *object, unsigned int bits, struct bitmap *bitmap,
		       const struct path *at, struct err *err)
{
	const char *text = json_string_value(json_object_get(object, "bitmap"));
	struct bitmap read = { 0 };
	unsigned int bit = 0;

	if (!text)
		return err_set(err, EINVAL, "%s.bitmap: a string is expected", at->text);
	/* Without 0b this would be a bitmap, too, but surely not the one that is meant. */
	if (strncmp(text, "0x", 2) == 0)
		return err_set(err, EINVAL, "%s.bitmap: 0b is expected, not 0x", at->text);
	if (strncmp(text, "0b", 2) == 0)
		text += 2;
	for (size_t i = strlen(text); i > 0; i--) {
		char digit = text[i - 1];

		if (digit == '_')
			continue;
		if (digit != '0' && digit != '1' && digit != 'x')
			return err_set(err, EINVAL,
				       "%s.bitmap: 0, 1, x and _ are expected behind 0b", at->text);
		if (bit == bits)
			return err_set(err, EINVAL, "%s.bitmap: more than %u bits", at->text, bits);
		if (digit != 'x')
			read.mask |= UINT64_C(1) << bit;
		if (digit == '1')
			read.value |= UINT64_C(1) << bit;
		bit++;
	}
	if (bit == 0)
		return err_set(err, EINVAL, "%s.bitmap: there is no bit in it", at->text);
	/* What came before for the same register holds but for the bits of this one. */
	bitmap->value = bitmap_apply(&read, bitmap->value);
	bitmap->mask |= read.mask;
	return 0;
}

static int read_register(const json_t *object, struct cpuid_modifier *modifier,
			 const struct path *at, struct err *err)
{
	static const char *const names[] = { "register", "bitmap", NULL };
	const char *name;
	unsigned int r = 0;
	int rc = check_fields(object, names, at, err);

	if (rc < 0)
		return rc;
	name = json_string_value(json_object_get(object, "register"));
	while (name && r < CPUID_REGISTERS && strcmp(register_names[r], name) != 0)
		r++;
	if (!name || r == CPUID_REGISTERS)
		return err_set(err, EINVAL, "%s.register: one of eax, ebx, ecx, edx is expected",
			       at->text);
	return read_bitmap(object, 32, &modifier->registers[r], at, err);
}

static int read_cpuid(const json_t *object, void *to, const struct path *at, struct err *err)
{
	static const char *const names[] = { "leaf", "subleaf", "flags", "modifiers", NULL };
	struct cpuid_modifier *modifier = to;
	const json_t *flags, *list;
	struct path inner;
	json_t *entry;
	size_t i;
	int rc = check_fields(object, names, at, err);

	if (rc == 0)
		rc = read_u32(object, "leaf", &modifier->leaf, at, err);
	if (rc == 0)
		rc = read_u32(object, "subleaf", &modifier->subleaf, at, err);
	if (rc < 0)
		return rc;
	flags = json_object_get(object, "flags");
	if (!json_is_integer(flags) || json_integer_value(flags) < 0 ||
	    json_integer_value(flags) > CPUID_FLAGS_MAX)
		return err_set(err, EINVAL, "%s.flags: an integer of 0 to %d is expected", at->text,
			       CPUID_FLAGS_MAX);
	modifier->flags = (uint32_t)json_integer_value(flags);
	list = json_object_get(object, "modifiers");
	if (!json_is_array(list))
		return err_set(err, EINVAL, "%s.modifiers: a list is expected", at->text);
	json_array_foreach (list, i, entry) {
		snprintf(inner.text, sizeof(inner.text), "%.40s.modifiers[%zu]", at->text, i);
		rc = read_register(entry, modifier, &inner, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int read_msr(const json_t *object, void *to, const struct path *at, struct err *err)
{
	static const char *const names[] = { "addr", "bitmap", NULL };
	struct msr_modifier *modifier = to;
	int rc = check_fields(object, names, at, err);

	if (rc == 0)
		rc = read_u32(object, "addr", &modifier->addr, at, err);
	return rc < 0 ? rc : read_bitmap(object, 64, &modifier->bitmap, at, err);
}

static int read_capability(const json_t *value, void *to, const struct path *at, struct err *err)
{
	struct capability_check *check = to;
	const char *text = json_string_value(value);

	check->dropped = text && text[0] == '!';
	if (check->dropped)
		text++;
	if (!text || strspn(text, "0123456789") != strlen(text) || !parse_u32(text, &check->number))
		return err_set(err, EINVAL,
			       "%s: the number of a KVM capability is expected, as \"56\" or "
			       "\"!56\"",
			       at->text);
	return 0;
}

/* Reads the list of that name, if it is given, into *entries, which is allocated. */
static int read_list(const json_t *body, const char *name,
		     int (*read)(const json_t *value, void *to, const struct path *at,
				 struct err *err),
		     size_t entry_size, void **entries, size_t *count, struct err *err)
{
	const json_t *list = json_object_get(body, name);
	struct path at;
	json_t *value;
	size_t i;

	if (!list || json_is_null(list))
		return 0;
	if (!json_is_array(list))
		return err_set(err, EINVAL, "%s: a list is expected", name);
	if (json_array_size(list) > CPU_TEMPLATE_ENTRIES_MAX)
		return err_set(err, EINVAL, "%s: %zu entries, at most %d are possible", name,
			       json_array_size(list), CPU_TEMPLATE_ENTRIES_MAX);
	if (json_array_size(list) == 0)
		return 0;
	*entries = calloc(json_array_size(list), entry_size);
	if (!*entries)
		return err_sys(err, ENOMEM, "%s", name);
	*count = json_array_size(list);
	json_array_foreach (list, i, value) {
		int rc;

		snprintf(at.text, sizeof(at.text), "%s[%zu]", name, i);
		rc = read(value, (char *)*entries + i * entry_size, &at, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int check_body(const json_t *body, struct err *err)
{
	static const char *const known[] = { "kvm_capabilities", "cpuid_modifiers", "msr_modifiers",
					     "reg_modifiers", "vcpu_features" };
	const char *name;
	json_t *value;

	if (!json_is_object(body))
		return err_set(err, EINVAL, "an object is expected");
	json_object_foreach ((json_t *)(uintptr_t)body, name, value) {
		size_t i = 0;

		while (i < ARRAY_SIZE(known) && strcmp(known[i], name) != 0)
			i++;
		if (i == ARRAY_SIZE(known))
			return err_set(err, EINVAL, "%s: unknown field", name);
		if (i >= 3 && !json_is_null(value) &&
		    !(json_is_array(value) && json_array_size(value) == 0))
			return err_set(err, EINVAL,
				       "%s: only an empty list is possible on this architecture",
				       name);
	}
	return 0;
}

int body_cpu_config(const json_t *body, struct cpu_template *template, struct err *err)
{
	void *capabilities = NULL, *cpuid = NULL, *msrs = NULL;
	int rc = check_body(body, err);

	if (rc == 0)
		rc = read_list(body, "kvm_capabilities", read_capability,
			       sizeof(*template->capabilities), &capabilities,
			       &template->capability_count, err);
	if (rc == 0)
		rc = read_list(body, "cpuid_modifiers", read_cpuid, sizeof(*template->cpuid),
			       &cpuid, &template->cpuid_count, err);
	if (rc == 0)
		rc = read_list(body, "msr_modifiers", read_msr, sizeof(*template->msrs), &msrs,
			       &template->msr_count, err);
	template->capabilities = capabilities;
	template->cpuid = cpuid;
	template->msrs = msrs;
	return rc;
}

int apply_cpu_config(struct control *control, const json_t *body, struct err *err)
{
	struct cpu_template template = { 0 };
	int rc = body_cpu_config(body, &template, err);

	if (rc == 0)
		rc = control_set_cpu_config(control, &template, err);
	cpu_template_free(&template);
	return rc;
}

static json_t *bitmap_json(const struct bitmap *bitmap, unsigned int bits)
{
	char text[2 + 64 + 1] = "0b";

	for (unsigned int i = 0; i < bits; i++) {
		uint64_t bit = UINT64_C(1) << (bits - 1 - i);

		text[2 + i] = bitmap->mask & bit ? (bitmap->value & bit ? '1' : '0') : 'x';
	}
	text[2 + bits] = '\0';
	return json_string(text);
}

static json_t *cpuid_json(const struct cpuid_modifier *modifier)
{
	json_t *registers = json_array();
	char leaf[16], subleaf[16];

	snprintf(leaf, sizeof(leaf), "0x%x", modifier->leaf);
	snprintf(subleaf, sizeof(subleaf), "0x%x", modifier->subleaf);
	for (unsigned int r = 0; registers && r < CPUID_REGISTERS; r++) {
		if (modifier->registers[r].mask == 0)
			continue;
		if (json_array_append_new(
			    registers,
			    json_pack("{s:s, s:o}", "register", register_names[r], "bitmap",
				      bitmap_json(&modifier->registers[r], 32))) < 0) {
			json_decref(registers);
			registers = NULL;
		}
	}
	return json_pack("{s:s, s:s, s:i, s:o}", "leaf", leaf, "subleaf", subleaf, "flags",
			 (int)modifier->flags, "modifiers", registers);
}

static json_t *msr_json(const struct msr_modifier *modifier)
{
	char addr[16];

	snprintf(addr, sizeof(addr), "0x%x", modifier->addr);
	return json_pack("{s:s, s:o}", "addr", addr, "bitmap", bitmap_json(&modifier->bitmap, 64));
}

json_t *cpu_config_json(const struct cpu_template *template)
{
	json_t *capabilities = json_array(), *cpuid = json_array(), *msrs = json_array();
	int rc = 0;

	for (size_t i = 0; i < template->capability_count; i++) {
		const struct capability_check *check = &template->capabilities[i];
		char text[16];

		snprintf(text, sizeof(text), "%s%u", check->dropped ? "!" : "", check->number);
		rc |= json_array_append_new(capabilities, json_string(text));
	}
	for (size_t i = 0; i < template->cpuid_count; i++)
		rc |= json_array_append_new(cpuid, cpuid_json(&template->cpuid[i]));
	for (size_t i = 0; i < template->msr_count; i++)
		rc |= json_array_append_new(msrs, msr_json(&template->msrs[i]));
	if (rc < 0) {
		json_decref(capabilities);
		json_decref(cpuid);
		json_decref(msrs);
		return NULL;
	}
	return json_pack("{s:o, s:o, s:o}", "kvm_capabilities", capabilities, "cpuid_modifiers",
			 cpuid, "msr_modifiers", msrs);
}

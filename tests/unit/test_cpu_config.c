/* SPDX-License-Identifier: Apache-2.0 */
#include "api-socket/cpu_config.h"
#include "base/array.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "vmm/control.h"
#include "vmm/kvm/cpu_template.h"
#include "vmm/kvm/cpu_template_named.h"
#include "vmm/kvm/cpuid.h"
#include "json/fields.h"
#include "json/parse.h"

#define LEAF(fields) "{\"cpuid_modifiers\": [{" fields "}]}"
#define BASICS "\"leaf\": \"0x1\", \"subleaf\": \"0x0\", \"flags\": 0"
#define REGISTER(fields) LEAF(BASICS ", \"modifiers\": [{" fields "}]")
#define EAX(bitmap) REGISTER("\"register\": \"eax\", \"bitmap\": \"" bitmap "\"")
#define MSR(fields) "{\"msr_modifiers\": [{" fields "}]}"

static const char whole[] =
	"{\"kvm_capabilities\": [\"!56\", \"121\"],"
	" \"cpuid_modifiers\": ["
	"  {\"leaf\": \"0x1\", \"subleaf\": \"0x0\", \"flags\": 0, \"modifiers\": ["
	"   {\"register\": \"eax\", \"bitmap\": \"0bxxxx000000000011xx00011011110010\"},"
	"   {\"register\": \"edx\", \"bitmap\": \"0b1\"}]},"
	"  {\"leaf\": \"0b111\", \"subleaf\": \"2\", \"flags\": 1, \"modifiers\": []}],"
	" \"msr_modifiers\": [{\"addr\": \"0x10a\", \"bitmap\": \"0b1xxx_0000_0000_0000_"
	"0000_0000_0000_0000_0000_0000_0000_0000_0000_0000_0000_0001\"}],"
	" \"reg_modifiers\": [], \"vcpu_features\": []}";

static struct cpu_template template;
static struct err err;

static void set_up(void)
{
	memset(&template, 0, sizeof(template));
	err.text[0] = '\0';
}

static void tear_down(void)
{
	cpu_template_free(&template);
}

static int read_body(const char *text)
{
	json_t *body = parse_object(text, strlen(text), "body", &err);
	int rc = body ? fields_read(body, body_cpu_config.fields, &template, &err) : -EINVAL;

	json_decref(body);
	return rc;
}

START_TEST(whole_template_is_read)
{
	ck_assert_msg(read_body(whole) == 0, "%s", err.text);
	ck_assert_uint_eq(template.capability_count, 2);
	ck_assert_uint_eq(template.capabilities[0].number, 56);
	ck_assert(template.capabilities[0].dropped);
	ck_assert_uint_eq(template.capabilities[1].number, 121);
	ck_assert(!template.capabilities[1].dropped);
	ck_assert_uint_eq(template.cpuid_count, 2);
	ck_assert_uint_eq(template.cpuid[0].leaf, 1);
	ck_assert_uint_eq(template.cpuid[0].registers[CPUID_EAX].mask, 0x0fff3fff);
	ck_assert_uint_eq(template.cpuid[0].registers[CPUID_EAX].value, 0x000306f2);
	ck_assert_uint_eq(template.cpuid[0].registers[CPUID_EBX].mask, 0);
	ck_assert_uint_eq(template.cpuid[0].registers[CPUID_EDX].mask, 1);
	ck_assert_uint_eq(template.cpuid[0].registers[CPUID_EDX].value, 1);
	ck_assert_uint_eq(template.cpuid[1].leaf, 7);
	ck_assert_uint_eq(template.cpuid[1].subleaf, 2);
	ck_assert_uint_eq(template.cpuid[1].flags, 1);
	ck_assert_uint_eq(template.msr_count, 1);
	ck_assert_uint_eq(template.msrs[0].addr, 0x10a);
	ck_assert_uint_eq(template.msrs[0].bitmap.mask, 0x8fffffffffffffff);
	ck_assert_uint_eq(template.msrs[0].bitmap.value, 0x8000000000000001);
}
END_TEST

/* GET /vm/config as text, read again, gives the same text. */
START_TEST(template_survives_being_printed)
{
	json_t *first, *second;
	char *text;

	ck_assert_int_eq(read_body(whole), 0);
	first = fields_write(body_cpu_config.fields, &template);
	text = json_dumps(first, 0);
	assert_contains(text, "\"0bxxxx000000000011xx00011011110010\"");
	assert_contains(text, "\"!56\"");
	cpu_template_free(&template);
	ck_assert_msg(read_body(text) == 0, "%s: %s", text, err.text);
	ck_assert_uint_eq(template.cpuid[0].registers[CPUID_EAX].value, 0x000306f2);
	ck_assert_uint_eq(template.msrs[0].bitmap.value, 0x8000000000000001);
	second = fields_write(body_cpu_config.fields, &template);
	ck_assert(json_equal(first, second));
	json_decref(first);
	json_decref(second);
	free(text);
}
END_TEST

static const char *const good[] = {
	"{}",
	"{\"kvm_capabilities\": null, \"reg_modifiers\": null}",
	"{\"kvm_capabilities\": [\"0\", \"4294967295\"]}",
	EAX("0bx"),
	EAX("_1_"),
	EAX("01x"),
	EAX("0b01x_01x01x01x01x01x01x01x01x01x_01"),
	MSR("\"addr\": \"0xFFFFffff\", \"bitmap\": \"0b0\""),
	LEAF("\"leaf\": \"4294967295\", \"subleaf\": \"0b11\", \"flags\": 7, \"modifiers\": []"),
};

START_TEST(good_body_is_taken)
{
	ck_assert_msg(read_body(good[_i]) == 0, "%s: %s", good[_i], err.text);
}
END_TEST

static const struct {
	const char *text;
	const char *says;
} bad[] = {
	{ "{\"modifiers\": []}", "modifiers: unknown field" },
	{ "{\"kvm_capabilities\": {}}", "kvm_capabilities: a list" },
	{ "{\"kvm_capabilities\": [\"1\", 56]}", "kvm_capabilities[1]: " },
	{ "{\"kvm_capabilities\": [\"0x1\"]}", "kvm_capabilities[0]: " },
	{ "{\"kvm_capabilities\": [\"!\"]}", "kvm_capabilities[0]: " },
	{ "{\"kvm_capabilities\": [\"!!1\"]}", "kvm_capabilities[0]: " },
	{ "{\"kvm_capabilities\": [\"4294967296\"]}", "kvm_capabilities[0]: " },
	{ "{\"reg_modifiers\": [{}]}", "reg_modifiers: only an empty list" },
	{ "{\"vcpu_features\": {}}", "vcpu_features: only an empty list" },
	{ "{\"cpuid_modifiers\": [1]}", "cpuid_modifiers[0]: an object" },
	{ LEAF("\"leaf\": \"1\""), "cpuid_modifiers[0].subleaf: the field is missing" },
	{ LEAF(BASICS), "cpuid_modifiers[0].modifiers: the field is missing" },
	{ LEAF(BASICS ", \"modifiers\": null"), "cpuid_modifiers[0].modifiers: a list" },
	{ LEAF(BASICS ", \"modifiers\": [], \"more\": 1"), "cpuid_modifiers[0].more: unknown" },
	{ LEAF("\"leaf\": 1, \"subleaf\": \"0\", \"flags\": 0, \"modifiers\": []"),
	  "cpuid_modifiers[0].leaf: " },
	{ LEAF("\"leaf\": \"0x\", \"subleaf\": \"0\", \"flags\": 0, \"modifiers\": []"),
	  "cpuid_modifiers[0].leaf: " },
	{ LEAF("\"leaf\": \"-1\", \"subleaf\": \"0\", \"flags\": 0, \"modifiers\": []"),
	  "cpuid_modifiers[0].leaf: " },
	{ LEAF("\"leaf\": \"1\", \"subleaf\": \"0x100000000\", \"flags\": 0, \"modifiers\": []"),
	  "cpuid_modifiers[0].subleaf: " },
	{ LEAF("\"leaf\": \"1\", \"subleaf\": \"0b2\", \"flags\": 0, \"modifiers\": []"),
	  "cpuid_modifiers[0].subleaf: " },
	{ LEAF("\"leaf\": \"1\", \"subleaf\": \"0\", \"flags\": 8, \"modifiers\": []"),
	  "cpuid_modifiers[0].flags: " },
	{ LEAF("\"leaf\": \"1\", \"subleaf\": \"0\", \"flags\": -1, \"modifiers\": []"),
	  "cpuid_modifiers[0].flags: " },
	{ LEAF("\"leaf\": \"1\", \"subleaf\": \"0\", \"flags\": \"0\", \"modifiers\": []"),
	  "cpuid_modifiers[0].flags: " },
	{ REGISTER("\"register\": \"rax\", \"bitmap\": \"0b1\""),
	  "cpuid_modifiers[0].modifiers[0].register: " },
	{ REGISTER("\"register\": null, \"bitmap\": \"0b1\""),
	  "cpuid_modifiers[0].modifiers[0].register: " },
	{ REGISTER("\"bitmap\": \"0b1\""), "modifiers[0].register: the field is missing" },
	{ REGISTER("\"register\": \"eax\", \"bitmap\": 1"), "modifiers[0].modifiers[0].bitmap: " },
	{ EAX(""), "cpuid_modifiers[0].modifiers[0].bitmap: " },
	{ EAX("0b"), "cpuid_modifiers[0].modifiers[0].bitmap: " },
	{ EAX("0b___"), "cpuid_modifiers[0].modifiers[0].bitmap: " },
	{ EAX("0b012"), "cpuid_modifiers[0].modifiers[0].bitmap: " },
	{ EAX("0x1"), "cpuid_modifiers[0].modifiers[0].bitmap: " },
	{ EAX("0bX"), "cpuid_modifiers[0].modifiers[0].bitmap: " },
	{ EAX("0bx00000000000000000000000000000000"), "bitmap: more than 32 bits" },
	{ MSR("\"addr\": \"0x10a\""), "msr_modifiers[0].bitmap: the field is missing" },
	{ MSR("\"addr\": \"10a\", \"bitmap\": \"0b1\""), "msr_modifiers[0].addr: " },
	{ MSR("\"addr\": \"1\", \"bitmap\": \"0b0000000000000000000000000000000000000000000000000"
	      "0000000000000000\""),
	  "msr_modifiers[0].bitmap: more than 64 bits" },
};

START_TEST(bad_body_is_refused_with_the_place)
{
	ck_assert_msg(read_body(bad[_i].text) == -EINVAL, "taken: %s", bad[_i].text);
	assert_contains(err.text, bad[_i].says);
}
END_TEST

START_TEST(place_has_the_right_numbers)
{
	ck_assert_int_lt(read_body("{\"cpuid_modifiers\": [{" BASICS ", \"modifiers\": []},"
				   " {" BASICS ", \"modifiers\": []}, {" BASICS ", \"modifiers\": ["
				   "{\"register\": \"eax\", \"bitmap\": \"0b1\"},"
				   "{\"register\": \"eax\", \"bitmap\": \"0b3\"}]}]}"),
			 0);
	assert_contains(err.text, "cpuid_modifiers[2].modifiers[1].bitmap: ");
}
END_TEST

START_TEST(list_without_end_is_refused)
{
	json_t *body = json_object(), *list = json_array();

	json_object_set_new(body, "kvm_capabilities", list);
	for (unsigned int i = 0; i < CPU_TEMPLATE_ENTRIES_MAX; i++)
		json_array_append_new(list, json_string("1"));
	ck_assert_int_eq(fields_read(body, body_cpu_config.fields, &template, &err), 0);
	cpu_template_free(&template);
	json_array_append_new(list, json_string("1"));
	ck_assert_int_eq(fields_read(body, body_cpu_config.fields, &template, &err), -EINVAL);
	assert_contains(err.text, "kvm_capabilities: 257 entries");
	json_decref(body);
}
END_TEST

START_TEST(later_bitmap_of_a_register_goes_over_the_earlier)
{
	ck_assert_int_eq(read_body(LEAF(BASICS ", \"modifiers\": ["
					       "{\"register\": \"ebx\", \"bitmap\": \"0b0011\"},"
					       "{\"register\": \"ebx\", \"bitmap\": \"0b1x0x\"}]")),
			 0);
	ck_assert_uint_eq(template.cpuid[0].registers[CPUID_EBX].mask, 0xf);
	ck_assert_uint_eq(template.cpuid[0].registers[CPUID_EBX].value, 0x9);
}
END_TEST

static union cpuid_table table_of_three(void)
{
	union cpuid_table table = { .kvm.nent = 3 };

	table.kvm.entries[0] = (struct kvm_cpuid_entry2){ 1, 0, 0, 0xff00ff00, 2, 3, 4 };
	table.kvm.entries[1] = (struct kvm_cpuid_entry2){ 7, 0, 1, 5, 6, 7, 8 };
	table.kvm.entries[2] = (struct kvm_cpuid_entry2){ 7, 1, 1, 9, 10, 11, 12 };
	return table;
}

START_TEST(leaf_is_changed_by_its_bitmaps)
{
	union cpuid_table table = table_of_three(), before = table;

	ck_assert_int_eq(
		read_body("{\"cpuid_modifiers\": ["
			  "{\"leaf\": \"7\", \"subleaf\": \"1\", \"flags\": 3, \"modifiers\": ["
			  "{\"register\": \"edx\", \"bitmap\": \"0b0x11\"}]},"
			  "{" BASICS ", \"modifiers\": ["
			  "{\"register\": \"eax\", \"bitmap\": \"0b1xxx00000000\"}]}]}"),
		0);
	ck_assert_int_eq(cpu_template_apply_cpuid(&template, &table, &err), 0);
	before.kvm.entries[2].flags = 3;
	before.kvm.entries[2].edx = 7;
	before.kvm.entries[0].eax = 0xff00ff00;
	ck_assert_mem_eq(&table.kvm.entries[0], &before.kvm.entries[0],
			 3 * sizeof(table.kvm.entries[0]));
}
END_TEST

START_TEST(leaf_or_subleaf_that_is_not_there_is_named)
{
	union cpuid_table table = table_of_three();

	ck_assert_int_eq(read_body(LEAF("\"leaf\": \"0x7\", \"subleaf\": \"0x2\", \"flags\": 0,"
					"\"modifiers\": []")),
			 0);
	ck_assert_int_eq(cpu_template_apply_cpuid(&template, &table, &err), -ENOTSUP);
	assert_contains(err.text, "CPUID leaf 0x7, subleaf 0x2");
}
END_TEST

START_TEST(last_word_on_a_capability_counts)
{
	ck_assert(cpu_template_needs(&template, 56, true));
	ck_assert(!cpu_template_needs(&template, 56, false));
	ck_assert_int_eq(read_body("{\"kvm_capabilities\": [\"!56\", \"57\", \"!57\", \"!58\","
				   " \"58\"]}"),
			 0);
	ck_assert(!cpu_template_needs(&template, 56, true));
	ck_assert(!cpu_template_needs(&template, 57, true));
	ck_assert(cpu_template_needs(&template, 58, false));
	ck_assert(cpu_template_needs(&template, 59, true));
}
END_TEST

/* No descriptor at all is one whose KVM has nothing. */
START_TEST(capability_that_is_missing_is_named)
{
	ck_assert_int_eq(read_body("{\"kvm_capabilities\": [\"!56\"]}"), 0);
	ck_assert_int_eq(cpu_template_check(&template, -1, &err), 0);
	cpu_template_free(&template);
	ck_assert_int_eq(read_body("{\"kvm_capabilities\": [\"!56\", \"57\"]}"), 0);
	ck_assert_int_eq(cpu_template_check(&template, -1, &err), -ENOTSUP);
	assert_contains(err.text, "capability 57 ");
}
END_TEST

START_TEST(control_takes_the_template_before_the_start_only)
{
	struct control control;

	ck_assert_int_eq(control_open(&control, NULL, &err), 0);
	ck_assert_int_eq(read_body(EAX("0b1")), 0);
	ck_assert_int_eq(control_set_cpu_config(&control, &template, &err), 0);
	ck_assert_ptr_null(template.cpuid);
	ck_assert_uint_eq(control.cpu_template.cpuid_count, 1);
	ck_assert_int_eq(read_body("{}"), 0);
	control.state = CONTROL_PAUSED;
	ck_assert_int_eq(control_set_cpu_config(&control, &template, &err), -EBUSY);
	assert_contains(err.text, "CPU configuration");
	ck_assert_uint_eq(control.cpu_template.cpuid_count, 1);
	control.state = CONTROL_NOT_STARTED;
	ck_assert_int_eq(control_set_cpu_config(&control, &template, &err), 0);
	ck_assert_uint_eq(control.cpu_template.cpuid_count, 0);
	control_close(&control);
}
END_TEST

START_TEST(named_templates_have_their_contents)
{
	static const struct {
		enum cpu_template_name name;
		unsigned int leaves;
		uint32_t signature; /* what the guest sees */
		uint64_t arch_capabilities;
	} contents[] = {
		{ CPU_TEMPLATE_NONE, 0 },
		{ CPU_TEMPLATE_C3, 5, 0x306e4, 0 },
		{ CPU_TEMPLATE_T2, 6, 0x306f2, 0 },
		{ CPU_TEMPLATE_T2S, 6, 0x306f2, 0xc0a0c4c },
		{ CPU_TEMPLATE_T2CL, 6, 0x306f2, 0x1d0ae1ff },
		{ CPU_TEMPLATE_T2A, 6, 0x306f2, 0 },
	};

	ck_assert_uint_eq(ARRAY_SIZE(contents), CPU_TEMPLATE_NAMES);
	for (size_t i = 0; i < ARRAY_SIZE(contents); i++) {
		json_t *body;
		char *text;

		ck_assert_int_eq(cpu_template_named(contents[i].name, &template, &err), 0);
		ck_assert_uint_eq(template.cpuid_count, contents[i].leaves);
		if (template.cpuid_count > 0)
			ck_assert_uint_eq(template.cpuid[0].registers[CPUID_EAX].value,
					  contents[i].signature);
		ck_assert_uint_eq(template.msr_count, contents[i].arch_capabilities ? 1 : 0);
		if (template.msr_count > 0) {
			ck_assert_uint_eq(template.msrs[0].addr, 0x10a);
			ck_assert_uint_eq(bitmap_apply(&template.msrs[0].bitmap, 0x1d0ae1ff),
					  contents[i].arch_capabilities);
		}
		/* No value has a bit that its mask has not: it is a template like any other. */
		body = fields_write(body_cpu_config.fields, &template);
		text = json_dumps(body, 0);
		cpu_template_free(&template);
		ck_assert_msg(read_body(text) == 0, "%s", err.text);
		cpu_template_free(&template);
		json_decref(body);
		free(text);
	}
}
END_TEST

START_TEST(named_templates_are_for_their_processors)
{
	static const struct {
		const char *vendor;
		uint32_t signature;
		const char *names; /* that are possible */
	} hosts[] = {
		{ "GenuineIntel", 0x50654, " None C3 T2 T2S" },
		{ "GenuineIntel", 0x50657, " None C3 T2 T2S T2CL" },
		{ "GenuineIntel", 0x606a6, " None C3 T2 T2CL" },
		{ "GenuineIntel", 0x806f8, " None" },
		{ "GenuineIntel", 0xa00f11, " None" },
		{ "AuthenticAMD", 0xa00f11, " None T2A" },
		{ "AuthenticAMD", 0x50654, " None" },
		{ "AuthenticAMD", 0xa00f12, " None" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
		char possible[64] = "";

		for (unsigned int name = 0; name < CPU_TEMPLATE_NAMES; name++) {
			if (cpu_template_named_check((enum cpu_template_name)name, hosts[i].vendor,
						     hosts[i].signature, &err) < 0) {
				assert_contains(err.text, cpu_template_names[name]);
				continue;
			}
			strcat(possible, " ");
			strcat(possible, cpu_template_names[name]);
		}
		ck_assert_str_eq(possible, hosts[i].names);
	}
}
END_TEST

static void set_named(struct control *control, int name, bool given)
{
	struct machine_config config = control->machine_config;

	config.cpu_template = name;
	config.has_cpu_template = given;
	ck_assert_int_eq(control_set_machine(control, &config, &err), 0);
}

START_TEST(last_template_counts_be_it_named_or_not)
{
	struct control control;

	ck_assert_int_eq(control_open(&control, NULL, &err), 0);
	set_named(&control, CPU_TEMPLATE_T2, true);
	ck_assert_uint_eq(control.cpu_template.cpuid_count, 6);
	set_named(&control, CPU_TEMPLATE_NONE, false);
	ck_assert_int_eq(control.machine_config.cpu_template, CPU_TEMPLATE_T2);
	ck_assert_uint_eq(control.cpu_template.cpuid_count, 6);
	ck_assert_int_eq(read_body(EAX("0b1")), 0);
	ck_assert_int_eq(control_set_cpu_config(&control, &template, &err), 0);
	ck_assert_int_eq(control.machine_config.cpu_template, CPU_TEMPLATE_NONE);
	ck_assert_uint_eq(control.cpu_template.cpuid_count, 1);
	ck_assert(control.has_cpu_config);
	set_named(&control, CPU_TEMPLATE_T2S, true);
	ck_assert_uint_eq(control.cpu_template.msr_count, 1);
	ck_assert(!control.has_cpu_config);
	set_named(&control, CPU_TEMPLATE_NONE, true);
	ck_assert_uint_eq(control.cpu_template.cpuid_count, 0);
	control_close(&control);
}
END_TEST

Suite *cpu_config_suite(void)
{
	Suite *suite =
		SUITE("cpu_config", set_up, tear_down, whole_template_is_read,
		      template_survives_being_printed, place_has_the_right_numbers,
		      list_without_end_is_refused, later_bitmap_of_a_register_goes_over_the_earlier,
		      leaf_is_changed_by_its_bitmaps, leaf_or_subleaf_that_is_not_there_is_named,
		      last_word_on_a_capability_counts, capability_that_is_missing_is_named,
		      named_templates_have_their_contents, named_templates_are_for_their_processors,
		      last_template_counts_be_it_named_or_not,
		      control_takes_the_template_before_the_start_only);

	add_table_test(suite, set_up, tear_down, good_body_is_taken, ARRAY_SIZE(good));
	add_table_test(suite, set_up, tear_down, bad_body_is_refused_with_the_place,
		       ARRAY_SIZE(bad));
	return suite;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU templates that Firecracker knows by a name (deprecated there): what a guest sees of its
 * processor on the models of one vendor that each is for.
 */
#ifndef MOTE_VMM_KVM_CPU_TEMPLATE_NAMED_H
#define MOTE_VMM_KVM_CPU_TEMPLATE_NAMED_H

#include <stdint.h>

struct cpu_template;
struct err;

enum cpu_template_name {
	CPU_TEMPLATE_NONE,
	CPU_TEMPLATE_C3,
	CPU_TEMPLATE_T2,
	CPU_TEMPLATE_T2S,
	CPU_TEMPLATE_T2CL,
	CPU_TEMPLATE_T2A,
	CPU_TEMPLATE_NAMES,
};

extern const char *const cpu_template_names[CPU_TEMPLATE_NAMES + 1]; /* ends with NULL */

/* Fills *template, which the caller frees; of NONE it changes nothing. 0 or -ENOMEM, err set. */
int cpu_template_named(enum cpu_template_name name, struct cpu_template *template, struct err *err);

/*
 * Whether it is for a processor with this signature (CPUID leaf 1, EAX) and vendor (leaf 0, EBX,
 * EDX, ECX as text). 0 or -ENOTSUP with err set.
 */
int cpu_template_named_check(enum cpu_template_name name, const char vendor[12], uint32_t signature,
			     struct err *err);
/* The same for the processor that it runs on. */
int cpu_template_named_check_host(enum cpu_template_name name, struct err *err);

#endif

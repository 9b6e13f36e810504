/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm/cpu_template_named.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/err.h"
#include "vmm/kvm/cpu_template.h"

/* Family, model and stepping without what is reserved. */
#define SIGNATURE_MASK 0x0fff0fffU
#define SKYLAKE 0x00050654U
#define CASCADE_LAKE 0x00050657U
#define ICE_LAKE 0x000606a6U
#define MILAN 0x00a00f11U

#define MODELS_MAX 3

#define INDEXED 1 /* KVM_CPUID_FLAG_SIGNIFCANT_INDEX */

#define MSR_ARCH_CAPABILITIES 0x10a

/* Leaf 1: a signature, and no features that the oldest of the models lacks. */
#define FEATURES_C3                                                                                \
	{                                                                                          \
		0x1, 0, 0,                                                                         \
		{                                                                                  \
			[CPUID_EAX] = { 0x0fff3fff, 0x306e4 }, [CPUID_ECX] = { 0x40dd3c, 0 },      \
			[CPUID_EDX] = { 0xa8641080, 0x1080 },                                      \
		}                                                                                  \
	}
#define FEATURES_T2                                                                                \
	{                                                                                          \
		0x1, 0, 0,                                                                         \
		{                                                                                  \
			[CPUID_EAX] = { 0x0fff3fff, 0x306f2 }, [CPUID_ECX] = { 0x4cdfc, 0 },       \
			[CPUID_EDX] = { 0xe8641080, 0x1080 },                                      \
		}                                                                                  \
	}
#define MORE_FEATURES(ebx_mask, ebx_value, ecx_mask, edx_mask)                                     \
	{                                                                                          \
		0x7, 0, INDEXED,                                                                   \
		{                                                                                  \
			[CPUID_EBX] = { ebx_mask, ebx_value }, [CPUID_ECX] = { ecx_mask, 0 },      \
			[CPUID_EDX] = { edx_mask, 0 },                                             \
		}                                                                                  \
	}
#define MORE_FEATURES_T2 MORE_FEATURES(0xffefda14, 0x200, 0x40415f5e, 0x11c)
/* No extended state of MPX, AVX-512 and PKRU, and no ways to save it but XSAVE and XSAVEOPT. */
#define STATES                                                                                     \
	{ 0xd, 0, INDEXED, { [CPUID_EAX] = { 0x2f8, 0 } } },                                       \
	{                                                                                          \
		0xd, 1, INDEXED,                                                                   \
		{                                                                                  \
			[CPUID_EAX] = { 0xe, 0 }                                                   \
		}                                                                                  \
	}
#define EXTENDED(ecx_mask, edx_mask)                                                               \
	{                                                                                          \
		0x80000001, 0, 0,                                                                  \
		{                                                                                  \
			[CPUID_ECX] = { ecx_mask, 0 }, [CPUID_EDX] = { edx_mask, 0 },              \
		}                                                                                  \
	}
#define SIZES(mask, value)                                                                         \
	{                                                                                          \
		0x80000008, 0, 0,                                                                  \
		{                                                                                  \
			[CPUID_EBX] = { mask, value }                                              \
		}                                                                                  \
	}

static const struct cpuid_modifier c3_cpuid[] = {
	FEATURES_C3,
	MORE_FEATURES(0xffafdd3c, 0, 0x4041481e, 0xc),
	STATES,
	EXTENDED(0x120, 0x4000000),
};
static const struct cpuid_modifier t2_cpuid[] = {
	FEATURES_T2, MORE_FEATURES_T2, STATES, EXTENDED(0x20000100, 0x4000000), SIZES(0x200, 0),
};
static const struct cpuid_modifier t2cl_cpuid[] = {
	FEATURES_T2, MORE_FEATURES_T2, STATES, EXTENDED(0x200001c0, 0x7c00000), SIZES(0x200, 0),
};
static const struct cpuid_modifier t2a_cpuid[] = {
	FEATURES_T2,
	MORE_FEATURES_T2,
	STATES,
	EXTENDED(0x200001c4, 0x6400000),
	SIZES(0x1c0205, 0x1c0004),
};
static const struct msr_modifier t2s_msrs[] = {
	{ MSR_ARCH_CAPABILITIES, { UINT64_MAX, 0xc0a0c4c } },
};
static const struct msr_modifier t2cl_msrs[] = {
	{ MSR_ARCH_CAPABILITIES, { 0xffffffffe2f51e00, 0 } },
};

const char *const cpu_template_names[CPU_TEMPLATE_NAMES + 1] = {
	[CPU_TEMPLATE_NONE] = "None", [CPU_TEMPLATE_C3] = "C3",	    [CPU_TEMPLATE_T2] = "T2",
	[CPU_TEMPLATE_T2S] = "T2S",   [CPU_TEMPLATE_T2CL] = "T2CL", [CPU_TEMPLATE_T2A] = "T2A",
};

#define INTEL "GenuineIntel"
#define AMD "AuthenticAMD"
#define LIST(list) (list), ARRAY_SIZE(list)

static const struct named {
	const struct cpuid_modifier *cpuid;
	size_t cpuid_count;
	const struct msr_modifier *msrs;
	size_t msr_count;
	const char *vendor;
	uint32_t models[MODELS_MAX];
} named[CPU_TEMPLATE_NAMES] = {
	[CPU_TEMPLATE_C3] = { LIST(c3_cpuid), NULL, 0, INTEL, { SKYLAKE, CASCADE_LAKE, ICE_LAKE } },
	[CPU_TEMPLATE_T2] = { LIST(t2_cpuid), NULL, 0, INTEL, { SKYLAKE, CASCADE_LAKE, ICE_LAKE } },
	[CPU_TEMPLATE_T2S] = { LIST(t2_cpuid), LIST(t2s_msrs), INTEL, { SKYLAKE, CASCADE_LAKE } },
	[CPU_TEMPLATE_T2CL] = { LIST(t2cl_cpuid),
				LIST(t2cl_msrs),
				INTEL,
				{ CASCADE_LAKE, ICE_LAKE } },
	[CPU_TEMPLATE_T2A] = { LIST(t2a_cpuid), NULL, 0, AMD, { MILAN } },
};

static void *copy(const void *list, size_t size)
{
	void *copied = size > 0 ? malloc(size) : NULL;

	return copied ? memcpy(copied, list, size) : NULL;
}

int cpu_template_named(enum cpu_template_name name, struct cpu_template *template, struct err *err)
{
	const struct named *contents = &named[name];

	memset(template, 0, sizeof(*template));
	template->cpuid = copy(contents->cpuid, contents->cpuid_count * sizeof(*contents->cpuid));
	template->msrs = copy(contents->msrs, contents->msr_count * sizeof(*contents->msrs));
	template->cpuid_count = contents->cpuid_count;
	template->msr_count = contents->msr_count;
	if ((contents->cpuid && !template->cpuid) || (contents->msrs && !template->msrs)) {
		cpu_template_free(template);
		return err_sys(err, ENOMEM, "cpu_template");
	}
	return 0;
}

int cpu_template_named_check(enum cpu_template_name name, const char vendor[12], uint32_t signature,
			     struct err *err)
{
	const struct named *contents = &named[name];

	if (name == CPU_TEMPLATE_NONE)
		return 0;
	if (memcmp(vendor, contents->vendor, 12) != 0)
		return err_set(err, ENOTSUP, "cpu_template %s: it is for processors of %s",
			       cpu_template_names[name], contents->vendor);
	for (size_t i = 0; i < MODELS_MAX; i++) {
		if (contents->models[i] == (signature & SIGNATURE_MASK))
			return 0;
	}
	return err_set(err, ENOTSUP,
		       "cpu_template %s: it is not for this model of processor (signature 0x%x)",
		       cpu_template_names[name], signature);
}

int cpu_template_named_check_host(enum cpu_template_name name, struct err *err)
{
	unsigned int max = 0, eax = 0, ebx = 0, ecx = 0, edx = 0;
	char vendor[12];

	__cpuid(0, max, ebx, ecx, edx);
	memcpy(vendor, &ebx, 4);
	memcpy(vendor + 4, &edx, 4);
	memcpy(vendor + 8, &ecx, 4);
	__cpuid(1, eax, ebx, ecx, edx);
	return cpu_template_named_check(name, vendor, eax, err);
}

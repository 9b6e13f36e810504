/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm/cpuid_features.h"

#include <stddef.h>
#include <stdint.h>

#include "base/array.h"
#include "vmm/kvm/cpuid_table.h"

#define BIT(n) (UINT32_C(1) << (n))

/* The state components of XCR0 and IA32_XSS that have features of their own. */
#define SSE BIT(1)
#define AVX BIT(2)
#define MPX (BIT(3) | BIT(4))
#define AVX512 (BIT(5) | BIT(6) | BIT(7))
#define PKRU BIT(9)
#define CET (BIT(11) | BIT(12))
#define TILES (BIT(17) | BIT(18))

#define XSAVE_LEAF 0xd
#define FIRST_SUBLEAF_OF_A_COMPONENT 2
#define LEGACY_AND_HEADER_BYTES 576
#define EAX_XFD BIT(4) /* leaf 0xD, subleaf 1 */

#define ECX_VMX BIT(5)	  /* leaf 1 */
#define ECX_DTES64 BIT(2) /* leaf 1 */
#define EDX_DS BIT(21)	  /* leaf 1 */
#define ECX_SVM BIT(2)	  /* leaf 0x80000001 */
#define SVM_LEAF 0x8000000a

/* Components that are there together or not at all, and those that they need. */
static const struct {
	uint32_t components;
	uint32_t needs;
} groups[] = {
	{ AVX, SSE }, { MPX, 0 }, { AVX512, AVX }, { PKRU, 0 }, { CET, 0 }, { TILES, 0 },
};

enum reg { EAX, EBX, ECX, EDX };

/* Features that cannot be used without these components. */
static const struct {
	uint32_t components;
	uint32_t function;
	uint32_t index;
	enum reg reg;
	uint32_t bits;
} features[] = {
	/* FMA, AVX, F16C; XOP, FMA4 */
	{ AVX, 0x1, 0, ECX, BIT(12) | BIT(28) | BIT(29) },
	{ AVX, 0x80000001, 0, ECX, BIT(11) | BIT(16) },
	/* AVX2; VAES, VPCLMULQDQ */
	{ AVX, 0x7, 0, EBX, BIT(5) },
	{ AVX, 0x7, 0, ECX, BIT(9) | BIT(10) },
	/* AVX-VNNI, AVX-IFMA; AVX-VNNI-INT8, AVX-NE-CONVERT, AVX-VNNI-INT16 */
	{ AVX, 0x7, 1, EAX, BIT(4) | BIT(23) },
	{ AVX, 0x7, 1, EDX, BIT(4) | BIT(5) | BIT(10) },
	{ MPX, 0x7, 0, EBX, BIT(14) },
	/* F, DQ, IFMA, PF, ER, CD, BW, VL */
	{ AVX512, 0x7, 0, EBX,
	  BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31) },
	/* VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ */
	{ AVX512, 0x7, 0, ECX, BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14) },
	/* 4VNNIW, 4FMAPS, VP2INTERSECT, FP16; BF16 */
	{ AVX512, 0x7, 0, EDX, BIT(2) | BIT(3) | BIT(8) | BIT(23) },
	{ AVX512, 0x7, 1, EAX, BIT(5) },
	/* PKU, OSPKE */
	{ PKRU, 0x7, 0, ECX, BIT(3) | BIT(4) },
	/* Shadow stacks; indirect branch tracking */
	{ CET, 0x7, 0, ECX, BIT(7) },
	{ CET, 0x7, 0, EDX, BIT(20) },
	/* AMX: BF16, TILE, INT8; FP16; COMPLEX; and the shape of tiles */
	{ TILES, 0x7, 0, EDX, BIT(22) | BIT(24) | BIT(25) },
	{ TILES, 0x7, 1, EAX, BIT(21) },
	{ TILES, 0x7, 1, EDX, BIT(8) },
	{ TILES, 0x1d, 0, EAX, UINT32_MAX },
	{ TILES, 0x1d, 1, EAX, UINT32_MAX },
	{ TILES, 0x1d, 1, EBX, UINT32_MAX },
	{ TILES, 0x1d, 1, ECX, UINT32_MAX },
	{ TILES, 0x1e, 0, EBX, UINT32_MAX },
	{ TILES, XSAVE_LEAF, 1, EAX, EAX_XFD },
};

/* As KVM does it for a guest's instruction. */
static struct kvm_cpuid_entry2 *find(union cpuid_table *table, uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < table->kvm.nent; i++) {
		struct kvm_cpuid_entry2 *entry = &table->kvm.entries[i];

		if (entry->function == function && entry->index == index)
			return entry;
	}
	return NULL;
}

static void clear(union cpuid_table *table, uint32_t function, uint32_t index, enum reg reg,
		  uint32_t bits)
{
	struct kvm_cpuid_entry2 *entry = find(table, function, index);

	if (!entry)
		return;
	switch (reg) {
	case EAX:
		entry->eax &= ~bits;
		break;
	case EBX:
		entry->ebx &= ~bits;
		break;
	case ECX:
		entry->ecx &= ~bits;
		break;
	case EDX:
		entry->edx &= ~bits;
		break;
	}
}

static uint32_t whole_groups(uint32_t components)
{
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
		const uint32_t all = groups[i].components | groups[i].needs;

		if ((components & all) != all)
			components &= ~groups[i].components;
	}
	return components;
}

/* Takes away the subleaves of components that are not there any more. */
static void drop_components(union cpuid_table *table, uint32_t dropped)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < table->kvm.nent; i++) {
		const struct kvm_cpuid_entry2 entry = table->kvm.entries[i];

		if (entry.function != XSAVE_LEAF || entry.index < FIRST_SUBLEAF_OF_A_COMPONENT ||
		    entry.index > 31 || !(dropped & BIT(entry.index)))
			table->kvm.entries[kept++] = entry;
	}
	table->kvm.nent = kept;
}

/* What XSAVE needs for all components of XCR0 that are left. */
static uint32_t xsave_bytes(const union cpuid_table *table, uint32_t components)
{
	uint32_t bytes = LEGACY_AND_HEADER_BYTES;

	for (uint32_t i = 0; i < table->kvm.nent; i++) {
		const struct kvm_cpuid_entry2 *entry = &table->kvm.entries[i];

		if (entry->function == XSAVE_LEAF && entry->index >= FIRST_SUBLEAF_OF_A_COMPONENT &&
		    entry->index < 32 && (components & BIT(entry->index)) &&
		    entry->eax + entry->ebx > bytes)
			bytes = entry->eax + entry->ebx;
	}
	return bytes;
}

void cpuid_hide_incomplete(union cpuid_table *table)
{
	struct kvm_cpuid_entry2 *user = find(table, XSAVE_LEAF, 0);
	const struct kvm_cpuid_entry2 *supervisor = find(table, XSAVE_LEAF, 1);
	const uint32_t listed = (user ? user->eax : 0) | (supervisor ? supervisor->ecx : 0);
	const uint32_t whole = whole_groups(listed), dropped = listed & ~whole;

	if (dropped) {
		clear(table, XSAVE_LEAF, 0, EAX, dropped);
		clear(table, XSAVE_LEAF, 1, ECX, dropped);
		drop_components(table, dropped);
		user = find(table, XSAVE_LEAF, 0);
		if (user)
			user->ecx = xsave_bytes(table, user->eax);
	}
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		if (!(whole & features[i].components))
			clear(table, features[i].function, features[i].index, features[i].reg,
			      features[i].bits);
	}
}

void cpuid_hide_nested_virtualisation(union cpuid_table *table)
{
	clear(table, 0x1, 0, ECX, ECX_VMX | ECX_DTES64);
	clear(table, 0x1, 0, EDX, EDX_DS);
	clear(table, 0x80000001, 0, ECX, ECX_SVM);
	for (enum reg reg = EAX; reg <= EDX; reg++)
		clear(table, SVM_LEAF, 0, reg, UINT32_MAX);
}

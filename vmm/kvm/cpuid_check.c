/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm/cpuid_check.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/array.h"
#include "base/err.h"
#include "vmm/kvm/cpuid.h"

#define BIT(n) (UINT32_C(1) << (n))

enum reg { EAX, EBX, ECX, EDX };

static const char *const reg_names[] = { "eax", "ebx", "ecx", "edx" };

/* Linux's names of the bits (/proc/cpuinfo), from bit 0; NULL: it has none. */
static const char *const leaf_1_ecx[32] = {
	"pni",	  "pclmulqdq",	"dtes64",  "monitor", "ds_cpl",
	"vmx",	  "smx",	"est",	   "tm2",     "ssse3",
	"cid",	  "sdbg",	"fma",	   "cx16",    "xtpr",
	"pdcm",	  NULL,		"pcid",	   "dca",     "sse4_1",
	"sse4_2", "x2apic",	"movbe",   "popcnt",  "tsc_deadline_timer",
	"aes",	  "xsave",	"osxsave", "avx",     "f16c",
	"rdrand", "hypervisor",
};
static const char *const leaf_1_edx[32] = {
	"fpu",	"vme",	"de",	"pse", "tsc",  "msr", "pae",   "mce", "cx8",	 "apic", NULL,
	"sep",	"mtrr", "pge",	"mca", "cmov", "pat", "pse36", "pn",  "clflush", NULL,	 "dts",
	"acpi", "mmx",	"fxsr", "sse", "sse2", "ss",  "ht",    "tm",  "ia64",	 "pbe",
};
static const char *const leaf_7_ebx[32] = {
	"fsgsbase",   "tsc_adjust", "sgx",	  "bmi1",     "hle",	  "avx2",     NULL,
	"smep",	      "bmi2",	    "erms",	  "invpcid",  "rtm",	  "cqm",      NULL,
	"mpx",	      "rdt_a",	    "avx512f",	  "avx512dq", "rdseed",	  "adx",      "smap",
	"avx512ifma", NULL,	    "clflushopt", "clwb",     "intel_pt", "avx512pf", "avx512er",
	"avx512cd",   "sha_ni",	    "avx512bw",	  "avx512vl",
};
static const char *const leaf_7_ecx[32] = {
	NULL,
	"avx512vbmi",
	"umip",
	"pku",
	"ospke",
	"waitpkg",
	"avx512_vbmi2",
	"shstk",
	"gfni",
	"vaes",
	"vpclmulqdq",
	"avx512_vnni",
	"avx512_bitalg",
	"tme",
	"avx512_vpopcntdq",
	NULL,
	"la57",
	NULL,
	NULL,
	NULL,
	NULL,
	NULL,
	"rdpid",
	NULL,
	"bus_lock_detect",
	"cldemote",
	NULL,
	"movdiri",
	"movdir64b",
	"enqcmd",
	"sgx_lc",
};
static const char *const leaf_7_edx[32] = {
	NULL,
	NULL,
	"avx512_4vnniw",
	"avx512_4fmaps",
	"fsrm",
	NULL,
	NULL,
	NULL,
	"avx512_vp2intersect",
	NULL,
	"md_clear",
	NULL,
	NULL,
	NULL,
	"serialize",
	NULL,
	"tsxldtrk",
	NULL,
	"pconfig",
	"arch_lbr",
	"ibt",
	NULL,
	"amx_bf16",
	"avx512_fp16",
	"amx_tile",
	"amx_int8",
	"spec_ctrl",
	"stibp",
	"flush_l1d",
	"arch_capabilities",
	"core_capabilities",
	"ssbd",
};
static const char *const leaf_d_1_eax[32] = { "xsaveopt", "xsavec", "xgetbv1", "xsaves", "xfd" };
static const char *const leaf_80000001_ecx[32] = {
	"lahf_lm",    "cmp_legacy",  "svm",
	"extapic",    "cr8_legacy",  "abm",
	"sse4a",      "misalignsse", "3dnowprefetch",
	"osvw",	      "ibs",	     "xop",
	"skinit",     "wdt",	     NULL,
	"lwp",	      "fma4",	     "tce",
	NULL,	      "nodeid_msr",  NULL,
	"tbm",	      "topoext",     "perfctr_core",
	"perfctr_nb", NULL,	     "bpext",
	"ptsc",	      "perfctr_llc", "mwaitx",
};
static const char *const leaf_80000001_edx[32] = {
	[11] = "syscall", [19] = "mp",	   [20] = "nx", [22] = "mmxext",   [25] = "fxsr_opt",
	[26] = "pdpe1gb", [27] = "rdtscp", [29] = "lm", [30] = "3dnowext", [31] = "3dnow",
};
static const char *const leaf_80000008_ebx[32] = {
	[0] = "clzero", [2] = "xsaveerptr", [4] = "rdpru", [9] = "wbnoinvd",   [12] = "ibpb",
	[14] = "ibrs",	[15] = "stibp",	    [24] = "ssbd", [25] = "virt_ssbd", [29] = "btc_no",
};

/* Registers of which each bit is a feature; of those in `ours` the host has no say. */
static const struct {
	uint32_t function;
	uint32_t index;
	enum reg reg;
	uint32_t ours;
	const char *const *names;
} features[] = {
	/* TSC_DEADLINE and HYPERVISOR we set, OSXSAVE follows the guest's CR4. */
	{ 0x1, 0, ECX, BIT(24) | BIT(27) | BIT(31), leaf_1_ecx },
	/* HTT says that there is more than one processor. */
	{ 0x1, 0, EDX, BIT(28), leaf_1_edx },
	{ 0x7, 0, EBX, 0, leaf_7_ebx },
	/* OSPKE follows CR4. */
	{ 0x7, 0, ECX, BIT(4), leaf_7_ecx },
	{ 0x7, 0, EDX, 0, leaf_7_edx },
	{ 0x7, 1, EAX, 0, NULL },
	{ 0x7, 1, EBX, 0, NULL },
	{ 0x7, 1, EDX, 0, NULL },
	{ 0x7, 2, EDX, 0, NULL },
	/* The components of XCR0 and IA32_XSS. */
	{ 0xd, 0, EAX, 0, NULL },
	{ 0xd, 0, EDX, 0, NULL },
	{ 0xd, 1, EAX, 0, leaf_d_1_eax },
	{ 0xd, 1, ECX, 0, NULL },
	{ 0x40000001, 0, EAX, 0, NULL },
	/* CMP_LEGACY says that there is more than one processor. */
	{ 0x80000001, 0, ECX, BIT(1), leaf_80000001_ecx },
	{ 0x80000001, 0, EDX, 0, leaf_80000001_edx },
	{ 0x80000007, 0, EDX, 0, NULL },
	{ 0x80000008, 0, EBX, 0, leaf_80000008_ebx },
	{ 0x80000021, 0, EAX, 0, NULL },
};

static const struct kvm_cpuid_entry2 *find(const union cpuid_table *table, uint32_t function,
					   uint32_t index)
{
	for (uint32_t i = 0; i < table->kvm.nent; i++) {
		const struct kvm_cpuid_entry2 *entry = &table->kvm.entries[i];

		if (entry->function == function && entry->index == index)
			return entry;
	}
	return NULL;
}

static uint32_t value_of(const union cpuid_table *table, uint32_t function, uint32_t index,
			 enum reg reg)
{
	const struct kvm_cpuid_entry2 *entry = find(table, function, index);
	const uint32_t values[] = { entry ? entry->eax : 0, entry ? entry->ebx : 0,
				    entry ? entry->ecx : 0, entry ? entry->edx : 0 };

	return values[reg];
}

static void code_entry(const struct state_codec *codec, struct kvm_cpuid_entry2 *entry)
{
	STATE_CODE(codec, entry->function);
	STATE_CODE(codec, entry->index);
	STATE_CODE(codec, entry->flags);
	STATE_CODE(codec, entry->eax);
	STATE_CODE(codec, entry->ebx);
	STATE_CODE(codec, entry->ecx);
	STATE_CODE(codec, entry->edx);
}

void cpuid_code(const struct state_codec *codec, union cpuid_table *table)
{
	if (codec->in)
		memset(table, 0, sizeof(*table));
	STATE_CODE(codec, table->kvm.nent);
	if (table->kvm.nent > CPUID_ENTRIES) {
		table->kvm.nent = 0;
		codec->in->failed = true;
	}
	for (uint32_t i = 0; i < table->kvm.nent; i++)
		code_entry(codec, &table->kvm.entries[i]);
}

static int compare_vendors(const union cpuid_table *guest, const union cpuid_table *host,
			   struct err *err)
{
	static const enum reg order[] = { EBX, EDX, ECX };
	uint32_t guests[3], hosts[3];

	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		guests[i] = value_of(guest, 0, 0, order[i]);
		hosts[i] = value_of(host, 0, 0, order[i]);
	}
	if (memcmp(guests, hosts, sizeof(guests)) == 0)
		return 0;
	return err_set(err, ENOTSUP,
		       "the guest was started on a processor of the vendor \"%.12s\", and this "
		       "host's is of \"%.12s\"",
		       (const char *)guests, (const char *)hosts);
}

/* What the guest puts into its page tables, and where its buffers may be. */
static int compare_address_sizes(const union cpuid_table *guest, const union cpuid_table *host,
				 struct err *err)
{
	const uint32_t guests = value_of(guest, 0x80000008, 0, EAX) & 0xff;
	const uint32_t hosts = value_of(host, 0x80000008, 0, EAX) & 0xff;

	if (guests <= hosts)
		return 0;
	return err_set(err, ENOTSUP,
		       "the guest was told that physical addresses have %u bits, and this host's "
		       "have %u",
		       guests, hosts);
}

/* How the guest has its registers in memory. */
static int compare_xsave(const union cpuid_table *guest, const union cpuid_table *host,
			 struct err *err)
{
	const uint64_t components = value_of(guest, 0xd, 0, EAX) | value_of(guest, 0xd, 1, ECX) |
				    (uint64_t)value_of(guest, 0xd, 0, EDX) << 32 |
				    (uint64_t)value_of(guest, 0xd, 1, EDX) << 32;

	/* x87 and SSE are where they always were. */
	for (uint32_t i = 2; i < 64; i++) {
		if (!(components >> i & 1) ||
		    (value_of(guest, 0xd, i, EAX) == value_of(host, 0xd, i, EAX) &&
		     value_of(guest, 0xd, i, EBX) == value_of(host, 0xd, i, EBX)))
			continue;
		return err_set(err, ENOTSUP,
			       "the guest was told of another place or size of XSAVE's component "
			       "%u than this host has: CPUID leaf 0xd.%u",
			       i, i);
	}
	return 0;
}

static int compare_features(const union cpuid_table *guest, const union cpuid_table *host,
			    struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < ARRAY_SIZE(features) && rc == 0; i++) {
		const uint32_t function = features[i].function, index = features[i].index;
		const enum reg reg = features[i].reg;
		const uint32_t missing = value_of(guest, function, index, reg) &
					 ~value_of(host, function, index, reg) & ~features[i].ours;
		const int bit = __builtin_ffs((int)missing) - 1;
		const char *name;

		if (!missing)
			continue;
		name = features[i].names ? features[i].names[bit] : NULL;
		rc = err_set(err, ENOTSUP,
			     "the guest was told of a feature of the processor that this host "
			     "lacks: bit %d of %s in CPUID leaf 0x%x.%u%s%s%s",
			     bit, reg_names[reg], function, index, name ? " (" : "",
			     name ? name : "", name ? ")" : "");
	}
	return rc;
}

int cpuid_compare(const union cpuid_table *guest, const union cpuid_table *host, struct err *err)
{
	int rc = compare_vendors(guest, host, err);

	if (rc == 0)
		rc = compare_features(guest, host, err);
	if (rc == 0)
		rc = compare_address_sizes(guest, host, err);
	return rc < 0 ? rc : compare_xsave(guest, host, err);
}

static void add_features(union cpuid_table *to, const union cpuid_table *from)
{
	for (uint32_t i = 0; i < to->kvm.nent; i++) {
		struct kvm_cpuid_entry2 *entry = &to->kvm.entries[i];

		/* Sizes are no bits to add. */
		if (entry->function == 0xd && entry->index > 1)
			continue;
		if (entry->function != 0x80000008)
			entry->eax |= value_of(from, entry->function, entry->index, EAX);
		entry->ebx |= value_of(from, entry->function, entry->index, EBX);
		entry->ecx |= value_of(from, entry->function, entry->index, ECX);
		entry->edx |= value_of(from, entry->function, entry->index, EDX);
	}
}

int cpuid_check(int dev_fd, int vcpu_fd, const union cpuid_table *guest, struct err *err)
{
	union cpuid_table host, new = { .kvm.nent = CPUID_ENTRIES };
	int rc = cpuid_get_supported(dev_fd, &host, err);

	if (rc < 0)
		return rc;
	if (ioctl(vcpu_fd, KVM_GET_CPUID2, &new.kvm) < 0)
		return err_sys(err, errno, "/dev/kvm: KVM_GET_CPUID2");
	add_features(&host, &new);
	return cpuid_compare(guest, &host, err);
}

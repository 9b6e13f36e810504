/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm/cpu_template.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/err.h"
#include "vmm/kvm/cpuid.h"

void cpu_template_free(struct cpu_template *template)
{
	free(template->capabilities);
	free(template->cpuid);
	free(template->msrs);
	memset(template, 0, sizeof(*template));
}

bool cpu_template_needs(const struct cpu_template *template, uint32_t number, bool otherwise)
{
	for (size_t i = template->capability_count; i > 0; i--) {
		if (template->capabilities[i - 1].number == number)
			return !template->capabilities[i - 1].dropped;
	}
	return otherwise;
}

int cpu_template_check(const struct cpu_template *template, int kvm_fd, struct err *err)
{
	for (size_t i = 0; i < template->capability_count; i++) {
		uint32_t number = template->capabilities[i].number;

		if (cpu_template_needs(template, number, false) &&
		    ioctl(kvm_fd, KVM_CHECK_EXTENSION, (unsigned long)number) <= 0)
			return err_set(err, ENOTSUP,
				       "cpu-config: the KVM capability %u is missing on this host",
				       number);
	}
	return 0;
}

static struct kvm_cpuid_entry2 *find(union cpuid_table *table, uint32_t leaf, uint32_t subleaf)
{
	for (uint32_t i = 0; i < table->kvm.nent; i++) {
		struct kvm_cpuid_entry2 *entry = &table->kvm.entries[i];

		if (entry->function == leaf && entry->index == subleaf)
			return entry;
	}
	return NULL;
}

int cpu_template_apply_cpuid(const struct cpu_template *template, union cpuid_table *table,
			     struct err *err)
{
	for (size_t i = 0; i < template->cpuid_count; i++) {
		const struct cpuid_modifier *modifier = &template->cpuid[i];
		struct kvm_cpuid_entry2 *entry = find(table, modifier->leaf, modifier->subleaf);
		uint32_t *registers[CPUID_REGISTERS];

		if (!entry)
			return err_set(err, ENOTSUP,
				       "cpu-config: this host has no CPUID leaf 0x%x, subleaf 0x%x",
				       modifier->leaf, modifier->subleaf);
		registers[CPUID_EAX] = &entry->eax;
		registers[CPUID_EBX] = &entry->ebx;
		registers[CPUID_ECX] = &entry->ecx;
		registers[CPUID_EDX] = &entry->edx;
		entry->flags = modifier->flags;
		for (unsigned int r = 0; r < CPUID_REGISTERS; r++)
			*registers[r] =
				(uint32_t)bitmap_apply(&modifier->registers[r], *registers[r]);
	}
	return 0;
}

static int access_msr(int vcpu_fd, unsigned long request, const char *name,
		      struct kvm_msr_entry *entry, struct err *err)
{
	union {
		struct kvm_msrs kvm;
		char room[sizeof(struct kvm_msrs) + sizeof(*entry)];
	} msrs = { .kvm.nmsrs = 1 };
	int done;

	msrs.kvm.entries[0] = *entry;
	done = ioctl(vcpu_fd, request, &msrs.kvm);
	if (done < 0)
		return err_sys(err, errno, "cpu-config: MSR 0x%x: %s", entry->index, name);
	if (done == 0)
		return err_set(err, ENOTSUP, "cpu-config: MSR 0x%x: %s refuses it", entry->index,
			       name);
	*entry = msrs.kvm.entries[0];
	return 0;
}

int cpu_template_apply_msrs(const struct cpu_template *template, int vcpu_fd, struct err *err)
{
	for (size_t i = 0; i < template->msr_count; i++) {
		struct kvm_msr_entry entry = { .index = template->msrs[i].addr };
		int rc = access_msr(vcpu_fd, KVM_GET_MSRS, "KVM_GET_MSRS", &entry, err);

		if (rc < 0)
			return rc;
		entry.data = bitmap_apply(&template->msrs[i].bitmap, entry.data);
		rc = access_msr(vcpu_fd, KVM_SET_MSRS, "KVM_SET_MSRS", &entry, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

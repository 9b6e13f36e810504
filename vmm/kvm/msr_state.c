/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm/msr_state.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/err.h"
#include "vmm/kvm/kvm.h"

/* KVM lists some hundred today. */
#define LISTED_MAX 1024
#define KVM_FIRST UINT32_C(0x4b564d00)
#define KVM_COUNT 256
#define MSRS_MAX (LISTED_MAX + KVM_COUNT)
/* KVM takes fewer than 256 in one call. */
#define BATCH_MAX 255

#define MSR_TSC 0x10
#define MSR_TSC_DEADLINE 0x6e0

/* KVM's flexible arrays, with room. */
union list {
	struct kvm_msr_list kvm;
	char room[sizeof(struct kvm_msr_list) + LISTED_MAX * sizeof(uint32_t)];
};

union values {
	struct kvm_msrs kvm;
	char room[sizeof(struct kvm_msrs) + MSRS_MAX * sizeof(struct kvm_msr_entry)];
};

static bool is_listed(const union values *values, uint32_t index)
{
	for (uint32_t i = 0; i < values->kvm.nmsrs; i++) {
		if (values->kvm.entries[i].index == index)
			return true;
	}
	return false;
}

static int list(const struct kvm *kvm, union values *values, struct err *err)
{
	union list list = { .kvm.nmsrs = LISTED_MAX };

	if (ioctl(kvm->dev_fd, KVM_GET_MSR_INDEX_LIST, &list.kvm) < 0)
		return err_sys(err, errno, "/dev/kvm: KVM_GET_MSR_INDEX_LIST");
	for (uint32_t i = 0; i < list.kvm.nmsrs; i++)
		values->kvm.entries[values->kvm.nmsrs++].index = list.kvm.indices[i];
	for (uint32_t index = KVM_FIRST; index < KVM_FIRST + KVM_COUNT; index++) {
		if (!is_listed(values, index))
			values->kvm.entries[values->kvm.nmsrs++].index = index;
	}
	return 0;
}

union batch {
	struct kvm_msrs kvm;
	char room[sizeof(struct kvm_msrs) + BATCH_MAX * sizeof(struct kvm_msr_entry)];
};

static uint32_t batch_of(uint32_t count)
{
	return count < BATCH_MAX ? count : BATCH_MAX;
}

/*
 * An ioctl on `count` of the registers from `first`: how many KVM took, the next one being the one
 * that it refuses; or -errno.
 */
static int exchange(int vcpu_fd, unsigned long request, union batch *part,
		    const struct kvm_msr_entry *first, uint32_t count)
{
	int done;

	part->kvm = (struct kvm_msrs){ .nmsrs = count };
	memcpy(part->kvm.entries, first, count * sizeof(*first));
	done = ioctl(vcpu_fd, request, &part->kvm);
	return done < 0 ? -errno : done;
}

/* Drops those that KVM refuses to read, at each of which it stops. */
static int read_all(int vcpu_fd, union values *values, struct err *err)
{
	const uint32_t count = values->kvm.nmsrs;
	struct kvm_msr_entry *entries = values->kvm.entries;
	union batch part;

	values->kvm.nmsrs = 0;
	for (uint32_t at = 0; at < count;) {
		uint32_t asked = batch_of(count - at);
		int done = exchange(vcpu_fd, KVM_GET_MSRS, &part, entries + at, asked);

		if (done < 0)
			return err_sys(err, -done, "/dev/kvm: KVM_GET_MSRS");
		memmove(entries + values->kvm.nmsrs, part.kvm.entries,
			(size_t)done * sizeof(*entries));
		values->kvm.nmsrs += (uint32_t)done;
		at += (uint32_t)done + ((uint32_t)done < asked);
	}
	return 0;
}

bool msr_state_deadline(int vcpu_fd, uint64_t *deadline)
{
	const struct kvm_msr_entry entry = { .index = MSR_TSC_DEADLINE };
	union batch part;

	if (exchange(vcpu_fd, KVM_GET_MSRS, &part, &entry, 1) != 1)
		return false;
	*deadline = part.kvm.entries[0].data;
	return true;
}

static int save(const struct kvm *kvm, int vcpu_fd, union values *values, uint64_t deadline,
		struct state_writer *out, struct err *err)
{
	int rc = list(kvm, values, err);

	if (rc == 0)
		rc = read_all(vcpu_fd, values, err);
	if (rc < 0)
		return rc;
	state_put_u32(out, values->kvm.nmsrs);
	for (uint32_t i = 0; i < values->kvm.nmsrs; i++) {
		const struct kvm_msr_entry *entry = &values->kvm.entries[i];

		state_put_u32(out, entry->index);
		state_put_u64(out, entry->index == MSR_TSC_DEADLINE ? deadline : entry->data);
	}
	return 0;
}

int msr_state_save(const struct kvm *kvm, int vcpu_fd, uint64_t deadline, struct state_writer *out,
		   struct err *err)
{
	union values *values = calloc(1, sizeof(*values));
	int rc = values ? save(kvm, vcpu_fd, values, deadline, out, err)
			: err_sys(err, ENOMEM, "vCPU state");

	free(values);
	return rc;
}

/* Whether it has that value already: some can be read, and not written. */
static bool has_value(int vcpu_fd, union batch *part, const struct kvm_msr_entry *entry)
{
	return exchange(vcpu_fd, KVM_GET_MSRS, part, entry, 1) == 1 &&
	       part->kvm.entries[0].data == entry->data;
}

static int set(int vcpu_fd, const struct kvm_msr_entry *entries, uint32_t count, struct err *err)
{
	union batch part;

	for (uint32_t at = 0; at < count;) {
		uint32_t asked = batch_of(count - at);
		int done = exchange(vcpu_fd, KVM_SET_MSRS, &part, entries + at, asked);

		if (done < 0)
			return err_sys(err, -done, "/dev/kvm: KVM_SET_MSRS");
		at += (uint32_t)done;
		if ((uint32_t)done == asked)
			continue;
		if (!has_value(vcpu_fd, &part, &entries[at]))
			return err_set(err, ENOTSUP,
				       "MSR 0x%x: this host does not take the guest's value 0x%llx",
				       entries[at].index, (unsigned long long)entries[at].data);
		at++;
	}
	return 0;
}

static int restore(int vcpu_fd, union values *values, struct state_reader *in, struct err *err)
{
	struct kvm_msr_entry deadline = { 0 };
	uint32_t count = state_get_u32(in);
	int rc;

	if (count > MSRS_MAX)
		return err_set(err, EINVAL, "vCPU state: %u MSRs, and at most %d are possible",
			       count, MSRS_MAX);
	for (uint32_t i = 0; i < count; i++) {
		struct kvm_msr_entry entry = { .index = state_get_u32(in) };

		entry.data = state_get_u64(in);
		if (entry.index == MSR_TSC_DEADLINE)
			deadline = entry;
		else
			values->kvm.entries[values->kvm.nmsrs++] = entry;
	}
	if (in->failed)
		return err_set(err, EINVAL, "vCPU state: its MSRs are cut off");
	rc = set(vcpu_fd, values->kvm.entries, values->kvm.nmsrs, err);
	return rc == 0 && deadline.data ? set(vcpu_fd, &deadline, 1, err) : rc;
}

int msr_state_restore(int vcpu_fd, struct state_reader *in, struct err *err)
{
	union values *values = calloc(1, sizeof(*values));
	int rc = values ? restore(vcpu_fd, values, in, err) : err_sys(err, ENOMEM, "vCPU state");

	free(values);
	return rc;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm/vm_state.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "base/array.h"
#include "base/err.h"
#include "vmm/kvm/kvm.h"

static void code_channel(const struct state_codec *codec, struct kvm_pit_channel_state *channel)
{
	STATE_CODE(codec, channel->count);
	STATE_CODE(codec, channel->latched_count);
	STATE_CODE(codec, channel->count_latched);
	STATE_CODE(codec, channel->status_latched);
	STATE_CODE(codec, channel->status);
	STATE_CODE(codec, channel->read_state);
	STATE_CODE(codec, channel->write_state);
	STATE_CODE(codec, channel->write_latch);
	STATE_CODE(codec, channel->rw_mode);
	STATE_CODE(codec, channel->mode);
	STATE_CODE(codec, channel->bcd);
	STATE_CODE(codec, channel->gate); /* and the time of loading is KVM's to set */
}

static void code_pit(const struct state_codec *codec, struct kvm_pit_state2 *pit)
{
	for (size_t i = 0; i < ARRAY_SIZE(pit->channels); i++)
		code_channel(codec, &pit->channels[i]);
	STATE_CODE(codec, pit->flags);
}

static void code_pic(const struct state_codec *codec, struct kvm_pic_state *pic)
{
	__u8 *const fields[] = {
		&pic->last_irr,
		&pic->irr,
		&pic->imr,
		&pic->isr,
		&pic->priority_add,
		&pic->irq_base,
		&pic->read_reg_select,
		&pic->poll,
		&pic->special_mask,
		&pic->init_state,
		&pic->auto_eoi,
		&pic->rotate_on_auto_eoi,
		&pic->special_fully_nested_mode,
		&pic->init4,
		&pic->elcr,
		&pic->elcr_mask,
	};

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		STATE_CODE(codec, *fields[i]);
}

static void code_ioapic(const struct state_codec *codec, struct kvm_ioapic_state *ioapic)
{
	STATE_CODE(codec, ioapic->base_address);
	STATE_CODE(codec, ioapic->ioregsel);
	STATE_CODE(codec, ioapic->id);
	STATE_CODE(codec, ioapic->irr);
	for (size_t i = 0; i < ARRAY_SIZE(ioapic->redirtbl); i++)
		STATE_CODE(codec, ioapic->redirtbl[i].bits);
}

static void code_chip(const struct state_codec *codec, struct kvm_irqchip *chip)
{
	if (chip->chip_id == KVM_IRQCHIP_IOAPIC)
		code_ioapic(codec, &chip->chip.ioapic);
	else
		code_pic(codec, &chip->chip.pic);
}

static void code_clock(const struct state_codec *codec, struct kvm_clock_data *clock)
{
	STATE_CODE(codec, clock->clock);
	STATE_CODE(codec, clock->flags);
	STATE_CODE(codec, clock->realtime);
}

static const uint32_t chips[] = {
	KVM_IRQCHIP_PIC_MASTER,
	KVM_IRQCHIP_PIC_SLAVE,
	KVM_IRQCHIP_IOAPIC,
};

int vm_state_save(const struct kvm *kvm, struct state_writer *out, struct err *err)
{
	const struct state_codec codec = { .out = out };
	struct kvm_clock_data clock = { 0 };
	struct kvm_pit_state2 pit = { 0 };

	if (ioctl(kvm->vm_fd, KVM_GET_PIT2, &pit) < 0)
		return err_sys(err, errno, "/dev/kvm: KVM_GET_PIT2");
	code_pit(&codec, &pit);
	if (ioctl(kvm->vm_fd, KVM_GET_CLOCK, &clock) < 0)
		return err_sys(err, errno, "/dev/kvm: KVM_GET_CLOCK");
	code_clock(&codec, &clock);
	for (size_t i = 0; i < ARRAY_SIZE(chips); i++) {
		struct kvm_irqchip chip = { .chip_id = chips[i] };

		if (ioctl(kvm->vm_fd, KVM_GET_IRQCHIP, &chip) < 0)
			return err_sys(err, errno, "/dev/kvm: KVM_GET_IRQCHIP %u", chips[i]);
		code_chip(&codec, &chip);
	}
	return 0;
}

static int restore_chip(const struct kvm *kvm, uint32_t id, const struct state_codec *codec,
			struct err *err)
{
	/* What is not among the fields stays as it is: a zero in its place breaks the routing. */
	struct kvm_irqchip chip = { .chip_id = id };

	if (ioctl(kvm->vm_fd, KVM_GET_IRQCHIP, &chip) < 0)
		return err_sys(err, errno, "/dev/kvm: KVM_GET_IRQCHIP %u", id);
	code_chip(codec, &chip);
	if (ioctl(kvm->vm_fd, KVM_SET_IRQCHIP, &chip) < 0)
		return err_sys(err, errno, "/dev/kvm: KVM_SET_IRQCHIP %u", id);
	return 0;
}

int vm_state_restore(const struct kvm *kvm, bool clock_realtime, struct state_reader *in,
		     struct err *err)
{
	const struct state_codec codec = { .in = in };
	struct kvm_clock_data clock = { 0 };
	struct kvm_pit_state2 pit = { 0 };
	int rc = 0;

	code_pit(&codec, &pit);
	code_clock(&codec, &clock);
	if (clock_realtime && !(clock.flags & KVM_CLOCK_REALTIME))
		return err_set(err, ENOTSUP,
			       "clock_realtime: KVM did not tell the time when the "
			       "snapshot was made");
	clock.flags = clock_realtime ? KVM_CLOCK_REALTIME : 0;
	if (ioctl(kvm->vm_fd, KVM_SET_PIT2, &pit) < 0)
		return err_sys(err, errno, "/dev/kvm: KVM_SET_PIT2");
	if (ioctl(kvm->vm_fd, KVM_SET_CLOCK, &clock) < 0)
		return err_sys(err, errno, "/dev/kvm: KVM_SET_CLOCK");
	for (size_t i = 0; i < ARRAY_SIZE(chips) && rc == 0; i++)
		rc = restore_chip(kvm, chips[i], &codec, err);
	return rc;
}

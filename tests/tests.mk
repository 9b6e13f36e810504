# SPDX-License-Identifier: Apache-2.0
# How the tests are built. Guests are the same whatever the variant.

GUEST_CFLAGS := -std=gnu17 -O2 -Wall -Wextra -ffreestanding -nostdlib -static -fno-pie -no-pie \
	-mno-red-zone -mgeneral-regs-only -fno-stack-protector -fcf-protection=none \
	-fno-asynchronous-unwind-tables -Itests/guests/lib -Wl,-T,tests/guests/lib/guest.ld \
	-Wl,--build-id=none -Wl,-z,max-page-size=4096 -Wl,--no-warn-rwx-segments
GUEST_LIB := tests/guests/lib/start.S tests/guests/lib/guest.c
GUESTS := hello exits echo highmem smp-1 smp-3 smp-31 \
	ends-reset ends-triple-fault ends-panic ends-execute-mmio ends-halt ends-spin
GUEST_BINARIES := $(GUESTS:%=build/guests/%)

build/guests/smp-%: GUEST_DEFINES = -DOTHERS=$(lastword $(subst -, ,$*))
build/guests/ends-reset: GUEST_DEFINES = -DEND=RESET
build/guests/ends-triple-fault: GUEST_DEFINES = -DEND=TRIPLE_FAULT
build/guests/ends-panic: GUEST_DEFINES = -DEND=PANIC_RESET
build/guests/ends-execute-mmio: GUEST_DEFINES = -DEND=EXECUTE_MMIO
build/guests/ends-halt: GUEST_DEFINES = -DEND=HALT
build/guests/ends-spin: GUEST_DEFINES = -DEND=SPIN

# The source is the name up to its first dash.
.SECONDEXPANSION:
$(GUEST_BINARIES): build/guests/%: tests/guests/$$(firstword $$(subst -, ,$$*)).c $(GUEST_LIB) \
		tests/guests/lib/guest.h tests/guests/lib/guest.ld tests/tests.mk
	@mkdir -p $(@D)
	$(say) GUEST $@
	$(Q)$(CC) $(GUEST_CFLAGS) $(GUEST_DEFINES) -o $@ $(GUEST_LIB) $<

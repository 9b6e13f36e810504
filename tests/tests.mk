# SPDX-License-Identifier: Apache-2.0
# How the tests are built. Guests are the same whatever the variant.

GUEST_CFLAGS := -std=gnu17 -O2 -Wall -Wextra -Wno-missing-field-initializers -ffreestanding -nostdlib -static -fno-pie \
	-mno-red-zone -mgeneral-regs-only -fno-stack-protector -fcf-protection=none \
	-fno-asynchronous-unwind-tables -Itests/guests/lib -Wl,-T,tests/guests/lib/guest.ld \
	-Wl,--build-id=none -Wl,-z,max-page-size=4096 -Wl,--no-warn-rwx-segments $(if $(WERROR),-Werror)
GUEST_LIB := tests/guests/lib/start.S tests/guests/lib/guest.c
GUESTS := hello waits cpu counter flood exits echo highmem files smp-1 smp-3 smp-31 block net vsock latency registers \
	stall dirty ticks fill works badring badtransport badblock badnet badvsock \
	ends-reset ends-triple-fault ends-panic ends-execute-mmio ends-halt ends-spin
GUEST_BINARIES := $(GUESTS:%=build/guests/%)

build/guests/smp-%: GUEST_DEFINES = -DOTHERS=$(lastword $(subst -, ,$*))
build/guests/ends-reset: GUEST_DEFINES = -DEND=RESET
build/guests/ends-triple-fault: GUEST_DEFINES = -DEND=TRIPLE_FAULT
build/guests/ends-panic: GUEST_DEFINES = -DEND=PANIC_RESET
build/guests/ends-execute-mmio: GUEST_DEFINES = -DEND=EXECUTE_MMIO
build/guests/ends-halt: GUEST_DEFINES = -DEND=HALT
build/guests/ends-spin: GUEST_DEFINES = -DEND=SPIN

# What a guest takes from the library besides.
guest_lib = $(patsubst %,tests/guests/lib/%.c,$(1))
GUEST_LIB_block := $(call guest_lib,virtio block)
GUEST_LIB_files := $(GUEST_LIB_block)
GUEST_LIB_latency := $(GUEST_LIB_block)
GUEST_LIB_stall := $(GUEST_LIB_block)
GUEST_LIB_registers := $(call guest_lib,virtio)
GUEST_LIB_ticks := $(call guest_lib,cpus)
GUEST_LIB_works := $(call guest_lib,virtio block net vsock)
GUEST_LIB_net := $(call guest_lib,virtio net)
GUEST_LIB_vsock := $(call guest_lib,virtio vsock)
BAD_GUESTS := $(filter bad%,$(GUESTS))
$(foreach guest,$(BAD_GUESTS),$(eval GUEST_LIB_$(guest) := $(call guest_lib,virtio block net vsock hostile cpus)))

# The source is the name up to its first dash.
.SECONDEXPANSION:
$(GUEST_BINARIES): build/guests/%: tests/guests/$$(firstword $$(subst -, ,$$*)).c $(GUEST_LIB) \
		$$(GUEST_LIB_$$(firstword $$(subst -, ,$$*))) \
		$(wildcard tests/guests/lib/*.h) tests/guests/lib/guest.ld tests/tests.mk
	@mkdir -p $(@D)
	$(say) GUEST $@
	$(Q)$(CC) $(GUEST_CFLAGS) $(GUEST_DEFINES) -o $@ $(filter %.c %.S,$^)

# Unit tests are one program of all suites. libcheck is not built for static-PIE, so what uses it is
# an ordinary executable.
UNIT_OBJECTS := $(call objects,$(wildcard tests/unit/*.c))
LIBS_UNDER_TEST = $(OBJ_guest) $(LIB_cli) $(LIB_host) $(LIB_tree) $(LIB_jailer) $(LIB_api-socket) $(LIB_json) $(LIB_vmm) $(LIB_mmds) $(LIB_virtio) $(LIB_base)
$(BUILD)/unit-tests: $(UNIT_OBJECTS) $(LIBS_UNDER_TEST)
$(BUILD)/control-tests: $(BUILD)/obj/tests/guests/test_control.o $(LIBS_UNDER_TEST)
$(BUILD)/print-routes: $(BUILD)/obj/tests/guests/print_routes.o $(LIBS_UNDER_TEST)
$(BUILD)/try-syscalls: $(BUILD)/obj/tests/guests/try_syscalls.o $(LIBS_UNDER_TEST)
$(BUILD)/unit-tests $(BUILD)/control-tests $(BUILD)/print-routes $(BUILD)/try-syscalls:
	$(say) LINK $@
	$(Q)$(CC) -o $@ $^ $(LDFLAGS_common) $(filter-out -static-pie%,$(LDFLAGS_$(VARIANT))) \
		-ljansson -lhttp_parser -levent_core -luring -lcap -lcheck -lsubunit -lrt -lm

# What is run in jails: static, whatever the variant.
JAIL_PROGRAMS := build/payload build/kill_at
$(JAIL_PROGRAMS): build/%: tests/jail/%.c
	@mkdir -p $(@D)
	$(say) CC $@
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE $(WARNINGS) -O1 -static -o $@ $<

# How a machine that Bochs emulates lets its commands' output out.
build/port: tests/testhost/port.c
	@mkdir -p $(@D)
	$(say) CC $@
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE $(WARNINGS) -O1 -static -o $@ $<

# Fuzzers compile the sources they cover once more, with clang's instrumentation.
FUZZERS := $(patsubst tests/fuzz/fuzz_%.c,build/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_LIB := $(filter-out tests/fuzz/fuzz_%,$(wildcard tests/fuzz/*.c))
CLIENTS := host/agent_client.c host/api_reader.c host/image_reference.c
UNPACKER := $(addprefix rootfs-tools/image/,inside.c layer.c manifest.c pack.c erofs.c ext4.c)
GUEST_SOURCES := $(GUEST_PARTS:%=guest/%.c)
build/fuzz/%: tests/fuzz/fuzz_%.c $(FUZZ_LIB) $(SRC_base) $(SRC_json) $(SRC_virtio) $(SRC_mmds) $(SRC_vmm) $(POLICIES:%=build/policies/%.c) $(SRC_api-socket) $(CLIENTS) $(GUEST_SOURCES) $(SRC_tree) $(UNPACKER) \
		$(wildcard */*.h virtio/*/*.h vmm/*/*.h rootfs-tools/*/*.h tests/fuzz/*.h) tests/unit/packet.h build/include/tests/.made
	@mkdir -p $(@D)
	$(say) FUZZER $@
	$(Q)clang -std=gnu17 -D_GNU_SOURCE -DMOTE_VERSION='"$(VERSION)"' -O1 -g -fsanitize=fuzzer,address,undefined \
		-fno-sanitize-recover=all -Ibuild/include/tests -o $@ $(filter %.c,$^) \
		-ljansson -lhttp_parser -levent_core -luring -larchive -lext2fs -lcom_err -pthread

BENCH_PROGRAMS := $(patsubst tests/bench/%.c,$(BUILD)/%,$(wildcard tests/bench/*_bench.c tests/bench/*_init.c))
$(BUILD)/api_bench $(BUILD)/snapshot_bench: $(BUILD)/obj/tests/bench/client.o
$(BENCH_PROGRAMS): $(BUILD)/%: $(BUILD)/obj/tests/bench/%.o $(LIB_base)
	$(say) LINK $@
	$(Q)$(CC) -o $@ $^ $(LDFLAGS_all)

# An image of Debian packages for the tests; its tag is what is looked at. The test host, where it is run,
# has no network to build it.
TEST_DATA := build/data
PYTHON_IMAGE := $(TEST_DATA)/mote/images/tags/python
$(PYTHON_IMAGE): rootfs-tools/image/build-image.sh | $(BUILD)/mote $(BUILD)/build-image.sh $(BUILD)/unpack-image $(BUILD)/pack-image
	$(say) IMAGE $@
	$(Q)XDG_DATA_HOME=$(CURDIR)/$(TEST_DATA) $(BUILD)/mote image build -t python --debian python3-minimal > /dev/null
	@touch -h $@

# What tests/linux/soak_servers.py, soak_containers.py and soak_metadata.py run, of Debian's packages.
SERVERS := nginx redis postgres node python docker cloud
PACKAGES_nginx := nginx-light
PACKAGES_redis := redis-server
PACKAGES_postgres := postgresql
PACKAGES_node := nodejs
PACKAGES_python := python3
PACKAGES_docker := docker.io,iptables,nftables,iproute2,ca-certificates,busybox-static
PACKAGES_cloud := cloud-init,python3-botocore
SERVER_IMAGES := $(SERVERS:%=$(TEST_DATA)/mote/images/tags/server-%)
$(SERVER_IMAGES): $(TEST_DATA)/mote/images/tags/server-%: rootfs-tools/image/build-image.sh | \
		$(BUILD)/mote $(BUILD)/build-image.sh $(BUILD)/unpack-image $(BUILD)/pack-image
	$(say) IMAGE $@
	$(Q)XDG_DATA_HOME=$(CURDIR)/$(TEST_DATA) $(BUILD)/mote image build -t server-$* --debian $(PACKAGES_$*) > /dev/null
	@touch -h $@

.PHONY: tests fuzzers benches
tests: $(BUILD)/unit-tests $(BUILD)/control-tests $(BUILD)/print-routes $(BUILD)/try-syscalls $(BUILD)/stream_bench $(JAIL_PROGRAMS) build/port $(GUEST_BINARIES)
fuzzers: $(FUZZERS)
benches: $(BENCH_PROGRAMS) $(GUEST_BINARIES)

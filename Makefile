# SPDX-License-Identifier: Apache-2.0
# `make help` lists what can be made.

VERSION := 0.1.0
PREFIX ?= /usr/local
DESTDIR ?=

# Which build: release, debug (for gdb), asan (address and undefined-behaviour sanitizers) or tsan.
VARIANT ?= release
BUILD := build/$(VARIANT)

CC ?= gcc
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla \
	-Wformat=2 -Wundef -Wcast-qual -Wimplicit-fallthrough -Wnull-dereference \
	-Wno-missing-field-initializers
ifdef WERROR
WARNINGS += -Werror
endif
CFLAGS_common := -std=gnu17 -D_GNU_SOURCE -DMOTE_VERSION='"$(VERSION)"' $(WARNINGS) -g -pthread \
	-fstack-protector-strong -fstack-clash-protection -fcf-protection -MMD -MP
CFLAGS_release := -O2 -D_FORTIFY_SOURCE=3 -fPIE
# Its log can only be read by people who know how, so that a program that did would not work.
CFLAGS_scrambled := $(CFLAGS_release) -DMOTE_LOG_SCRAMBLED
CFLAGS_debug := -Og -fno-omit-frame-pointer -fPIE
CFLAGS_asan := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
CFLAGS_tsan := -O1 -fsanitize=thread -fno-omit-frame-pointer
LDFLAGS_common := -pthread -Wl,-z,relro,-z,now,-z,noexecstack
# One binary that runs in an empty chroot. The sanitizers' runtimes cannot be linked statically.
# (--no-warnings: libevent could resolve names, which mote never asks it to. It silences the linker's
# errors, too: `linked` looks for them.)
LDFLAGS_release := -static-pie -Wl,--gc-sections,--no-warnings
LDFLAGS_scrambled := $(LDFLAGS_release)
LDFLAGS_debug := $(LDFLAGS_release)
linked = $(if $(findstring static,$(LDFLAGS_$(VARIANT))),@! nm $@ | grep ' U ' || \
	{ echo "$@: undefined symbols" >&2; rm -f $@; exit 1; })
LDFLAGS_asan := -fsanitize=address,undefined
LDFLAGS_tsan := -fsanitize=thread
# Variants that only look for warnings, and so never mix with the others' objects.
CFLAGS_lint-gcc := $(CFLAGS_release)
LDFLAGS_lint-gcc := $(LDFLAGS_release)
CFLAGS_lint-clang := $(CFLAGS_release) -Wno-gnu-variable-sized-type-not-at-end
LDFLAGS_lint-clang := $(LDFLAGS_release)
CFLAGS_all = $(CFLAGS_common) $(CFLAGS_$(VARIANT)) $(CFLAGS)
LDFLAGS_all = $(LDFLAGS_common) $(LDFLAGS_$(VARIANT)) $(LDFLAGS)

# A floor may include only itself and the floors named here: each folder is compiled with a private
# include root, build/include/FLOOR, that holds links to just these.
SEES_base := base
SEES_json := base json
SEES_tree := base tree
SEES_guest := base tree agent-protocol guest
SEES_virtio := base virtio
SEES_mmds := base virtio mmds
SEES_vmm := base virtio mmds vmm
SEES_api-socket := base json virtio mmds vmm api-socket
SEES_host := base json tree agent-protocol rootfs-tools host
SEES_cli := base json tree agent-protocol rootfs-tools host cli
SEES_jailer := base jailer
SEES_programs := base json tree agent-protocol virtio mmds vmm api-socket host cli jailer programs
SEES_tests := base json tree agent-protocol guest virtio mmds vmm api-socket host cli jailer rootfs-tools tests
FLOORS := base json tree guest virtio mmds vmm api-socket host cli jailer programs tests

SRC_base := $(wildcard base/*.c)
SRC_json := $(wildcard json/*.c)
SRC_tree := $(wildcard tree/*.c)
SRC_virtio := $(wildcard virtio/*/*.c)
SRC_mmds := $(wildcard mmds/*.c)
SRC_vmm := $(wildcard vmm/*.c vmm/*/*.c)
SRC_api-socket := $(wildcard api-socket/*.c)
SRC_host := $(wildcard host/*.c)
SRC_cli := $(wildcard cli/*.c)
SRC_jailer := $(wildcard jailer/*.c)

objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
LIB_base := $(BUILD)/libbase.a
LIB_json := $(BUILD)/libjson.a
LIB_tree := $(BUILD)/libtree.a
LIB_virtio := $(BUILD)/libvirtio.a
LIB_mmds := $(BUILD)/libmmds.a
LIB_vmm := $(BUILD)/libvmm.a
LIB_api-socket := $(BUILD)/libapi-socket.a
LIB_host := $(BUILD)/libhost.a
LIB_cli := $(BUILD)/libcli.a
LIB_jailer := $(BUILD)/libjailer.a
# Of system calls, in vmm/policies.
POLICIES := main vcpu block creator
# What of mote-init can be tested outside a guest.
GUEST_PARTS := bytes failure program rlimits stream users
OBJ_guest := $(GUEST_PARTS:%=$(BUILD)/obj/guest/%.o)

# `make V=1` shows the commands themselves.
Q := $(if $(V),,@)
say = @$(if $(V),:,printf '  %-6s %s\n')

.DEFAULT_GOAL := all
.PHONY: all help packages-build packages-test programs initrds kernel kernels demo test unit compile_commands lint asan \
	tsan fuzz mutate soak soak-tier bench as-docker install clean
all: programs initrds

help:
	@echo "make            build mote, mote-vmm, mote-init and the default root file system"
	@echo "make demo       install what is needed, build all, boot a microVM and run a command in it"
	@echo "make test       the three tiers of tests: unit, guests, linux (and the test host itself)"
	@echo "make lint       formatting, warnings as errors with gcc and clang, clang-tidy, shellcheck"
	@echo "make asan tsan  unit and guests tiers under the sanitizers"
	@echo "make fuzz       fuzz the parsers, SECONDS=60 each"
	@echo "make mutate     break the product in many ways, and see a test fail for each"
	@echo "make soak       the long tests"
	@echo "make bench      measure; BENCH=GROUP for one of boot start memory api block net vsock image jail tools snapshot;"
	@echo "                ROUNDS=1 is the least work, 5 the usual"
	@echo "make as-docker  ask podman what programs find, for tests/linux/test_as_docker.py"
	@echo "make policies   count the system calls that a running VM's threads may make"
	@echo "make kernel     build the guest kernel, or find it in the cache"
	@echo "make install    to PREFIX=$(PREFIX), under DESTDIR"
	@echo "make unit SUITE=queue   one suite of the unit tests, in seconds"
	@echo "make compile_commands   compile_commands.json, for editors and clang's tools"
	@echo "make VARIANT=debug      what gdb likes, in build/debug"
	@echo "make clean      remove build/; kernels stay in the cache"

programs: $(BUILD)/mote $(BUILD)/mote-vmm $(BUILD)/mote-jailer $(BUILD)/mote-init $(BUILD)/build-image.sh $(BUILD)/unpack-image $(BUILD)/pack-image
initrds: $(BUILD)/initrd.cpio $(BUILD)/bare.cpio

packages-build:
	@tools/install-packages.sh build
packages-test:
	@tools/install-packages.sh build test

kernel:
	@rootfs-tools/kernel/build.sh microvm > /dev/null
kernels: kernel
	@rootfs-tools/kernel/build.sh microvm-acpi > /dev/null
	@rootfs-tools/kernel/fetch-debian.sh > /dev/null

unit:
	@$(MAKE) --no-print-directory -j$(shell nproc) $(BUILD)/unit-tests
	@$(if $(SUITE),CK_RUN_SUITE=$(SUITE)) $(BUILD)/unit-tests

compile_commands:
	@$(MAKE) --no-print-directory --always-make --dry-run V=1 programs tests 2> /dev/null | \
		tools/compile-commands > compile_commands.json

# Packages come before anything is compiled, the kernel before anything runs.
demo:
	@$(MAKE) --no-print-directory packages-build
	@$(MAKE) --no-print-directory -j$(shell nproc) all
	@$(MAKE) --no-print-directory kernel
	@tools/demo.sh

test:
	@$(MAKE) --no-print-directory packages-test
	@$(MAKE) --no-print-directory -j$(shell nproc) all tests
	@$(MAKE) --no-print-directory kernels
	@$(MAKE) --no-print-directory $(BUILD)/initrd-debian-cloud.cpio
	@$(MAKE) --no-print-directory $(PYTHON_IMAGE)
	@tests/run-tests unit guests jail tools testhost linux

asan tsan:
	@$(MAKE) --no-print-directory packages-test
	@$(MAKE) --no-print-directory VARIANT=$@ -j$(shell nproc) programs tests
	@MOTE_VARIANT=$@ tests/run-tests unit guests $(if $(filter asan,$@),jail)

SECONDS ?= 60
fuzz:
	@$(MAKE) --no-print-directory packages-test
	@$(MAKE) --no-print-directory -j$(shell nproc) fuzzers
	@FUZZ_SECONDS=$(SECONDS) tests/run-tests fuzz

mutate:
	@$(MAKE) --no-print-directory packages-test
	@$(MAKE) --no-print-directory -j$(shell nproc) all tests
	@tests/mutate/run

# What CI has no time for; it does not repeat what CI runs on each commit, but for the tiers that
# depend most on time, and these beside the fuzzers, on a machine that is never idle.
soak:
	@$(MAKE) --no-print-directory packages-test
	@$(MAKE) --no-print-directory -j$(shell nproc) all tests
	@$(MAKE) --no-print-directory kernels $(BUILD)/initrd-debian-cloud.cpio $(PYTHON_IMAGE)
	@tests/steps --beside "make fuzz SECONDS=300" "make mutate" "tests/run-tests guests linux" \
		"make soak-tier"
soak-tier:
	@rootfs-tools/kernel/build.sh microvm-full > /dev/null
	@$(MAKE) --no-print-directory $(SERVER_IMAGES)
	@tests/run-tests soak

BENCH ?= all
ROUNDS ?= 5
bench:
	@$(MAKE) --no-print-directory packages-test
	@$(MAKE) --no-print-directory -j$(shell nproc) all benches
	@$(MAKE) --no-print-directory kernel
	@ROUNDS=$(ROUNDS) tests/bench/bench $(BENCH)

# In the test host, whatever containers are possible here.
as-docker:
	@tools/install-packages.sh build test as-docker
	@tests/testhost/run --timeout 900 -- /usr/bin/python3 tests/linux/as_docker_podman.py tests/linux/as_docker.json

lint:
	@tools/install-packages.sh build test
	@tools/lint.sh

install: all $(BUILD)/mote.1
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/mote $(DESTDIR)$(PREFIX)/share/man/man1 \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions
	install -m 644 $(BUILD)/mote.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m 644 tools/completion/mote $(DESTDIR)$(PREFIX)/share/bash-completion/completions/
	install -s $(BUILD)/mote $(DESTDIR)$(PREFIX)/bin/
	install -s $(BUILD)/mote-vmm $(BUILD)/mote-jailer $(BUILD)/mote-init $(DESTDIR)$(PREFIX)/lib/mote/
	install -s $(BUILD)/unpack-image $(BUILD)/pack-image $(DESTDIR)$(PREFIX)/lib/mote/
	install $(BUILD)/build-image.sh $(DESTDIR)$(PREFIX)/lib/mote/
	install -m 644 $(wildcard $(BUILD)/initrd*.cpio) $(DESTDIR)$(PREFIX)/lib/mote/

clean:
	rm -rf build

include tests/tests.mk

$(FLOORS:%=build/include/%/.made): build/include/%/.made: Makefile
	@mkdir -p $(@D)
	@rm -f $(@D)/*
	@for floor in $(SEES_$*); do ln -sfn ../../../$$floor $(@D)/$$floor; done
	@touch $@

define floor_rules
$(BUILD)/obj/$(1)/%.o: $(1)/%.c build/include/$(1)/.made
	@mkdir -p $$(@D)
	$$(say) CC $$<
	$$(Q)$(CC) $(CFLAGS_all) -Ibuild/include/$(1) -c -o $$@ $$<
endef
$(foreach floor,$(FLOORS),$(eval $(call floor_rules,$(floor))))

# The folders, too: a source that is gone must leave the archive.
define library_rules
$$(LIB_$(1)): $$(call objects,$$(SRC_$(1))) $$(sort $$(dir $$(SRC_$(1))))
	@rm -f $$@
	$$(say) AR $$@
	$$(Q)$(AR) qcs $$@ $$(filter %.o,$$^)
endef
$(foreach floor,base json tree virtio mmds vmm api-socket host cli jailer,$(eval $(call library_rules,$(floor))))

# Policies are compiled by a program of the machine that builds.
build/compile-policy: tools/compile-policy.c vmm/policies.h
	@mkdir -p $(@D)
	$(say) CC $@
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE $(WARNINGS) -O1 -I. -o $@ $< -lseccomp
build/policies/%.c: vmm/policies/%.policy build/compile-policy
	@mkdir -p $(@D)
	$(say) POLICY $@
	$(Q)build/compile-policy policy_$* $< > $@.new && mv $@.new $@
$(BUILD)/obj/policies/%.o: build/policies/%.c build/include/vmm/.made
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_all) -Ibuild/include/vmm -c -o $@ $<
$(LIB_vmm): $(POLICIES:%=$(BUILD)/obj/policies/%.o)
.SECONDARY: $(POLICIES:%=build/policies/%.c)

# How many system calls each role is left with.
.PHONY: policies
policies: build/compile-policy
	@for role in $(POLICIES); do \
		printf '%-6s %s\n' $$role $$(build/compile-policy --count vmm/policies/$$role.policy); \
	done

$(BUILD)/mote-vmm: $(BUILD)/obj/programs/mote-vmm.o $(BUILD)/obj/programs/vmm_options.o $(LIB_api-socket) $(LIB_json) $(LIB_vmm) $(LIB_mmds) $(LIB_virtio) $(LIB_base)
	$(say) LINK $@
	$(Q)$(CC) -o $@ $^ $(LDFLAGS_all) -ljansson -lhttp_parser -levent_core -luring
	$(linked)

$(BUILD)/mote: $(BUILD)/obj/programs/mote.o $(LIB_cli) $(LIB_host) $(LIB_json) $(LIB_tree) $(LIB_base)
	$(say) LINK $@
	$(Q)$(CC) -o $@ $^ $(LDFLAGS_all) -ljansson -lhttp_parser
	$(linked)

$(BUILD)/mote-jailer: $(BUILD)/obj/programs/mote-jailer.o $(LIB_jailer) $(LIB_base)
	$(say) LINK $@
	$(Q)$(CC) -o $@ $^ $(LDFLAGS_all) -lcap
	$(linked)

# PID 1 in the guest is always a release build.
INIT_SOURCES := $(wildcard guest/*.c tree/*.c) base/err.c base/fd.c
$(BUILD)/mote-init: Makefile $(INIT_SOURCES) $(wildcard guest/*.h tree/*.h agent-protocol/*.h base/*.h) build/include/guest/.made
	@mkdir -p $(@D)
	$(say) INIT $@
	$(Q)$(CC) $(filter-out -MMD -MP,$(CFLAGS_common)) -Os -D_FORTIFY_SOURCE=2 -ffunction-sections \
		-Ibuild/include/guest -o $@ $(INIT_SOURCES) -static -s -Wl,--gc-sections -ljansson

$(BUILD)/mote.1: tools/man-page.sh $(BUILD)/mote
	$(say) MAN $@
	$(Q)tools/man-page.sh $(BUILD)/mote | scdoc > $@.new && mv $@.new $@

$(BUILD)/build-image.sh: rootfs-tools/image/build-image.sh
	@mkdir -p $(@D)
	@install $< $@

# With their libraries' shared objects, as the script's other programs have them; always a release build.
IMAGE_SOURCES := base/err.c base/fd.c $(addprefix rootfs-tools/image/,inside.c layer.c)
$(BUILD)/unpack-image: $(IMAGE_SOURCES) $(addprefix rootfs-tools/image/,unpack-image.c manifest.c)
$(BUILD)/pack-image: $(IMAGE_SOURCES) $(addprefix rootfs-tools/image/,pack-image.c pack.c erofs.c ext4.c)
$(BUILD)/pack-image: LIBRARIES = -lext2fs -lcom_err
$(BUILD)/unpack-image $(BUILD)/pack-image: $(wildcard rootfs-tools/image/*.h) base/err.h base/fd.h build/include/cli/.made
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) $(filter-out -MMD -MP,$(CFLAGS_common)) -O2 -D_FORTIFY_SOURCE=3 -fPIE -Ibuild/include/cli -o $@ \
		$(filter %.c,$^) -pie $(LDFLAGS_common) -larchive -l:libjansson.a $(LIBRARIES)

$(BUILD)/initrd.cpio: $(BUILD)/mote-init rootfs-tools/image/build-initrd.sh $(wildcard /bin/busybox)
	$(say) INITRD $@
	$(Q)rootfs-tools/image/build-initrd.sh $< $@
$(BUILD)/bare.cpio: $(BUILD)/mote-init rootfs-tools/image/build-initrd.sh $(wildcard /bin/busybox)
	$(say) INITRD $@
	$(Q)rootfs-tools/image/build-initrd.sh $< $@ --bare
DEBIAN_CLOUD = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mote/kernels/debian-cloud/current
# Only who has the kernel needs its modules.
install: $(if $(wildcard $(DEBIAN_CLOUD)/kernel),$(BUILD)/initrd-debian-cloud.cpio)
$(BUILD)/initrd-debian-cloud.cpio: $(BUILD)/mote-init rootfs-tools/image/build-initrd.sh $(wildcard /bin/busybox) \
		$(wildcard $(DEBIAN_CLOUD)/kernel)
	$(say) INITRD $@
	$(Q)rootfs-tools/image/build-initrd.sh $< $@ --modules $(DEBIAN_CLOUD)

-include $(shell find build/*/obj -name '*.d' 2> /dev/null)

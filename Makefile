# SPDX-License-Identifier: Apache-2.0
# `make help` lists what can be made.

VERSION := 0.1.0
PREFIX ?= /usr/local
DESTDIR ?=

# Which build: release, asan (address and undefined-behaviour sanitizers) or tsan.
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
CFLAGS_asan := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
CFLAGS_tsan := -O1 -fsanitize=thread -fno-omit-frame-pointer
LDFLAGS_common := -pthread -Wl,-z,relro,-z,now,-z,noexecstack
# One binary that runs in an empty chroot. The sanitizers' runtimes cannot be linked statically.
# (--no-warnings: libevent could resolve names, which mote never asks it to.)
LDFLAGS_release := -static-pie -Wl,--gc-sections,--no-warnings
LDFLAGS_asan := -fsanitize=address,undefined
LDFLAGS_tsan := -fsanitize=thread
CFLAGS_all = $(CFLAGS_common) $(CFLAGS_$(VARIANT)) $(CFLAGS)
LDFLAGS_all = $(LDFLAGS_common) $(LDFLAGS_$(VARIANT)) $(LDFLAGS)

# A floor may include only itself and the floors named here: each folder is compiled with a private
# include root, build/include/FLOOR, that holds links to just these.
SEES_base := base
SEES_vmm := base vmm
SEES_api-socket := base vmm api-socket
SEES_cli := base cli rootfs-tools
SEES_programs := base vmm api-socket cli
SEES_tests := base vmm api-socket cli rootfs-tools tests
FLOORS := base vmm api-socket cli programs tests

SRC_base := $(wildcard base/*.c)
SRC_vmm := $(wildcard vmm/*.c vmm/*/*.c)
SRC_api-socket := $(wildcard api-socket/*.c)
SRC_cli := $(wildcard cli/*.c)

objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
LIB_base := $(BUILD)/libbase.a
LIB_vmm := $(BUILD)/libvmm.a
LIB_api-socket := $(BUILD)/libapi-socket.a
LIB_cli := $(BUILD)/libcli.a

# `make V=1` shows the commands themselves.
Q := $(if $(V),,@)
say = @$(if $(V),:,printf '  %-6s %s\n')

.DEFAULT_GOAL := all
.PHONY: all
all: $(BUILD)/mote $(BUILD)/mote-vmm $(BUILD)/mote-init

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

define library_rules
$$(LIB_$(1)): $$(call objects,$$(SRC_$(1)))
	@rm -f $$@
	$$(say) AR $$@
	$$(Q)$(AR) rcs $$@ $$^
endef
$(foreach floor,base vmm api-socket cli,$(eval $(call library_rules,$(floor))))

$(BUILD)/mote-vmm: $(BUILD)/obj/programs/mote-vmm.o $(LIB_api-socket) $(LIB_vmm) $(LIB_base)
	$(say) LINK $@
	$(Q)$(CC) -o $@ $^ $(LDFLAGS_all) -ljansson -levent_core

$(BUILD)/mote: $(BUILD)/obj/programs/mote.o $(LIB_cli) $(LIB_base)
	$(say) LINK $@
	$(Q)$(CC) -o $@ $^ $(LDFLAGS_all) -ljansson

# PID 1 in the guest shares nothing with the rest but its protocol, and is always a release build.
$(BUILD)/mote-init: rootfs-tools/init/mote-init.c $(wildcard rootfs-tools/init/*.h)
	@mkdir -p $(@D)
	$(say) INIT $@
	$(Q)$(CC) $(filter-out -MMD -MP,$(CFLAGS_common)) -Os -D_FORTIFY_SOURCE=2 -ffunction-sections \
		-Irootfs-tools/init -o $@ $< -static -s -Wl,--gc-sections -ljansson

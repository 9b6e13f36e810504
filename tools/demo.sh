#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The main job on real input: boots a Linux microVM, runs a command in it, shows what it printed and
# when each phase of the boot was reached. Where this machine's KVM cannot run Linux, the same is
# done in the test host, an emulated machine whose KVM can.
set -euo pipefail

mote=build/release/mote
kernel=$("$mote" kernel path)
# shellcheck disable=SC2016 # the guest's shell expands it
command='echo "Hello from $(uname -sr), up since $(cut -d" " -f1 /proc/uptime) s, $(nproc) processor, $(free -m | awk "/Mem/{print \$2}") MiB."; grep -m1 "model name" /proc/cpuinfo'

demo() {
	# shellcheck disable=SC2016
	echo '$ mote run --timing -- sh -c '"'$command'"
	"$mote" run --timing -- sh -c "$command"
}

if [ "${1-}" = --inside ]; then
	# Files read for the first time come from outside, at a speed that virtual time cannot tell.
	cat "$mote" build/release/mote-vmm build/release/initrd.cpio "$kernel" > /dev/null
	demo 2>&1
	exit
fi

if "$mote" doctor > build/doctor.txt; then
	echo "This machine's KVM: $(grep '^ok.*KVM uses' build/doctor.txt | sed 's/^ok *//')"
	demo
else
	echo "This machine cannot run Linux guests itself:"
	grep '^BAD' build/doctor.txt
	echo "So the demo runs in the test host: QEMU emulates a machine with AMD SVM, and mote runs on"
	echo "its kvm_amd. Times are virtual: one instruction is one nanosecond. It takes about 10 s."
	echo
	rootfs-tools/kernel/fetch-debian.sh > /dev/null
	tests/testhost/run --virtual-time --timeout 300 -- tools/demo.sh --inside
fi

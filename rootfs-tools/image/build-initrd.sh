#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Writes the default root file system, an initramfs of mote-init and Debian's static busybox:
#   build-initrd.sh MOTE_INIT OUTPUT [--bare | --modules DIR]
# The same input gives the same bytes. With --bare it holds mote-init alone; with --modules also
# what mote's devices and images need of the modules in DIR/lib/modules/RELEASE, for a kernel that
# does not have them built in.
set -euo pipefail

init=$1 output=$2 kind=${3-} modules=${4-}
busybox=/bin/busybox
wanted="virtio_mmio virtio_blk virtio_net vmw_vsock_virtio_transport overlay erofs ext4"

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
umask 022
mkdir -p "$stage"/{bin,dev,etc,proc,root,run,sys,tmp}
chmod 755 "$stage"
cp "$init" "$stage/init"
if [ "$kind" != --bare ]; then
	if [ ! -x "$busybox" ]; then
		echo "build-initrd.sh: $busybox is missing: install the Debian package busybox-static" >&2
		exit 1
	fi
	cp "$busybox" "$stage/bin/busybox"
	mkdir -p "$stage"/{sbin,usr/bin,usr/sbin}
	"$busybox" --list-full | while read -r applet; do
		[ "$applet" = bin/busybox ] || ln -sf /bin/busybox "$stage/$applet"
	done
	printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n' \
		> "$stage/etc/passwd"
	printf 'root:x:0:\nnogroup:x:65534:\n' > "$stage/etc/group"
fi
if [ "$kind" = --modules ]; then
	release=$(ls "$modules/lib/modules")
	# mote-init loads what this list names, in its order.
	for module in $wanted; do
		/sbin/modprobe --dirname "$modules" --set-version "$release" --show-depends "$module"
	done | sed -n 's/^insmod \([^ ]*\) *$/\1/p' | awk '!seen[$0]++' | while read -r file; do
		mkdir -p "$stage/lib/modules"
		cp "$file" "$stage/lib/modules/"
		echo "/lib/modules/${file##*/}" >> "$stage/lib/modules/load"
	done
fi
find "$stage" -exec touch -h -d @0 {} +
(cd "$stage" && find . | LC_ALL=C sort |
	cpio --quiet --create --format=newc --owner=0:0 --reproducible) > "$output.new"
mv "$output.new" "$output"

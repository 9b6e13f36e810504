#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that a task needs and that are missing, saying which:
#   install-packages.sh build|test|as-docker...
set -euo pipefail

declare -A sets=(
	[build]="gcc make libc6-dev binutils libevent-dev libhttp-parser-dev libjansson-dev liburing-dev libseccomp-dev libcap-dev
		busybox-static
		cpio
		erofs-utils libarchive-dev libext2fs-dev bubblewrap fuse2fs scdoc
		linux-source-6.12 flex bison bc libelf-dev libssl-dev xz-utils
		qemu-system-x86 qemu-system-common kmod python3"
	[test]="check acpica-tools clang libclang-rt-14-dev clang-format clang-tidy shellcheck
		python3-pytest python3-yaml python3-jsonschema curl procps iproute2 e2fsprogs fio iperf3 nftables passt
		libarchive-tools skopeo umoci docker-registry buildah mmdebstrap uidmap man-db
		bochs bochs-term bochsbios vgabios isolinux syslinux-common genisoimage"
	[as-docker]="podman crun"
)

missing=()
for set in "$@"; do
	if [ -z "${sets[$set]-}" ]; then
		echo "install-packages.sh: $set: neither build nor test nor as-docker" >&2
		exit 2
	fi
	for package in ${sets[$set]}; do
		state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null || true)
		[ "$state" = installed ] || missing+=("$package")
	done
done
[ ${#missing[@]} -gt 0 ] || exit 0

sudo=()
if [ "$(id -u)" != 0 ]; then
	if ! command -v sudo > /dev/null; then
		echo "Missing packages: ${missing[*]}. Neither root nor sudo is there to install them." >&2
		exit 1
	fi
	sudo=(sudo)
fi
echo "Installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -q > /dev/null
"${sudo[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}" > /dev/null

#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Makes a root image, for `mote image build`:
#   build-image.sh erofs|ext4 KIND SOURCE SCRATCH MAX
# KIND is dir, tar, oci (any of skopeo's transports) or debian (SOURCE: packages, with commas). In
# SCRATCH, an empty directory, it leaves `image`, the same bytes for the same input, for oci `config`,
# the image's configuration, and `digest`, SHA-256 of config and image. MAX is how many KiB of files the image may have. What it is
# doing it says in lines on descriptor 3.
#   build-image.sh --remove SCRATCH
# removes the directory, whoever owns what is in it.
#
# The image's files belong to whom the source says. So the unpacking is done by root, or by an
# ordinary user in a user namespace with the ids of /etc/subuid.
set -euo pipefail
trap 'exit 130' INT
trap 'exit 143' TERM

# Nobody looks for an image by its UUID, and the same input gives the same bytes.
uuid=6d6f7465-0000-4000-8000-000000000000

say() { echo "$*" >&3; }
die() {
	echo "$*" >&2
	exit 1
}
need() { # PROGRAM PACKAGE
	command -v "$1" > /dev/null || die "$1 is missing: install the Debian package $2"
}

# Runs this script again where it may be root. Whatever it starts ends with it.
as_root() {
	local user=()
	if [ "$(id -u)" != 0 ]; then
		need newuidmap uidmap
		grep -qE "^($(id -un)|$(id -u)):" /etc/subuid ||
			die "$(id -un) has no ids in /etc/subuid for the files of other users (usermod --add-subuids)"
		user=(--user --map-auto --map-root-user)
	fi
	# Once more at the death of this shell: `--kill-child` is about unshare's own.
	setpriv --pdeathsig KILL unshare "${user[@]}" --mount --pid --fork --kill-child --mount-proc -- "$0" "$@"
}

# All files together may be so large.
check_size() {
	local used
	# Files that the unpacker removes meanwhile are no failure.
	used=$(du -s -k --apparent-size "$root" 2> /dev/null | cut -f 1) || true
	[ "${used:-0}" -le "$max" ] ||
		die "its files are $((used / 1024)) MiB, more than the $((max / 1024)) of --max-size"
}

# Runs what unpacks, and ends with a sentence when that has written too much: neither a file that is
# nearly all hole nor a bomb of a tarball fills the disk. This shell is the PID 1 of its namespace, so the
# unpacker ends with it.
bounded() { # COMMAND [ARGUMENT]...
	local worker timer first status
	(
		trap '' XFSZ # so that it is an error of the write
		ulimit -f "$((max + 65536))"
		"$@"
	) &
	worker=$!
	while true; do
		sleep 0.2 &
		timer=$!
		status=0
		wait -n -p first "$worker" "$timer" || status=$?
		[ "$first" != "$worker" ] || return "$status"
		check_size
	done
}

unpack_tar() {
	need bsdtar libarchive-tools
	# It refuses names with "..", what lies behind a symbolic link, and links to the outside; the
	# first such name ends the build.
	bsdtar -x -p --numeric-owner -f "$1" -C "$root" 2> "$scratch/bsdtar.log" ||
		die "$(grep -m 1 -v '^bsdtar: Error exit' "$scratch/bsdtar.log" | sed 's/^bsdtar: //')"
}

# The one manifest's configuration.
unpack_oci() {
	need skopeo skopeo
	need umoci umoci
	skopeo --insecure-policy copy --quiet "$1" "oci:$scratch/layout:image"
	say "unpacking its layers"
	umoci --log=error raw unpack --image "$scratch/layout:image" "$root"
	skopeo inspect --config --raw "oci:$scratch/layout:image" > "$scratch/config"
}

# Files that the installation made are as old as its newest package, which is what makes the next
# installation of the same packages the same.
settle_debian() {
	local newest file
	newest=$(find "$root/var/lib/dpkg/info" -name '*.md5sums' -printf '%T@\n' | sort -n | tail -n 1)
	newest=${newest%.*}
	for file in "$root"/etc/shadow "$root"/etc/shadow-; do
		[ ! -e "$file" ] || sed -i -E "s/^([^:]*:[^:]*):[0-9]+:/\1:$((newest / 86400)):/" "$file"
	done
	find "$root" -newermt "@$newest" -exec touch -h -d "@$newest" {} +
}

install_debian() {
	local sources=() file suite=bookworm
	need mmdebstrap mmdebstrap
	# The host's own mirrors, where it is a Debian of that suite.
	if grep -qs "^VERSION_CODENAME=$suite$" /etc/os-release; then
		for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources}; do
			[ ! -s "$file" ] || sources+=("$file")
		done
	fi
	setpriv --pdeathsig TERM mmdebstrap --quiet --mode=auto --variant=essential --include="$1" \
		--aptopt='APT::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
		--skip=output/dev "$suite" "$scratch/debian.tar" "${sources[@]}" > "$scratch/mmdebstrap.log" 2>&1 ||
		die "mmdebstrap: $(grep -E '^(E:|error)' "$scratch/mmdebstrap.log" | head -n 1 | sed 's/^E: //')"
}

make_erofs() {
	local newest long
	need mkfs.erofs erofs-utils
	# One byte more than erofs-utils 1.5 takes; its own message names no file.
	long=$(LC_ALL=C find "$1" -regextype posix-extended -regex '.*/[^/]{255}' -printf '%P' -quit)
	[ -z "$long" ] || die "$long: the name is too long for erofs (try --format ext4)"
	# The time that the file system was made, and no file is younger.
	newest=$(find "$1" -printf '%T@\n' | sort -n | tail -n 1)
	SOURCE_DATE_EPOCH=${newest%.*} mkfs.erofs --quiet --preserve-mtime -U "$uuid" "$scratch/image" "$1" > "$scratch/mkfs.log" 2>&1 ||
		die "mkfs.erofs: $(head -n 1 "$scratch/mkfs.log")"
}

# With as much room again as its files need, and at least 64 MiB, as holes.
make_ext4() {
	local kib inodes inode
	need mke2fs e2fsprogs
	kib=$(du -s -k --apparent-size "$1" | cut -f 1)
	inodes=$(find "$1" -printf x | wc -c)
	truncate -s "$((2 * kib + 65536 + 8 * inodes))K" "$scratch/image"
	E2FSPROGS_FAKE_TIME=1 mke2fs -q -t ext4 -m 0 -I 256 -N "$((2 * inodes + 4096))" -U "$uuid" \
		-E "hash_seed=$uuid,root_owner=0:0,lazy_itable_init=0" -d "$1" "$scratch/image"
	# When the source's files were read, and when their inodes were changed.
	for inode in 2 $(seq 11 $((inodes + 10))); do
		printf 'sif <%d> %s @0\n' "$inode" atime "$inode" ctime
	done | E2FSPROGS_FAKE_TIME=1 debugfs -w -f - "$scratch/image" > /dev/null 2> "$scratch/debugfs.log"
}

if [ "${1-}" = --remove ]; then
	rm -rf -- "$2" 2> /dev/null && exit
	# Files of other users are left.
	as_root --remove-inside "$2"
	exec rmdir "$2"
elif [ "${1-}" = --remove-inside ]; then
	exec find "$2" -mindepth 1 -delete
elif [ "${1-}" != --inside ]; then
	scratch=$4
	if [ "$2" = debian ]; then
		say "installing $3"
		install_debian "$3"
	fi
	exec 4>&3
	as_root --inside "$@"
	exit
fi

shift
format=$1 kind=$2 source=$3 scratch=$4 max=$5 root=$4/root
umask 022
began=@$(($(date +%s) - 1)) # file systems' clocks tick slowly
mkdir "$root"
case $kind in
dir) root=$source ;;
tar)
	say "unpacking $source"
	bounded unpack_tar "$source"
	;;
oci)
	say "reading $source"
	bounded unpack_oci "$source"
	;;
debian)
	say "unpacking the installation"
	bounded unpack_tar "$scratch/debian.tar"
	settle_debian
	;;
esac
# Directories that a source only implies have just been made.
[ "$kind" = dir ] || find "$root" -type d -newermt "$began" -exec touch -d @0 {} +
check_size
say "writing the $format image"
"make_$format" "$root"
[ -e "$scratch/config" ] || : > "$scratch/config"
cat "$scratch/config" "$scratch/image" | sha256sum | cut -d ' ' -f 1 > "$scratch/digest"

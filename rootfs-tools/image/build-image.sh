#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Makes a root image, for `mote image build`:
#   build-image.sh erofs|ext4 KIND SOURCE SCRATCH MAX
# KIND is dir, tar, debian (SOURCE: packages, with commas), pull (SOURCE: a reference), or one of skopeo's
# transports oci, oci-archive and docker-archive (SOURCE: what follows the path, which is empty or begins with a
# colon); a tarball that is such an archive is taken for it, too. The source itself is
# standard input, a directory or a file that was opened once: no path to it is followed again. In SCRATCH, an
# empty directory, it leaves `image`, the same bytes for the same input, `config`, an OCI image's
# configuration, and `digest`, SHA-256 of config and image. MAX is how many KiB of files the image may have.
# With the same arguments it does other work on images and archives, of which KIND tells:
#   save   FORMAT and standard input are an image's, SCRATCH has its configuration as `config`: leaves the archive
#          that `docker load` takes as `image`; SOURCE is the image's name there
#   push   the same, and sends it to a registry; SOURCE is the reference; leaves the manifest's digest as `digest`
#   names  standard input is such an archive: leaves a line for each image in it, its names, as `image`; and, if it
#          was no file, the archive as `archive`
# What it is doing it says in lines on descriptor 3.
#   build-image.sh --remove SCRATCH
# removes the directory.
#
# The image's files belong to whom the source says. So the unpacking is done by root, or by an ordinary user
# in a user namespace with the ids of /etc/subuid. It is confined, by three steps of this script:
#   --inside    has namespaces of its own (no network), and mounts the space for what is unpacked: an ext4 file
#               system of bounded size in a file without a name, by a loop device or, where there is none for
#               us, by fuse2fs. It bounds attributes and temporary files too, keeps them all, and is gone with
#               the last process. (A tmpfs takes memory instead of disk, and on Linux 6.1 neither takes user
#               attributes nor counts the others.)
#   --confined  sees by bubblewrap only the programs and the source, both read-only, that space, and the result's
#               two files; and has no capability but those over owners and modes of what is in that space.
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
	setpriv --pdeathsig KILL unshare "${user[@]}" --mount --net --ipc --uts --pid --fork --kill-child --mount-proc -- "$0" "$@"
}

# The space for $1 KiB of files, at $2, twice: an OCI image is there packed as well.
mount_space() {
	need mke2fs e2fsprogs
	mkdir "$2"
	truncate -s "$((2 * $1 + 65536))K" "$2.ext4"
	mke2fs -q -t ext4 -O ^has_journal -m 0 -I 256 -b 4096 -i 4096 -E lazy_itable_init=1,nodiscard "$2.ext4"
	if ! mount -o loop,nosuid,nodev,noexec,noinit_itable "$2.ext4" "$2" 2> /dev/null; then
		need fuse2fs fuse2fs
		# Hard links have one inode, and what one of them changes the others show at once.
		fuse2fs -o fakeroot,allow_other,use_ino,attr_timeout=0,entry_timeout=0 "$2.ext4" "$2" 3>&- > /dev/null ||
			die "fuse2fs: $2 is not mounted"
	fi
	rm "$2.ext4"
	mkdir "$2/root" "$2/tmp"
}

# Runs --confined with the arguments; the source is standard input.
confine() { # SPACE RESULTS ARGUMENT...
	local space=$1 results=$2 own folder fd see=()
	shift 2
	own=$(dirname "$(realpath "$0")")
	need bwrap bubblewrap
	[ ! -d "$space" ] || see+=(--bind "$space" /space --bind "$space/tmp" /tmp --bind "$space/tmp" /var/tmp)
	# Where the programs are, if not all in /usr.
	while read -r -d : folder; do
		[[ $folder != /* || ! -d $folder || $(realpath "$folder") == /usr/* ]] || see+=(--ro-bind "$folder" "$folder")
	done <<< "$PATH:"
	for folder in bin sbin lib lib32 lib64; do
		[ ! -L "/$folder" ] || see+=(--symlink "usr/$folder" "/$folder")
	done
	# What we were given, like the lock of the scratch, would lead outside.
	for fd in /proc/self/fd/*; do
		fd=${fd##*/}
		[ "$fd" -le 3 ] || [ "$fd" = 255 ] || exec {fd}>&-
	done
	# For root, bubblewrap neither bounds capabilities nor covers /proc/sys.
	bwrap --die-with-parent --new-session --unshare-pid --unshare-cgroup-try --clearenv \
		--setenv PATH "$PATH" --setenv HOME /space/tmp \
		--ro-bind /usr /usr --ro-bind-try /etc/ld.so.cache /etc/ld.so.cache \
		--ro-bind-try /etc/mke2fs.conf /etc/mke2fs.conf "${see[@]}" --proc /proc --dev /dev \
		--ro-bind "$own/build-image.sh" /build-image.sh --ro-bind "$own/unpack-image" /unpack-image \
		--ro-bind "$own/pack-image" /pack-image \
		--ro-bind-fd 5 /source --bind "$results/image" /image --bind "$results/config" /config \
		--remount-ro /proc --remount-ro /dev --remount-ro / --chdir / -- \
		setpriv --bounding-set -all,+chown,+dac_override,+fowner,+fsetid,+mknod,+setfcap --inh-caps -all \
		/build-image.sh --confined "$@" 5<&0 < /dev/null
}

is_full() {
	local blocks inodes
	read -r blocks inodes < <(stat -f -c '%a %d' /space)
	[ "$blocks" -lt 16 ] || [ "$inodes" -lt 16 ]
}

too_large() {
	die "its files are more than the $((max / 1024)) MiB of --max-size"
}

# All files together may be so large, holes included.
check_size() {
	[ "$(du -s -k --apparent-size "$1" | cut -f 1)" -le "$max" ] || too_large
}

# Runs what says something only when it fails, which is then explained. It says no more than a page, and no
# file of its is nearly all hole.
quietly() { # NAME COMMAND [ARGUMENT]...
	local name=$1 said status=0
	shift
	said=$(
		trap '' XFSZ # so that it is an error of the write
		ulimit -f "$((max + 65536))"
		"$@" 2>&1 > /dev/null | head -c 4096
	) || status=$?
	if [ "$status" != 0 ]; then
		! is_full || too_large
		[ "$status" != $((128 + $(kill -l XCPU))) ] || die "${name:+$name: }it takes more than an hour of the processor"
		case $said in
		*'No space left on device'* | *'no space left on device'* | *[Ff]'ile too large'* | *SIGXFSZ*) too_large ;;
		*'dial tcp'*) die "it is not whole: what it refers to on a network is not fetched" ;;
		esac
		said=$(of_skopeo <<< "${said%%$'\n'*}")
		die "${name:+$name: }${said:-it ended without a word}"
	fi
}

# From standard input, or what the arguments name, to /space/root.
unpack() {
	cd /space/root
	quietly "" /unpack-image "$@"
	cd /
}

# The one manifest, its configuration and layers; skopeo compares digests.
unpack_oci() {
	local archive=/source
	need skopeo skopeo
	# Of those that are compressed skopeo 1.9 does not read all.
	if [[ $(/unpack-image --kind < /source 2> /dev/null) == *compressed ]]; then
		archive=/space/archive
		quietly "" /unpack-image --plain "$archive" < /source
	fi
	quietly skopeo skopeo --insecure-policy copy --quiet "$1:$archive$2" dir:/space/layout
	rm -f /space/archive
	unpack /space/layout /config
}

# Which of the kinds with one name it is. What `docker save` and `podman save` write is known by its files,
# and which of the two, where it is told wrong.
settle_kind() {
	local found
	[[ $kind == tar || $kind == *-archive ]] || return 0
	found=$(/unpack-image --kind < /source 2> /dev/null) || return 0
	case " $found " in
	*" $kind "*) ;;
	*" tar "*)
		die "it is the tarball of a root file system, not of an image (without \"$kind:\" before its name it is taken)"
		;;
	*) kind=${found%% *} ;;
	esac
}

# Files that the installation made are as old as its newest package, which is what makes the next
# installation of the same packages the same.
settle_debian() {
	local root=/space/root newest file
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

# What skopeo says, without its time and level.
of_skopeo() {
	sed -E 's/^time="[^"]*" level=[a-z]+ msg="(.*)"$/\1/; s/\\"/"/g'
}

# How skopeo copies from or to a registry. Credentials are those of the user's containers (REGISTRY_AUTH_FILE,
# $XDG_RUNTIME_DIR/containers/auth.json, ~/.docker/config.json), as is the policy, if any. As docker has it, a
# registry on this machine may be without TLS.
copy_options() { # src|dest REFERENCE
	need skopeo skopeo
	options=()
	[ -e "${HOME-}/.config/containers/policy.json" ] || [ -e /etc/containers/policy.json ] ||
		options+=(--insecure-policy)
	options+=(copy)
	[[ ! $2 =~ ^(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?/ ]] || options+=("--$1-tls-verify=false")
}

# The archive in $scratch/image to a registry.
send() { # REFERENCE
	local options
	copy_options dest "$1"
	say "sending $1"
	# A path with a colon in it would not be one to skopeo.
	cd "$scratch"
	setpriv --pdeathsig TERM skopeo "${options[@]}" --quiet --digestfile digest docker-archive:image "docker://$1" \
		> skopeo.log 2>&1 < /dev/null || die "$(tail -n 1 skopeo.log | of_skopeo)"
}

# The image of a registry, for this machine, to $scratch/pulled.
fetch() { # REFERENCE
	local child size options
	copy_options src "$1"
	say "asking for $1"
	mkdir "$scratch/pulled"
	(
		ulimit -f "$((2 * max))"
		exec setpriv --pdeathsig TERM skopeo "${options[@]}" --quiet --digestfile "$scratch/pulled.digest" "docker://$1" \
			"dir:$scratch/pulled" 3>&-
	) > "$scratch/skopeo.log" 2>&1 < /dev/null &
	child=$!
	while kill -0 "$child" 2> /dev/null; do
		# What skopeo renames meanwhile is counted the next time.
		size=$(du -s -k "$scratch/pulled" 2> /dev/null | cut -f 1) || true
		say "fetching $1: $((size / 1024)) MiB"
		if [ "$size" -gt "$((2 * max))" ]; then
			kill "$child" 2> /dev/null
			too_large
		fi
		sleep 0.2
	done
	if ! wait "$child"; then
		! grep -q 'file too large' "$scratch/skopeo.log" || too_large
		die "$(tail -n 1 "$scratch/skopeo.log" | of_skopeo)"
	fi
}

# Keeps what standard input gives.
spool() {
	say "reading"
	(
		trap '' XFSZ
		ulimit -f "$((2 * max + 65536))"
		cat > "$scratch/archive" 2> "$scratch/cat.log"
	) || {
		! grep -q 'File too large' "$scratch/cat.log" || too_large
		die "$(tail -n 1 "$scratch/cat.log")"
	}
	exec < "$scratch/archive"
}

# From the directory on standard input. Its images and its cache are those of the user's buildah; what it builds
# here has a name of its own there for so long, as it may be an image that was there already.
build_dockerfile() { # DOCKERFILE
	local context
	need buildah buildah
	context=$(readlink /proc/self/fd/0)
	built=localhost/mote-build-$(sha256sum <<< "$scratch" | cut -c 1-16)
	trap 'buildah rmi "$built" > /dev/null 2>&1' EXIT
	say "buildah: $1"
	setpriv --pdeathsig TERM buildah build --quiet --tag "$built" --file "$1" "$context" \
		> "$scratch/buildah.log" 2>&1 < /dev/null ||
		die "buildah: $(grep -vE '^(STEP|exit status)' "$scratch/buildah.log" | tail -n 1 | of_skopeo)"
	mkdir "$scratch/pulled"
	setpriv --pdeathsig TERM buildah push --quiet "$built" "dir:$scratch/pulled" > "$scratch/buildah.log" 2>&1 ||
		die "buildah: $(tail -n 1 "$scratch/buildah.log" | of_skopeo)"
}

make_erofs() {
	local long said
	need mkfs.erofs erofs-utils
	# One byte more than erofs-utils 1.5 takes; its own message names no file.
	long=$(LC_ALL=C find "$1" -regextype posix-extended -regex '.*/[^/]{255}' -printf '%P' -quit)
	[ -z "$long" ] || die "$long: the name is too long for erofs (try --format ext4)"
	# mkfs.erofs gives the time that the file system is made to all files with a later one, and takes times for
	# unsigned numbers. As one, this time, two seconds before 1970, is later than all but the second after it.
	said=$(SOURCE_DATE_EPOCH=18446744073709551614 mkfs.erofs --quiet --preserve-mtime -U "$uuid" /image "$1" 2>&1 | head -c 4096) ||
		die "mkfs.erofs: ${said%%$'\n'*}"
}

# With as much room again as its files need, and at least 64 MiB, as holes. In smaller blocks long links have no
# room.
make_ext4() {
	local kib inodes inode mode uid gid mtime
	need mke2fs e2fsprogs
	kib=$(du -s -k --apparent-size "$1" | cut -f 1)
	inodes=$(find "$1" -printf x | wc -c)
	truncate -s "$((2 * kib + 65536 + 8 * inodes))K" /image
	E2FSPROGS_FAKE_TIME=1 mke2fs -q -t ext4 -b 4096 -m 0 -I 256 -N "$((2 * inodes + 4096))" -U "$uuid" \
		-E "hash_seed=$uuid,root_owner=0:0,lazy_itable_init=0" -d "$1" /image
	# mke2fs leaves the root directory its own. Then, when the source's files were read, and when their inodes were
	# changed.
	read -r mode uid gid mtime < <(stat -c '%#f %u %g %Y' "$1")
	printf 'sif <2> %s %s\n' mode "0$(printf %o "$mode")" uid "$uid" gid "$gid" mtime "@$mtime" |
		E2FSPROGS_FAKE_TIME=1 debugfs -w -f - /image > /dev/null 2>&1
	for inode in 2 $(seq 11 $((inodes + 10))); do
		printf 'sif <%d> %s @0\n' "$inode" atime "$inode" ctime
	done | E2FSPROGS_FAKE_TIME=1 debugfs -w -f - /image > /dev/null 2>&1
}

# The image in /source, whose configuration is in /config, as the archive /image, with one layer.
pack() { # NAME
	local layer config tags=null
	mkdir /space/archive
	cd /space/archive
	say "packing"
	# Files of an ext4 image may have their blocks in common, of any number of bytes.
	quietly "" prlimit --cpu=3600:3610 /pack-image "$format" /source layer "$max"
	layer=$(sha256sum < layer | cut -d ' ' -f 1)
	mv layer "$layer.tar"
	quietly "" /pack-image --config /config "$layer" config
	config=$(sha256sum < config | cut -d ' ' -f 1)
	mv config "$config.json"
	[ -z "$1" ] || tags="[\"$1\"]"
	printf '[{"Config":"%s.json","RepoTags":%s,"Layers":["%s.tar"]}]\n' "$config" "$tags" "$layer" > manifest.json
	say "writing the archive"
	quietly "" tar --format=gnu --owner=0 --group=0 --numeric-owner --mode=0644 --mtime=@0 -cf /image \
		manifest.json "$config.json" "$layer.tar"
	cd /
}

# From /source to /image and /config.
confined() {
	local root=/space/root
	umask 022
	case $kind in
	save) pack "$source" ;;
	push) pack "" ;;
	names) quietly "" /unpack-image --names /image < /source ;;
	esac
	[[ $kind != save && $kind != push && $kind != names ]] || return 0
	settle_kind
	case $kind in
	dir) root=/source ;;
	tar)
		say "unpacking"
		unpack < /source
		;;
	debian)
		say "unpacking the installation"
		unpack < /source
		settle_debian
		;;
	pull | dockerfile) unpack /source /config ;;
	*)
		say "reading"
		unpack_oci "$kind" "$source"
		;;
	esac
	# A disk that is full shows here, if it was the host's.
	[ "$kind" = dir ] || sync -f "$root" || die "what was unpacked does not fit the disk"
	check_size "$root"
	say "writing the $format image"
	"make_$format" "$root"
}

if [ "${1-}" = --remove ]; then
	exec rm -rf -- "$2"
fi
step=build
if [[ ${1-} == --* ]]; then
	step=${1#--}
	shift
fi
format=$1 kind=$2 source=$3 scratch=$4 max=$5
case $step in
build)
	if [ "$kind" = debian ]; then
		say "installing $source"
		install_debian "$source"
		exec < "$scratch/debian.tar"
	fi
	case $kind in
	pull) fetch "$source" ;;&
	dockerfile) build_dockerfile "$source" ;;&
	pull | dockerfile) exec < "$scratch/pulled" ;;
	names) [ -f /proc/self/fd/0 ] || spool ;;
	esac
	as_root --inside "$@"
	case $kind in
	push) send "$source" ;;
	save | names) ;;
	*) cat "$scratch/config" "$scratch/image" | sha256sum | cut -d ' ' -f 1 > "$scratch/digest" ;;
	esac
	;;
inside)
	[ "$kind" = dir ] || mount_space "$max" "$scratch/space"
	: > "$scratch/image"
	: >> "$scratch/config"
	ulimit -f "$((6 * max + 262144))"
	confine "$scratch/space" "$scratch" "$@"
	# Whatever it made of them.
	chown 0:0 "$scratch/image" "$scratch/config"
	chmod 600 "$scratch/image" "$scratch/config"
	;;
confined) confined ;;
esac

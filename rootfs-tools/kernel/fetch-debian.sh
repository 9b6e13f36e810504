#!/bin/bash
# Fetches Debian's stock cloud kernel into the cache, without installing it:
#   kernels/debian-cloud/<package version>/{kernel,config,lib/modules/<release>/}
#   kernels/debian-cloud/current -> <package version>
# Prints the path of the kernel on stdout and progress on stderr. Does nothing when `current` is
# whole; to get a newer kernel, remove that link.
set -euo pipefail

metapackage=linux-image-cloud-amd64
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mote/kernels/debian-cloud

die() {
	echo "fetch-debian.sh: $1" >&2
	exit 1
}

# Directories appear under their final name only when complete, so a few files stand for all.
is_whole() {
	local dep=("$1"/lib/modules/*/modules.dep.bin)
	[[ -s $1/kernel && -s $1/config && -s ${dep[0]} ]]
}

print_current() {
	local target
	target=$(readlink "$cache/current")
	echo "$cache/$target/kernel"
}

as_root() {
	if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

# Prints "<package> <version>" of the kernel that the metapackage stands for, or nothing.
newest_kernel() {
	apt-cache show --no-all-versions "$metapackage" 2>/dev/null |
		sed -nE 's/^Depends:.*(linux-image-[^ ,]+-cloud-amd64) \(= ([^)]+)\).*/\1 \2/p' ||
		true
}

if is_whole "$cache/current"; then
	echo "fetch-debian.sh: already here" >&2
	print_current
	exit
fi

for tool in apt-get:apt dpkg-deb:dpkg depmod:kmod flock:util-linux; do
	PATH=$PATH:/usr/sbin:/sbin command -v "${tool%:*}" >/dev/null ||
		die "${tool%:*} is missing: install the Debian package ${tool#*:}"
done

mkdir -p "$cache"
exec {lock}>"$cache/.lock"
flock "$lock"
if is_whole "$cache/current"; then
	echo "fetch-debian.sh: another run has just fetched it" >&2
	print_current
	exit
fi

rm -rf "$cache"/.new.*
work=$(mktemp -d "$cache/.new.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

found=$(newest_kernel)
if [[ -z $found ]]; then
	echo "fetch-debian.sh: reading the package lists" >&2
	as_root apt-get -qq update >&2
	found=$(newest_kernel)
fi
[[ -n $found ]] || die "the package lists have no $metapackage"
read -r package version <<<"$found"
release=${package#linux-image-}

if ! is_whole "$cache/$version"; then
	echo "fetch-debian.sh: downloading $package $version" >&2
	# Outdated lists name files that the archive no longer holds.
	download() (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$package=$version" >&2)
	download || { as_root apt-get -qq update >&2 && download; } ||
		die "cannot download $package $version"

	dpkg-deb -x "$work"/*.deb "$work/root"
	mkdir -p "$work/entry/lib"
	mv "$work/root/boot/vmlinuz-$release" "$work/entry/kernel"
	touch "$work/entry/kernel" # what is made from it is older than this, not than the package
	mv "$work/root/boot/config-$release" "$work/entry/config"
	mv "$work/root/lib/modules" "$work/entry/lib/modules"
	PATH=$PATH:/usr/sbin:/sbin depmod -b "$work/entry" "$release"
	is_whole "$work/entry" || die "$package $version lacks the kernel, its config or its modules"
	rm -rf "${cache:?}/$version"
	mv -T "$work/entry" "$cache/$version"
fi

ln -s "$version" "$work/current"
mv -T "$work/current" "$cache/current"
print_current

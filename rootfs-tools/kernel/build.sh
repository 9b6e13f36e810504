#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Builds a guest kernel from Debian's kernel source and prints its path:
#   build.sh NAME, where NAME is microvm (no ACPI), microvm-acpi, or microvm-full (no ACPI, and what
#   containers, firewalls and tunnels need)
# A kernel is kept in the user's cache directory under a hash of source version, compiler and
# configuration; one that is there already is not built again. The folder appears there whole or
# not at all.
set -euo pipefail

name=${1-}
here=$(cd "$(dirname "$0")" && pwd)
case $name in
microvm) fragments=("$here/microvm.config" "$here/noacpi.config") ;;
microvm-acpi) fragments=("$here/microvm.config" "$here/acpi.config") ;;
microvm-full) fragments=("$here"/{microvm,full,noacpi}.config) ;;
*)
	echo "usage: build.sh microvm|microvm-acpi|microvm-full" >&2
	exit 2
	;;
esac

say() { echo "kernel $name: $*" >&2; }

package=linux-source-6.12
source=/usr/src/$package.tar.xz
if ! [ -r "$source" ] || ! version=$(dpkg-query -W -f '${Version}' "$package" 2>/dev/null); then
	say "the Debian package $package is not installed"
	exit 1
fi
hash=$({
	echo "$version"
	"${CC:-gcc}" --version | head -n 1
	grep -hE '^(# )?CONFIG_' "${fragments[@]}"
	echo recipe 1 # raise it when this script changes what it builds
} | sha256sum | cut -c 1-12)

cache=${XDG_CACHE_HOME:-$HOME/.cache}/mote/kernels/$name
target=$version-$hash
mkdir -p "$cache"

# One build at a time; whoever waited finds the kernel done.
exec 9> "$cache/.lock"
flock -n 9 || {
	say "waiting for another build of it"
	flock 9
}

point_current() {
	ln -sfn "$target" "$cache/.current.new"
	mv -T "$cache/.current.new" "$cache/current"
}

if [ -e "$cache/$target/kernel" ]; then
	point_current
	echo "$cache/current/kernel"
	exit 0
fi

rm -rf "$cache"/.build.* # of interrupted builds: the lock says that nobody works there
work=$(mktemp -d "$cache/.build.XXXXXX")
compiler=
clean_up() {
	if [ -n "$compiler" ]; then
		kill "$compiler" 2> /dev/null || true
		wait "$compiler" 2> /dev/null || true
	fi
	rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
started=$(date +%s)

say "unpacking Debian's $package $version"
mkdir "$work/source"
tar -xf "$source" -C "$work/source" --strip-components=1 \
	--exclude='*/arch/[a-wyz]*/*.[chS]' --exclude='*.dts*' --exclude='*/Documentation/*.rst' --exclude='*/tools/testing' \
	--exclude='*/drivers/gpu/*.[ch]' --exclude='*/sound/*.[ch]' \
	--exclude='*/drivers/net/ethernet/*.[ch]' --exclude='*/drivers/net/wireless/*.[ch]' \
	--exclude='*/drivers/media/*.[ch]'

say "configuring"
cat "${fragments[@]}" > "$work/fragment"
make -C "$work/source" -s KCONFIG_ALLCONFIG="$work/fragment" allnoconfig > "$work/log" 2>&1 || {
	tail -n 20 "$work/log" >&2
	say "kconfig failed"
	exit 1
}
lost=0
while read -r line; do
	case $line in
	"# CONFIG_"*)
		symbol=${line#\# }
		if grep -q "^${symbol%% *}=" "$work/source/.config"; then
			say "kconfig did not keep: $line"
			lost=1
		fi
		;;
	CONFIG_*)
		if ! grep -qxF "$line" "$work/source/.config"; then
			say "kconfig did not keep: $line"
			lost=1
		fi
		;;
	esac
done < "$work/fragment"
[ $lost = 0 ] || exit 1

say "compiling with $(nproc) processors, some minutes the first time"
make -C "$work/source" -j"$(nproc)" KBUILD_BUILD_TIMESTAMP=@0 KBUILD_BUILD_USER=mote \
	KBUILD_BUILD_HOST=mote vmlinux > "$work/log" 2>&1 9>&- &
compiler=$!
while kill -0 $compiler 2> /dev/null; do
	# A pause that ends with the compiler or by a signal, then a sign of life.
	timeout 20 tail --pid=$compiler -f /dev/null &
	wait $! || true
	kill -0 $compiler 2> /dev/null &&
		say "$(grep -c '^  CC ' "$work/log" || true) files compiled, $(($(date +%s) - started)) s"
done
wait $compiler || {
	tail -n 20 "$work/log" >&2
	say "the build failed"
	exit 1
}
compiler=

mkdir "$work/done"
strip --strip-debug -o "$work/done/kernel" "$work/source/vmlinux"
cp "$work/source/.config" "$work/done/config"
mv -T "$work/done" "$cache/$target"
point_current
say "built in $(($(date +%s) - started)) s"
echo "$cache/current/kernel"

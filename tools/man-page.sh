#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Writes mote(1) in scdoc's format, with what each command says of itself: man-page.sh MOTE
set -euo pipefail

mote=$1

# As it is, which no word of it can break.
fence='```'
literal() { printf '\n%s\n%s\n%s\n' "$fence" "$("$mote" "$@" --help)" "$fence"; }

cat << 'END'
mote(1)

# NAME

mote - run code that is not trusted in microVMs

# SYNOPSIS

*mote run* [_OPTION_]... [_IMAGE_] [--] [_COMMAND_ [_ARGUMENT_]...]++
*mote* _COMMAND_ [_OPTION_]...

# DESCRIPTION

mote boots a Linux kernel directly on KVM, in a microVM with a network interface, drives and a vsock
device at most, whose VMM runs in a jail; runs a program in it; and ends as that ends.

# COMMANDS
END
for command in run exec cp ps kill logs stats inspect rm image kernel api doctor; do
	printf '\n## mote %s\n' "$command"
	literal "$command"
done
cat << 'END'

# ENVIRONMENT

_MOTE_FIRST_UID_
	the first of 4194304 numbers that are users and groups of nothing on the host (default
	2013265920): the VMM that root starts is the one with the number of the mote process added.
	One that the host knows is refused.

# FILES

_$XDG_DATA_HOME/mote/images_, _~/.local/share/mote/images_
	root images, which *mote image* looks after

_$XDG_CACHE_HOME/mote/kernels_, _~/.cache/mote/kernels_
	guest kernels

_$XDG_RUNTIME_DIR/mote_ if that directory is set and the user's own, else _/run/mote_ for root and
_/run/user/UID/mote_ or, where that is not there, _~/.cache/mote/run_ for others
	what is known of the microVMs that run or have ended, with their sockets. systemd-logind
	removes a user's _$XDG_RUNTIME_DIR_ at the end of the last login, and with it mote forgets what
	was started with --detach and still runs: *loginctl enable-linger* keeps it.

# SEE ALSO

passt(1). mote-jailer and mote-vmm, in ../lib/mote of the program, tell about
themselves with --help.
END

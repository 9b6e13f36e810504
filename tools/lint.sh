#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Formatting, all warnings as errors with gcc and clang, clang-tidy, shellcheck, and the house's
# rules that a machine can check.
# shellcheck disable=SC2317 # functions that check() calls
set -uo pipefail

failed=0
check() {
	local what=$1
	shift
	if "$@" > build/lint.log 2>&1; then
		echo "lint: $what: good"
	else
		cat build/lint.log
		echo "lint: $what: FAILED"
		failed=1
	fi
}

mkdir -p build
mapfile -t sources < <(git ls-files '*.c' '*.h')
mapfile -t units < <(git ls-files 'base/*.c' 'json/*.c' 'virtio/*.c' 'mmds/*.c' 'vmm/*.c' 'api-socket/*.c' 'cli/*.c' 'jailer/*.c' 'programs/*.c' 'tree/*.c' 'guest/*.c' 'host/*.c')
mapfile -t scripts < <(git grep -lE '^#!/bin/(ba)?sh')
mapfile -t python < <(git grep -lE '^#!/usr/bin/python3'; git ls-files '*.py')

check "clang-format" clang-format --dry-run --Werror "${sources[@]}"
check "shellcheck" shellcheck -x "${scripts[@]}"
check "python syntax" /usr/bin/python3 -c '
import ast, sys
for path in sys.argv[1:]:
    ast.parse(open(path, encoding="utf-8").read(), path)' "${python[@]}"
check "gcc -Werror" make --no-print-directory -j"$(nproc)" VARIANT=lint-gcc WERROR=1 CC=gcc programs tests benches
check "clang -Werror" make --no-print-directory -j"$(nproc)" VARIANT=lint-clang WERROR=1 CC=clang programs tests benches

tidy_one() {
	clang-tidy --quiet "$1" -- -std=gnu17 -D_GNU_SOURCE -DMOTE_VERSION='""' \
		-Ibuild/include/"${1%%/*}"
}
export -f tidy_one
tidy() {
	# shellcheck disable=SC2016 # which the inner shell expands
	printf '%s\0' "${units[@]}" | xargs -0 -P "$(nproc)" -n 1 bash -c 'tidy_one "$1"' tidy
}
check "clang-tidy" tidy

# A file has one responsibility; past this it probably has two. Tests are tables and may be longer,
# and the API's document is one document.
long_files() {
	local long
	long=$(git ls-files 'base/*' 'json/*' 'virtio/*' 'mmds/*' 'vmm/*' 'api-socket/*' 'cli/*' 'jailer/*' 'host/*' 'guest/*' 'tree/*' \
			':!api-socket/openapi.yaml' |
		xargs wc -l | awk '$2 != "total" && $1 > 550 { print $2 ": " $1 " lines" }')
	[ -z "$long" ] || { echo "$long"; return 1; }
}
check "file lengths" long_files

check "no two files need each other" tools/lint-circles

# A thread of a test that does not end must not keep the process from ending: support.running() and
# support.watchdog() see to that.
raw_threads() {
	! git grep -nE 'threading\.(Thread|Timer)\(' -- 'tests/*.py' ':!tests/support.py' \
		':!tests/tools/test_run_tests.py' ':!tests/testhost/qemu.py'
}
check "threads of tests" raw_threads

[ "$failed" = 0 ] && echo "lint: all good"
exit "$failed"

# SPDX-License-Identifier: Apache-2.0
from support import VARIANT

# A sanitizer's runtime makes system calls of its own, so that those variants enter no filter: these
# tests are the release build's, which `make test` runs.
collect_ignore = [] if VARIANT == "release" else ["test_seccomp.py"]

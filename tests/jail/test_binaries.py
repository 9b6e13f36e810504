# SPDX-License-Identifier: Apache-2.0
"""How the programs are built: what a fault in one of them could otherwise make use of."""
import re
import subprocess

import pytest

from support import BUILD

pytestmark = pytest.mark.release_build

PROGRAMS = ["mote", "mote-vmm", "mote-jailer"]


def output(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True,
                          check=True).stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_is_hardened(name):
    headers = output("readelf", "--file-header", "--program-headers", "--wide", BUILD / name)
    dynamic = output("readelf", "--dynamic", "--wide", BUILD / name)
    # Position-independent, and without a loader or libraries that a chroot would need.
    assert "DYN (Position-Independent Executable file)" in headers
    assert "INTERP" not in headers and "NEEDED" not in dynamic
    segments = [line.split() for line in headers.splitlines()
                if re.match(r"\s+(LOAD|GNU_\w+)\s", line)]
    flags = {words[0]: "".join(words[6:-1]) for words in segments if words[0] != "LOAD"}
    loads = ["".join(words[6:-1]) for words in segments if words[0] == "LOAD"]
    assert flags["GNU_STACK"] == "RW"
    assert flags["GNU_RELRO"] == "R" and "BIND_NOW" in dynamic and "TEXTREL" not in dynamic
    # Nothing is writable and executable, and only one part is executable.
    assert sorted(loads) == ["R", "R", "RE", "RW"]
    symbols = output("nm", BUILD / name)
    assert "__stack_chk_fail" in symbols
    assert re.search(r"__\w+_chk\b", symbols), "_FORTIFY_SOURCE"


@pytest.mark.parametrize("folder", ["base", "jailer", "virtio", "vmm", "api-socket", "programs"])
def test_every_object_is_ready_for_cet(folder):
    """Whether a program is in the end, the libraries of the distribution decide."""
    objects = list((BUILD / "obj" / folder).rglob("*.o"))
    assert objects
    for path in objects:
        notes = output("readelf", "--notes", "--wide", path)
        assert "IBT" in notes and "SHSTK" in notes, path

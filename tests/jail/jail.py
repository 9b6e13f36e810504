# SPDX-License-Identifier: Apache-2.0
"""A jail for a test: mote-jailer with the payload, or another program, in the place of mote-vmm."""
import contextlib
import itertools
import os
import pathlib
import subprocess

import pytest

from support import BUILD, TIME_LIMIT, wait_until

JAILER = BUILD / "mote-jailer"
PAYLOAD = BUILD.parent / "payload"
CGROUPS = pathlib.Path("/sys/fs/cgroup")
CGROUP_VERSION = 2 if (CGROUPS / "cgroup.controllers").exists() else 1
UID, GID = 64017, 64018
# What a jailed process may lock: twice the 28 KiB of a ring for each of 19 drives.
LOCKED = 2 * 19 * 28 << 10

# The same limits in both versions.
MEMORY = "memory.max" if CGROUP_VERSION == 2 else "memory.limit_in_bytes"

numbers = itertools.count()


class Jail:
    def __init__(self, base, *, exec_file=PAYLOAD, name=None):
        self.base = pathlib.Path(base)
        self.exec_file = pathlib.Path(exec_file)
        self.id = name or f"test-{os.getpid()}-{next(numbers)}"
        self.own_network = True
        self.home = self.base / self.exec_file.name / self.id
        self.root = self.home / "root"

    def command(self, *arguments, options=(), **changes):
        """The jailer's command line; a change of None leaves that option out."""
        given = {"id": self.id, "exec_file": self.exec_file, "uid": UID, "gid": GID,
                 "chroot_base_dir": self.base} | changes
        words = [str(JAILER)]
        if self.own_network and "--netns" not in options:
            words.append("--new-netns")
        for name, value in given.items():
            words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
        return [*words, *map(str, options), "--", *map(str, arguments)]

    def run(self, *arguments, options=(), changes=None, **kwargs):
        return subprocess.run(self.command(*arguments, options=options, **(changes or {})),
                              capture_output=True, text=True, timeout=TIME_LIMIT, check=False,
                              **kwargs)

    def attempt(self, *arguments, options=(), **kwargs):
        """What the payload says, line by line."""
        result = self.run(*arguments, options=options, **kwargs)
        assert result.returncode == 0, result
        return result.stdout.split()

    def refused(self, *, options=(), changes=None, **kwargs):
        """The sentence with which the jailer refuses."""
        result = self.run("end", "0", options=options, changes=changes, **kwargs)
        assert result.returncode in (1, 153) and result.stdout == "", result
        prefix = "mote-jailer: "
        assert result.stderr.startswith(prefix) and result.stderr.count("\n") == 1, result.stderr
        return result.stderr.removeprefix(prefix).rstrip()

    @contextlib.contextmanager
    def waiting(self, *, options=(), changes=None, **kwargs):
        """The jailer's process, while the payload waits in its jail."""
        with subprocess.Popen(self.command("wait", options=options, **(changes or {})),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, **kwargs) as process:
            try:
                assert process.stdout.readline() == "waiting\n", process.stderr.read()
                yield process
            finally:
                process.kill()
                wait_until(lambda: not cgroup_processes(self), "the end of what was in the jail")

    def pid(self):
        """The jailed process's, on the host."""
        return int((self.root / f"{self.exec_file.name}.pid").read_text())


def cgroups(jail):
    """The jail's cgroups, by controller in version 1."""
    pattern = f"{jail.exec_file.name}/{jail.id}"
    if CGROUP_VERSION == 2:
        return list(CGROUPS.glob(pattern))
    return list(CGROUPS.glob(f"*/{pattern}"))


def cgroup_processes(jail):
    found = []
    for folder in cgroups(jail):
        with contextlib.suppress(OSError):
            found += (folder / "cgroup.procs").read_text().split()
    return found


@pytest.fixture(name="jail")
def jail_fixture(tmp_path):
    """A jail in a directory of its own, of which nothing is left at the end of the test."""
    one = Jail(tmp_path)
    yield one
    assert not one.home.exists(), list(one.home.rglob("*"))
    assert not cgroups(one)

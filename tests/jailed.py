# SPDX-License-Identifier: Apache-2.0
"""mote-vmm in a jail in which the tests' files have the paths that they have outside."""
import contextlib
import itertools
import os
import pathlib
import subprocess
import tempfile

import support
from support import BUILD, VMM

UID, GID = 64117, 64118


def bind(root, path):
    target = root / str(path).lstrip("/")
    mask = os.umask(0o022)
    target.mkdir(parents=True)
    os.umask(mask)
    subprocess.run(["mount", "--rbind", path, target], check=True)


@contextlib.contextmanager
def jailed(*folders):
    """
    What support.vmm_with() gives in this context is a jailer's command line. The VMM is in the network
    namespace of whoever runs it, and sees these folders, which its user may write to.
    """
    numbers = itertools.count()
    roots = []

    with tempfile.TemporaryDirectory(prefix="jailed-", dir="/tmp") as base:
        def command(*arguments):
            name = f"jailed-{os.getpid()}-{next(numbers)}"
            root = pathlib.Path(base) / VMM.name / name / "root"
            for folder in folders:
                bind(root, folder)
            roots.append(root)
            return [str(BUILD / "mote-jailer"), "--id", name, "--exec-file", str(VMM),
                    "--uid", str(UID), "--gid", str(GID), "--chroot-base-dir", base,
                    "--netns", "/proc/self/ns/net", "--", *map(str, arguments)]

        before = support.vmm_with
        support.vmm_with = command
        mask = os.umask(0)
        try:
            yield
        finally:
            os.umask(mask)
            support.vmm_with = before
            for root in roots:
                for folder in folders:
                    subprocess.run(["umount", "-R", "-l", root / str(folder).lstrip("/")],
                                   check=True)

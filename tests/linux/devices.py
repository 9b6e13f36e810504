# SPDX-License-Identifier: Apache-2.0
"""What the tests of the three devices share: a guest's root, its console, the host's network."""
import contextlib
import os
import re
import subprocess

from support import BUILD, TIME_LIMIT, wait_until

# The script to run is a drive of its own, the last one.
INIT = """#!/bin/sh
export PATH=/bin:/sbin
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp; mount -t tmpfs run /run
for drive in /dev/vd?; do script=$drive; done
sh $script 2>&1
echo "@end"
sync; mount -o remount,ro / ; reboot -f
"""
ENGINES = ["Sync", "Async"]

TAP = {"host_dev_name": "tap0", "guest_mac": "06:00:0a:09:00:02"}
UP = "ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up; "


def build_image(folder, programs=(), size="48M"):
    """A root file system of busybox, INIT, stream_bench, and others with their libraries."""
    tree = folder / "tree"
    tree.mkdir()
    with open(BUILD / "initrd.cpio", "rb") as archive:
        subprocess.run(["cpio", "-id", "--quiet"], stdin=archive, cwd=tree, check=True)
    (tree / "init").unlink()
    (tree / "init").write_text(INIT)
    (tree / "init").chmod(0o755)
    subprocess.run(["cp", BUILD / "stream_bench", *programs, tree / "bin"], check=True)
    for program in programs:
        libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
        for library in re.findall(r"/\S+\.so\S*", libraries.stdout):
            target = tree / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-L", library, target], check=True)
    path = folder / "root.ext4"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, path, size], check=True)
    return path


class Guest:
    """A VM whose console is read line by line; the script's lines are what it prints."""

    def __init__(self, process, log):
        self.process = process
        self.log_path = log

    def wait_for(self, start):
        """The rest of the first line that starts so."""
        for line in self.lines():
            if line.startswith(start):
                return line.removeprefix(start).strip()
        raise AssertionError(f"no line {start!r}; log: {self.log()}")

    def lines(self):
        for line in self.process.stdout:
            yield line.decode(errors="replace").rstrip("\r\n")

    def output(self):
        """The lines up to the end of the VM, which must be an orderly one."""
        lines = []
        for line in self.lines():
            lines.append(line)
        assert "@end" in lines, (lines, self.log())
        assert self.process.wait(TIME_LIMIT) == 0, self.log()
        return lines[:lines.index("@end")]

    def log(self):
        return self.log_path.read_text()


def make_file(path, size, content=b""):
    with open(path, "wb") as file:
        file.write(content)
        file.truncate(size)
    return str(path)


class Net:
    """A network namespace with a tap; the VMM runs in it, and so does what it talks to."""

    def __init__(self):
        self.name = f"mote-test-{os.getpid()}"
        self.prefix = ["ip", "netns", "exec", self.name]

    def run(self, *command, check=True):
        return subprocess.run([*self.prefix, *command], capture_output=True, check=check,
                              timeout=TIME_LIMIT)

    def popen(self, *command, **kwargs):
        return subprocess.Popen([*self.prefix, *map(str, command)], **kwargs)


@contextlib.contextmanager
def stream_server(path):
    """What the guest reaches as a port of the host's; the process."""
    with subprocess.Popen([BUILD / "stream_bench", "unix-server", path]) as server:
        try:
            wait_until(path.exists, "the server's socket")
            yield server
        finally:
            server.kill()

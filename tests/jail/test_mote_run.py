# SPDX-License-Identifier: Apache-2.0
"""The VMM of mote run, in its jail, with a tiny guest that runs on."""
import contextlib
import os
import pathlib
import signal
import subprocess
import tempfile

import pytest

from jail import CGROUPS
from support import GUESTS, MOTE, TIME_LIMIT, processes, wait_until

FIRST_UID = 2013265920

pytestmark = pytest.mark.release_build


def descendants(pid):
    found = []
    with contextlib.suppress(OSError):
        for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


@contextlib.contextmanager
def mote_run(*options, env=None):
    """mote and its VMM's process id; the runtime directory is empty again at the end."""
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        runtime = pathlib.Path(folder)
        with subprocess.Popen(
                [MOTE, "run", "--kernel", GUESTS / "counter", *options, "--", "true"],
                env=os.environ | {"XDG_RUNTIME_DIR": folder} | (env or {}), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as mote:
            def vmm():
                return [pid for pid in processes("mote-vmm") if pid in descendants(mote.pid)]
            try:
                wait_until(vmm, "the VMM")
                yield mote, vmm()[0]
            finally:
                mote.kill()
                mote.wait(TIME_LIMIT)
        wait_until(lambda: not list(runtime.glob("mote/jail/mote-vmm/*")), "the jail's end")


def fields(pid):
    return dict(line.split(":\t", 1) for line in
                pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def test_vmm_is_in_a_jail():
    with mote_run() as (mote, vmm):
        user = str(FIRST_UID + mote.pid)
        wait_until(lambda: fields(vmm)["Uid"].split() == [user] * 4, "the user")
        wait_until(lambda: fields(vmm)["Seccomp_filters"] == "2", "the filters")
        assert fields(vmm)["Gid"].split() == [user] * 4
        assert int(fields(vmm)["CapBnd"], 16) == 0
        for kind in ("mnt", "pid", "net", "ipc", "uts", "cgroup"):
            assert os.readlink(f"/proc/{vmm}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
        assert sorted(os.listdir(f"/proc/{vmm}/root")) == [
            "dev", "mote-vmm", "mote-vmm.pid", "run"]
        place = [line.split(":", 2) for line in
                 pathlib.Path(f"/proc/{vmm}/cgroup").read_text().splitlines()]
        assert any("mote-vmm/" in path for _, _, path in place)
        mounts = {line.split()[4]: line.split()[5].split(",") for line in
                  pathlib.Path(f"/proc/{vmm}/mountinfo").read_text().splitlines()}
        assert "ro" in mounts["/"] and "rw" in mounts["/run"]
        # Those of one vCPU, and not many more.
        (most,) = {int((CGROUPS / controllers.split(",")[0] / path.lstrip("/") / "pids.max")
                       .read_text()) for _, controllers, path in place
                   if "mote-vmm/" in path and controllers in ("", "pids")}
        assert most <= 128


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_mote_is_killed(number):
    def ours():
        return {str(path) for pattern in ("*/mote-vmm/*/", "mote-vmm/*/")
                for path in CGROUPS.glob(pattern) if not path.name.startswith("test-")}

    before = ours()
    with mote_run() as (mote, vmm):
        mote.send_signal(number)
        mote.wait(TIME_LIMIT)
        wait_until(lambda: vmm not in processes("mote-vmm"), "the VMM's end")
        wait_until(lambda: ours() <= before, "the cgroup's end")


def test_without_a_jail_when_asked_for():
    with mote_run("--no-jail") as (_, vmm):
        assert fields(vmm)["Uid"].split() == ["0"] * 4
        assert os.readlink(f"/proc/{vmm}/ns/mnt") == os.readlink("/proc/self/ns/mnt")


def test_jail_that_cannot_be_built_is_one_sentence():
    """The guest does not run then."""
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        jails = pathlib.Path(folder) / "mote" / "jail"
        for path in (jails.parent, jails, pathlib.Path(folder) / "elsewhere"):
            path.mkdir(mode=0o700)
        (jails / "mote-vmm").symlink_to(pathlib.Path(folder) / "elsewhere")
        result = subprocess.run(
            [MOTE, "run", "--kernel", GUESTS / "hello", "--", "true"], capture_output=True,
            env=os.environ | {"XDG_RUNTIME_DIR": folder}, check=False, timeout=TIME_LIMIT)
        assert not list((pathlib.Path(folder) / "elsewhere").iterdir())
    assert result.returncode == 125 and result.stdout == b""
    assert result.stderr.count(b"\n") == 1 and b"not a directory" in result.stderr


def test_nothing_that_a_vmm_leaves_stays():
    """Whatever it has put into its /run: mote_run() looks for its jail."""
    with mote_run() as (_, vmm):
        wait_until(lambda: fields(vmm)["Seccomp_filters"] == "2", "the jail to be complete")
        (pathlib.Path(f"/proc/{vmm}/root/run") / "left").write_bytes(bytes(4096))


def test_user_of_another_range():
    with mote_run(env={"MOTE_FIRST_UID": "3000000000"}) as (mote, vmm):
        user = str(3000000000 + mote.pid)
        wait_until(lambda: fields(vmm)["Uid"].split() == [user] * 4, "the user")
        assert fields(vmm)["Gid"].split() == [user] * 4


@pytest.mark.parametrize("value", ["0", "65535", "4290772992", "99999999999999999999", "x", "1e6",
                                   "-1", " 70000"])
def test_ranges_that_are_none(tmp_path, value):
    result = subprocess.run([MOTE, "run", "--kernel", GUESTS / "counter", "--", "true"],
                            env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path),
                                              "MOTE_FIRST_UID": value},
                            stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            timeout=TIME_LIMIT, check=False)
    assert result.returncode == 125
    assert result.stderr.startswith(f"mote: MOTE_FIRST_UID={value}: a number from 65536 to ")


@pytest.mark.parametrize("file, line, where", [
    ("passwd", "them:x:{uid}:1::/:/bin/sh", "passwd"), ("group", "them:x:{uid}:", "group"),
    ("subuid", "them:100000:65536\nthem:2013265920:5000000", "/etc/subuid"),
    ("subgid", "them:{uid}:1", "/etc/subgid"),
])
def test_user_that_the_host_knows(tmp_path, file, line, where):
    """With an /etc of the test's own; the number is that of the process which becomes mote."""
    script = ("mount -t tmpfs none /etc && touch /etc/passwd /etc/group && echo " +
              f"'{line}' | sed s/{{uid}}/$(({FIRST_UID} + $$))/ > /etc/{file} && exec \"$@\"")
    result = subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", MOTE, "run",
                             "--kernel", GUESTS / "counter", "--", "true"],
                            env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
                            stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            timeout=TIME_LIMIT, check=False)
    assert result.returncode == 125
    assert f": it is in {where} (MOTE_FIRST_UID gives another range)\n" in result.stderr
    assert not list(tmp_path.glob("mote/*/*/*")) and not list(tmp_path.glob("mote/vms/*"))

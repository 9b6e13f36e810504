# SPDX-License-Identifier: Apache-2.0
"""Whoever calls the jailer is not trusted either, nor who else may write where it works."""
import fcntl
import functools
import os
import pathlib
import shutil
import stat
import subprocess

import pytest

from jail import CGROUP_VERSION, GID, JAILER, MEMORY, PAYLOAD, UID, Jail, cgroups
from support import TIME_LIMIT, running

LIMIT = ["--cgroup", f"{MEMORY}=64M", "--cgroup", "pids.max=16"]
LOCK_OF_CGROUP = "cgroup.kill" if CGROUP_VERSION == 2 else "notify_on_release"


@pytest.fixture
def program(tmp_path):
    """A copy of the payload that a test may spoil."""
    copy = tmp_path / "program"
    shutil.copy(PAYLOAD, copy)
    return copy


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/a", "a\nb", "a b", "a.b", "a_b",
                                  "ä", "a" * 65, "--", "%s"])
def test_ids_that_are_none(jail, name):
    assert "--id: " in jail.refused(changes={"id": name})
    assert list(jail.base.iterdir()) == []


def test_longest_id(tmp_path):
    assert Jail(tmp_path, name="a" * 64).attempt("descriptors") == ["0", "1", "2"]


@pytest.mark.parametrize("option,value", [
    ("uid", "4294967295"), ("uid", "4294967296"), ("gid", "-1"),
    ("uid", "nobody"), ("uid", ""), ("uid", "1 "), ("uid", "0x10"), ("gid", "+1")])
def test_users_that_are_none(jail, option, value):
    assert f"--{option} {value}: " in jail.refused(changes={option: value})


@pytest.mark.parametrize("missing", ["id", "exec_file", "uid", "gid"])
def test_what_is_needed_is_missing(jail, missing):
    assert "are needed" in jail.refused(changes={missing: None})


@pytest.mark.parametrize("options,says", [
    (["--cgroup", "memory.max"], "FILE=VALUE"), (["--cgroup", "=1"], "FILE=VALUE"),
    (["--cgroup", "memory.max="], "FILE=VALUE"),
    (["--cgroup", "../x.y=1"], "not a file of a cgroup"),
    (["--cgroup", "memory/x.y=1"], "not a file of a cgroup"),
    (["--cgroup", "memory=1"], "not a file of a cgroup"),
    (["--cgroup", ".max=1"], "not a file of a cgroup"),
    (["--cgroup", "memory.max=1\n2"], "FILE=VALUE"),
    (["--cgroup-version", "3"], "1 or 2"),
    (["--parent-cgroup", "/a"], "relative path"), (["--parent-cgroup", "../a"], "relative path"),
    (["--parent-cgroup", "a//b"], "relative path"), (["--parent-cgroup", ""], "relative path"),
    (["--resource-limit", "fsize=x"], "not a number"),
    (["--resource-limit", "stack=1"], "is expected"),
    (["--keep-fd", "x"], "not a descriptor"), (["--keep-fd", "77"], "descriptor 77"),
    (["--keep-fd", "5", "--keep-fd", "5"], "given twice"),
    (["--record-fd", "x"], "--record-fd x: not a descriptor"),
    (["--record-fd", "77"], "descriptor 77"),
    (["--chroot-base-dir", "relative"], "an absolute path"),
    (["--netns", "/no/such/namespace"], "/no/such/namespace"),
    (["--netns", "/etc/passwd"], "--netns /etc/passwd"),
    (["--no-such-option"], "no such option"), (["--id"], "a value is expected"), (["x"], "x: "),
])
def test_options_that_are_wrong(jail, options, says):
    assert says in jail.refused(options=options)


def test_cgroup_file_that_is_not_there(jail):
    assert "memory.no_such" in jail.refused(options=["--cgroup", "memory.no_such=1"])
    assert "nothing" in jail.refused(options=["--cgroup", "nothing.max=1"])


def test_program_that_is_a_symbolic_link(tmp_path, program):
    """What it leads to is copied, under the name by which callers look for the jail."""
    link = program.with_name("firecracker")
    link.symlink_to(program)
    jail = Jail(tmp_path / "jails", exec_file=link)
    assert jail.home.parent.name == "firecracker"
    with jail.waiting():
        assert (jail.root / "firecracker").is_file()
        assert not (jail.root / "firecracker").is_symlink()
    jail.run("end", "0", options=["--remove"])
    assert not jail.home.exists()
    program.chmod(0o4755)
    assert "setuid" in jail.refused()


def test_program_that_has_hard_links(tmp_path, program):
    os.link(program, program.with_name("other"))
    jail = Jail(tmp_path / "jails", exec_file=program)
    assert jail.run("end", "3").returncode == 3


@pytest.mark.parametrize("bit", [stat.S_ISUID, stat.S_ISGID])
def test_program_that_is_setuid(jail, program, bit):
    program.chmod(0o755 | bit)
    assert "setuid or setgid" in jail.refused(changes={"exec_file": program})


def test_programs_that_are_none(jail, program):
    program.chmod(0o644)
    assert "not executable" in jail.refused(changes={"exec_file": program})
    assert "not a file" in jail.refused(changes={"exec_file": "/tmp"})
    assert "not a name" in jail.refused(changes={"exec_file": "/"})
    assert "/no/such" in jail.refused(changes={"exec_file": "/no/such"})
    for name in ("dev", "run", ".hidden"):
        assert "not a name" in jail.refused(changes={"exec_file": f"/bin/{name}"})
    fifo = program.with_name("fifo")
    os.mkfifo(fifo)
    assert "not a file" in jail.refused(changes={"exec_file": fifo})


def test_program_that_cannot_run_in_a_jail(tmp_path):
    """A script's interpreter and a shared library's loader are not there; nothing is left."""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    jail = Jail(tmp_path / "base", exec_file=script)
    assert "script: exec in the jail" in jail.refused()
    assert not jail.home.exists()


def test_base_of_another_user(jail):
    jail.base.chmod(0o755)
    foreign = jail.base / "foreign"
    foreign.mkdir()
    os.chown(foreign, UID, GID)
    says = jail.refused(changes={"chroot_base_dir": foreign})
    assert "belongs to another user" in says
    # As well when it is not the last component.
    (foreign / "base").mkdir()
    assert "belongs to another user" in jail.refused(
        changes={"chroot_base_dir": foreign / "base"})


def test_base_that_others_can_write_to(jail):
    shared = jail.base / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert "others can write" in jail.refused(changes={"chroot_base_dir": shared})
    (shared / "base").mkdir()
    assert "others can write" in jail.refused(changes={"chroot_base_dir": shared / "base"})
    # In a sticky one, such as /tmp, they cannot replace what is the jailer's; but put theirs into it.
    shared.chmod(0o1777)
    assert "others can write" in jail.refused(changes={"chroot_base_dir": shared})
    assert Jail(shared / "base").attempt("descriptors")


def test_base_through_a_symbolic_link(jail):
    """Resolved first: /var/run is one. What is then done is done on the path without any."""
    real = jail.base / "real"
    real.mkdir()
    (jail.base / "link").symlink_to(real)
    with Jail(jail.base / "link" / "new").waiting() as process:
        assert (real / "new" / PAYLOAD.name).is_dir()
        process.send_signal(3)
        process.wait(TIME_LIMIT)


@pytest.mark.parametrize("place", ["payload", "payload/ID", "payload/ID/root", "payload/ID/root/dev",
                                   "payload/ID/root/run", "payload/ID/root/dev/net"])
def test_symbolic_links_in_the_place_of_directories(tmp_path, place):
    """They are not followed, and what they point at is as before."""
    target = tmp_path / "target"
    target.mkdir()
    jail = Jail(tmp_path / "base")
    path = jail.base / place.replace("ID", jail.id)
    path.parent.mkdir(parents=True)
    path.symlink_to(target)
    assert str(jail.base) in jail.refused(options=["--tun"])
    assert list(target.iterdir()) == [] and target.stat().st_uid == 0
    assert path.is_symlink()


@pytest.mark.parametrize("place", ["payload", "payload.pid", "dev/kvm"])
def test_links_in_the_place_of_files(tmp_path, place):
    """Left by whoever could write there: replaced, and what they point at is as before."""
    target = tmp_path / "target"
    target.write_text("untouched")
    before = target.stat()
    for make in (pathlib.Path.symlink_to, pathlib.Path.hardlink_to):
        jail = Jail(tmp_path / "base")
        path = jail.root / place
        path.parent.mkdir(parents=True)
        make(path, target)
        assert jail.attempt("open", f"/{PAYLOAD.name}") == ["EACCES"]
        assert not jail.home.exists()
    after = target.stat()
    assert target.read_text() == "untouched"
    assert (after.st_uid, after.st_mode) == (before.st_uid, before.st_mode)


def test_tree_is_swapped_while_it_is_set_up(tmp_path):
    """
    By the jail's own user, again and again: root/ is closed to that user while the jailer works on
    it, so that only directories which it left before are there to be replaced.
    """
    outside = tmp_path / "outside"
    outside.mkdir()
    os.chmod(tmp_path, 0o755)
    jail = Jail(tmp_path / "base")
    jail.root.mkdir(parents=True)
    os.chown(jail.root, UID, GID)
    swap = ("import os, sys\n"
            "os.setgid(%d); os.setuid(%d)\n"
            "root, outside = sys.argv[1:]\n"
            "while True:\n"
            "    for name in ('dev', 'run', 'payload', 'payload.pid'):\n"
            "        try: os.symlink(outside, f'{root}/{name}')\n"
            "        except OSError: pass\n"
            "        try: os.rename(f'{root}/{name}', f'{root}/{name}-old')\n"
            "        except OSError: pass\n"
            "        try: os.unlink(f'{root}/{name}-old')\n"
            "        except OSError: pass\n" % (GID, UID))
    with subprocess.Popen(["/usr/bin/python3", "-c", swap, jail.root, outside]) as swapper:
        try:
            results = [jail.run("open", "/etc/passwd") for _ in range(60)]
        finally:
            swapper.kill()
    # Either the jail is a whole one or there is none.
    assert {(result.returncode, result.stdout) for result in results} <= {(0, "ENOENT\n"), (1, "")}
    assert list(outside.iterdir()) == []
    assert outside.stat().st_uid == 0


def test_same_id_twice_is_refused(jail):
    with jail.waiting(options=["--cgroup", f"{MEMORY}=64M"]) as process:
        before = {path: path.lstat().st_ino for path in jail.home.rglob("*")}
        assert "a jail of this id is running" in jail.refused(
            options=["--cgroup", f"{MEMORY}=64M"])
        assert {path: path.lstat().st_ino for path in jail.home.rglob("*")} == before
        assert process.poll() is None and len(cgroups(jail)) == 1
        process.send_signal(3)
        process.wait(TIME_LIMIT)


def test_same_id_of_many_at_once(tmp_path):
    """One of them has it, at each time."""
    jail = Jail(tmp_path)
    results = []

    def start():
        results.append(jail.run("time"))

    with running(*[start] * 12):
        pass
    good = [result for result in results if result.returncode == 0]
    assert good
    for result in results:
        assert result in good or "a jail of this id is running" in result.stderr
    assert not jail.home.exists()


def test_id_cannot_be_blocked(jail):
    """Anybody may open its directory, and who can open something can lock it; not what counts."""
    jail.home.mkdir(parents=True)
    blocker = os.open(jail.home, os.O_RDONLY)
    try:
        fcntl.flock(blocker, fcntl.LOCK_EX)
        assert jail.attempt("descriptors") == ["0", "1", "2"]
    finally:
        os.close(blocker)


def test_locks_are_nobody_elses_to_open(jail):
    with jail.waiting(options=LIMIT) as process:
        locks = [jail.home / "lock", *(place / LOCK_OF_CGROUP for place in cgroups(jail))]
        assert len(locks) > 1
        for lock in locks:
            assert (lock.stat().st_uid, lock.stat().st_mode & 0o077) == (0, 0), lock
            fd = os.open(lock, os.O_WRONLY)
            with pytest.raises(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.close(fd)
        process.send_signal(3)
        process.wait(TIME_LIMIT)


def test_same_id_in_another_base(tmp_path):
    """Their cgroup is the same: the one that runs is left alone."""
    one = Jail(tmp_path / "one")
    other = Jail(tmp_path / "other", name=one.id)
    with one.waiting(options=LIMIT) as process:
        before = {place.stat().st_ino for place in cgroups(one)}
        for options in (LIMIT, [*LIMIT, "--remove"]):
            assert "a jail of this id is running in another base directory" in other.refused(
                options=options)
        assert process.poll() is None
        assert {place.stat().st_ino for place in cgroups(one)} == before
        assert (next(iter(cgroups(one))) / "cgroup.procs").read_text().split() == [str(one.pid())]
        assert not other.home.exists()
        # Without a cgroup they have nothing in common.
        assert other.attempt("descriptors") == ["0", "1", "2"]
        process.send_signal(3)
        process.wait(TIME_LIMIT)
    assert other.attempt("descriptors", options=LIMIT) == ["0", "1", "2"]
    assert not cgroups(one)


def test_same_id_in_many_bases_at_once(tmp_path):
    """Each that starts ends as it should, whatever the others do meanwhile."""
    first = Jail(tmp_path / "0")
    jails = [first, *(Jail(tmp_path / str(i), name=first.id) for i in range(1, 8))]
    results = []

    def start(jail):
        for _ in range(5):
            results.append(jail.run("end", "7", options=LIMIT))

    with running(*(functools.partial(start, jail) for jail in jails)):
        pass
    assert any(result.returncode == 7 for result in results)
    for result in results:
        assert result.returncode == 7 or "mote-jailer: cgroup " in result.stderr, result
    assert not cgroups(first) and not any(jail.home.exists() for jail in jails)


def test_version_and_help():
    for option, says in (("--version", "Jailer v"), ("--help", "usage: mote-jailer")):
        result = subprocess.run([JAILER, option], capture_output=True, text=True, check=True)
        assert result.stdout.startswith(says) and result.stderr == ""

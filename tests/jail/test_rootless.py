# SPDX-License-Identifier: Apache-2.0
"""The jail of an ordinary user of the group kvm: the same walls, in a user namespace."""
import os
import pathlib
import shutil
import stat
import subprocess
import tempfile

import pytest

from jail import GID, LOCKED, PAYLOAD, UID, Jail
from support import GUESTS, MOTE, TIME_LIMIT, VMM, wait_until
from test_vmm import put_guest

KVM_GROUP = 64021


class Rootless(Jail):
    """Its jailer is run as UID, on a host whose /dev/kvm is for a group of which UID is a member."""

    def command(self, *arguments, options=(), **changes):
        node = self.base.parent / "kvm"
        return ["unshare", "--mount", "sh", "-ec",
                f'mount --bind {node} /dev/kvm; exec setpriv --reuid={UID} --regid={GID} '
                f'--groups={KVM_GROUP} "$@"', "sh",
                *super().command(*arguments, options=options, **changes)]


@pytest.fixture
def home():
    """A directory of UID's, such as XDG_RUNTIME_DIR, and programs that it can read."""
    with tempfile.TemporaryDirectory(prefix="rootless-") as folder:
        folder = pathlib.Path(folder)
        folder.chmod(0o755)
        (folder / "home").mkdir(mode=0o700)
        os.chown(folder / "home", UID, GID)
        os.mknod(folder / "kvm", stat.S_IFCHR | 0o660, os.makedev(10, 232))
        os.chown(folder / "kvm", 0, KVM_GROUP)
        (folder / "kvm").chmod(0o660)
        yield folder / "home"


@pytest.fixture
def rootless(home):
    one = Rootless(home)
    yield one
    assert not one.home.exists(), list(one.home.rglob("*"))


@pytest.mark.parametrize("attempt", [
    ["open", "/etc/passwd"], ["open-relative", "/etc/passwd"], ["symlink", "/etc/passwd"],
    ["proc", "/etc/passwd"], ["chroot"], ["mknod"], ["mount"], ["setuid"], ["ptrace", "1"],
    ["kill", "1"], ["processes"], ["abstract", "x"], ["raw"], ["interfaces"], ["keys", "x"],
    ["bpf"], ["perf"], ["userfaultfd"], ["namespaces"], ["cgroup"], ["descriptors"], ["execute"],
    ["make"], ["own-program", f"/{PAYLOAD.name}"], ["create", "/dev/x"]])
def test_answers_are_those_of_roots_jail(jail, rootless, attempt):
    assert rootless.attempt(*attempt) == jail.attempt(*attempt)


def test_nothing_is_left_of_the_namespaces_privileges(rootless):
    state = dict(line.split() for line in rootless.run("state").stdout.splitlines())
    # It keeps the user's groups, which a user namespace of one user cannot drop.
    assert state.pop("groups") == "1"
    assert state.pop("dumpable") != "1"
    assert state == {"capabilities": "0", "bounding": "0", "securebits": "ef", "no_new_privs": "1",
                     "seccomp": "2", "uid": str(UID), "gid": str(GID), "core": "1", "memlock": str(LOCKED),
                     "no_file": "2048", "session": "1", "environment": "0"}


def owner(pid):
    """Of what /proc has of it: root, if there are to be no dumps, else who it runs as."""
    return pathlib.Path(f"/proc/{pid}/environ").stat().st_uid


def test_jailer_leaves_no_dumps(rootless):
    """It can end by its VMM's signal, and a handler that is a pipe gets them in spite of limits."""
    with rootless.waiting() as process:
        assert pathlib.Path(f"/proc/{process.pid}/comm").read_text() == "mote-jailer\n"
        assert owner(process.pid) == 0
        process.send_signal(3)
        process.wait(TIME_LIMIT)


@pytest.mark.release_build
def test_vmm_leaves_no_dumps(home):
    """In the open: in a jail it is a program that cannot be read, which is a reason of its own."""
    copy = shutil.copy(VMM, home.parent)
    with subprocess.Popen([copy, "--api-sock", home / "api"], stdin=subprocess.DEVNULL, user=UID,
                          group=GID, extra_groups=[], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:
        try:
            wait_until((home / "api").exists, "the API's socket")
            assert owner(process.pid) == 0
        finally:
            process.kill()


@pytest.mark.release_build
def test_guest_runs(home):
    jail = Rootless(home, exec_file=VMM)
    put_guest(jail, "hello")
    for path in (jail.root, jail.home, jail.home.parent):
        os.chown(path, UID, GID)
    result = jail.run("--no-api", "--config-file", "/vm.json")
    assert (result.returncode, result.stdout) == (0, "hello\n"), result


@pytest.mark.release_build
def test_mote_run_of_an_ordinary_user(home):
    """In the jail, whose limits nobody has made possible here: it refuses to go on without them."""
    def run(*options):
        as_user = Rootless(home).command()
        return subprocess.run(
            [*as_user[:as_user.index("sh", 5) + 1], "env", f"XDG_RUNTIME_DIR={home}", MOTE, "run",
             "--kernel", GUESTS / "hello", *options, "--", "true"], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=TIME_LIMIT)

    refused = run()
    assert refused.returncode == 125 and "--weaker-jail cgroup" in refused.stderr
    # The guest has run, and has no agent.
    weaker = run("--weaker-jail", "cgroup")
    assert weaker.returncode == 125
    # Where KVM runs only such small guests that is the sentence.
    assert "The guest powered off" in weaker.stderr or "the guest did not boot" in weaker.stderr
    assert not list((home / "mote" / "jail" / "mote-vmm").iterdir())


def test_another_user_is_refused(rootless):
    assert "only one's own" in rootless.refused(changes={"uid": UID + 1})
    assert "only one's own" in rootless.refused(changes={"gid": GID + 1})


def test_base_of_another_user_is_refused(rootless):
    foreign = rootless.base.parent / "foreign"
    foreign.mkdir()
    os.chown(foreign, UID + 1, GID)
    assert "belongs to another user" in rootless.refused(changes={"chroot_base_dir": foreign})


def test_limits_that_cannot_be_set_are_refused_unless_left_out(rootless):
    """Nobody has handed a cgroup over to this user."""
    limit = ["--cgroup", "pids.max=9"]
    assert "cgroup" in rootless.refused(options=limit)
    assert rootless.attempt("descriptors", options=[*limit, "--weaker-jail", "cgroup"]) == [
        "0", "1", "2"]
    assert "can be left out" in rootless.refused(options=["--weaker-jail", "everything"])

# SPDX-License-Identifier: Apache-2.0
"""`--uid 0 --gid 0`, as some of Firecracker's clients have it: the same walls, for root without privileges."""
import os
import stat
import subprocess

import pytest

from jail import PAYLOAD, UID, Jail
from test_walls import end

ROOT = {"uid": 0, "gid": 0}

# What is tried, and what comes of it; the names are those of test_walls.
ATTEMPTS = [
    (["open", "/etc/passwd"], ["ENOENT"]),
    (["open-relative", "/etc/passwd"], ["ENOENT", "ENOENT"]),
    (["symlink", "/etc/passwd"], ["EACCES"]),
    (["proc", "/etc/passwd"], ["ENOENT", "ENOENT"]),
    (["chroot"], ["EPERM", "ENOENT"]),
    (["mknod"], ["EPERM", "EPERM"]),
    (["mount"], ["EPERM"] * 8),
    (["setuid"], ["EPERM"] * 5),
    (["ptrace", "1"], ["EPERM"] * 3),
    (["kill", str(os.getpid())], ["ESRCH"] * 3),
    (["raw"], ["EAFNOSUPPORT"] * 6),
    (["namespaces"], ["EPERM", "EPERM", "ENOSYS", "EPERM", "EPERM"]),
    (["execute"], ["EACCES", "EPERM", "EACCES"]),
    (["make"], ["EACCES", "EPERM", "ENOENT", "EROFS", "EROFS"]),
]


@pytest.mark.parametrize("attempt,expected", [
    pytest.param(*pair, id=pair[0][0]) for pair in ATTEMPTS])
def test_walls_hold(jail, attempt, expected):
    assert jail.attempt(*attempt, changes=ROOT) == expected


def test_nothing_is_left_of_roots_privileges(jail):
    state = dict(line.split() for line in jail.run("state", changes=ROOT).stdout.splitlines())
    expected = {"capabilities": "0", "bounding": "0", "securebits": "ef", "no_new_privs": "1",
                "seccomp": "2", "groups": "0", "uid": "0", "gid": "0"}
    assert {name: state[name] for name in expected} == expected


def test_own_program_can_neither_be_read_nor_changed(jail):
    read, write, truncate, *_ = jail.attempt("own-program", f"/{PAYLOAD.name}", changes=ROOT)
    assert read == "EACCES" and write in ("EACCES", "EROFS") and truncate in ("EACCES", "EROFS")


def test_nobody_else_gets_to_what_it_makes(jail):
    """A file that it made setuid would be root's for whoever runs it on the host."""
    with jail.waiting(changes=ROOT) as process:
        assert stat.S_IMODE(jail.home.stat().st_mode) == 0o700
        jail.root.chmod(0o755)
        (jail.root / "file").touch()
        looked = subprocess.run(["setpriv", "--reuid", str(UID), "--clear-groups", "stat",
                                 jail.root / "file"], capture_output=True, text=True, check=False)
        assert "Permission denied" in looked.stderr
        (jail.root / "file").unlink()
        end(process)


@pytest.mark.parametrize("changes", [{"uid": 0}, {"gid": 0}, ROOT])
@pytest.mark.parametrize("options", [[], ["--netns", "/proc/self/ns/net"]])
def test_not_in_the_hosts_network_namespace(jail, changes, options):
    """There root's services listen on abstract sockets, and do what root says."""
    jail.own_network = False
    assert "--new-netns" in jail.refused(options=options, changes=changes)


def test_in_a_named_network_namespace(tmp_path):
    """Also with the jailer in it already, as Kata's is."""
    name = f"mote-root-{os.getpid()}"
    jail = Jail(tmp_path)
    jail.own_network = False
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        options = ["--netns", f"/run/netns/{name}"]
        assert jail.attempt("interfaces", options=options, changes=ROOT) == ["lo"]
        # That this is not the host's is seen by who may look at the first process.
        for given in ([], options) if os.access("/proc/1/ns/net", os.R_OK) else ():
            inside = subprocess.run(["ip", "netns", "exec", name,
                                     *jail.command("interfaces", options=given, **ROOT)],
                                    capture_output=True, text=True, check=True)
            assert inside.stdout.split() == ["lo"]
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)

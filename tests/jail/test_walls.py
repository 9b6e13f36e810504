# SPDX-License-Identifier: Apache-2.0
"""
A program that tries to get out, in the place of mote-vmm in the real jail: one test for each way. The
names of these tests are what docs/security.md refers to.
"""
import ctypes
import json
import os
import pathlib
import select
import signal
import socket
import stat
import subprocess

import pytest

from jail import GID, LOCKED, MEMORY, PAYLOAD, UID, Jail, cgroups
from support import TIME_LIMIT, TOP

MIB = 1 << 20


def outside(*arguments):
    """The same without a jail, to show that the jail is what refuses."""
    return subprocess.run([PAYLOAD, *arguments], capture_output=True, text=True,
                          check=True).stdout.split()


def end(process):
    """Has the jailer kill what it jails, and remove it all."""
    process.send_signal(signal.SIGQUIT)
    assert process.wait(TIME_LIMIT) == -signal.SIGKILL


def test_host_files_by_absolute_path(jail):
    assert outside("open", "/etc/passwd") == ["done"]
    for path in ("/etc/passwd", TOP, jail.base, "/proc/self/mem", "/sys", "/tmp"):
        assert jail.attempt("open", path) == ["ENOENT"]


def test_host_files_by_relative_path(jail):
    assert outside("open-relative", "/etc/passwd") == ["done", "done"]
    assert jail.attempt("open-relative", "/etc/passwd") == ["ENOENT", "ENOENT"]


def test_symbolic_link_to_the_host(jail):
    """Neither one that the jailed program makes, nor one that its owner left in its root."""
    assert jail.attempt("symlink", "/etc/passwd") == ["EACCES"]
    jail.root.mkdir(parents=True)
    (jail.root / "link").symlink_to("/etc/passwd")
    (jail.root / "up").symlink_to("../../../../../../../../etc/passwd")
    assert jail.attempt("open", "/link") == ["ENOENT"]
    assert jail.attempt("open", "/up") == ["ENOENT"]
    (jail.root / "link").unlink()
    (jail.root / "up").unlink()
    jail.root.rmdir()
    jail.home.rmdir()


def test_proc_is_not_there(jail):
    assert outside("proc", "/etc/passwd")[0] == "done"
    assert jail.attempt("proc", "/etc/passwd") == ["ENOENT", "ENOENT"]


def test_chroot_and_fchdir_out(jail):
    assert jail.attempt("chroot") == ["EPERM", "ENOENT"]


def test_mknod(jail):
    assert jail.attempt("mknod") == ["EPERM", "EPERM"]


def test_mount(jail):
    assert jail.attempt("mount") == ["EPERM"] * 8


def test_setuid_back(jail):
    assert jail.attempt("setuid") == ["EPERM"] * 5


def test_ptrace(jail):
    assert jail.attempt("ptrace", os.getpid()) == ["EPERM"] * 3


def test_kill_a_host_process(jail):
    with subprocess.Popen(["sleep", "1000"]) as bystander:
        assert jail.attempt("kill", bystander.pid) == ["ESRCH"] * 3
        assert bystander.poll() is None
        assert outside("end", "0") == []
        bystander.kill()


def test_host_processes_are_not_seen(jail):
    """It is the first of its PID namespace, and alone in it."""
    assert int(outside("processes")[1]) > 1
    assert jail.attempt("processes") == ["1", "1"]


@pytest.fixture
def abstract():
    name = f"mote-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0" + name)
        server.listen()
        yield name


def test_abstract_sockets_of_the_host(jail, abstract):
    assert outside("abstract", abstract) == ["done"]
    assert jail.attempt("abstract", abstract) == ["ECONNREFUSED"]


def landlock_version():
    return ctypes.CDLL(None).syscall(444, None, 0, 1)


def test_landlock_keeps_abstract_sockets_of_a_shared_network_namespace(jail, abstract):
    """A wall behind the network namespace, where the kernel has it."""
    expected = "EPERM" if landlock_version() >= 6 else "done"
    assert jail.attempt("abstract", abstract,
                        options=["--netns", "/proc/self/ns/net"]) == [expected]


def test_sockets_other_than_unix(jail):
    assert outside("raw")[0] == "done"
    assert jail.attempt("raw") == ["EAFNOSUPPORT"] * 6


def test_sockets_by_io_uring_reach_nothing(jail):
    """No filter sees what is asked of a ring: the namespace is the wall."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        # ENOMEM and the others: a jail, or a machine, without rings.
        assert outside("ring-socket", port)[0] in ("done", "ENOSYS", "EPERM")
        assert jail.attempt("ring-socket", port)[0] in (
            "ENETUNREACH", "ECONNREFUSED", "EACCES", "ENOMEM", "ENOSYS", "EPERM")


def test_network_interfaces_of_the_host(jail):
    assert jail.attempt("interfaces") == ["lo"]


def test_network_of_the_caller(jail):
    """As Firecracker's: taps that others made are there."""
    jail.own_network = False
    assert set(jail.attempt("interfaces")) == set(os.listdir("/sys/class/net"))


def test_network_namespace_given(jail):
    name = f"mote-jail-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "tuntap", "add", "tap7", "mode", "tap"], check=True)
        seen = jail.attempt("interfaces", options=["--netns", f"/run/netns/{name}"])
        assert seen == ["lo", "tap7"]
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def test_kernel_keys(jail):
    libc = ctypes.CDLL(None, use_errno=True)
    key = libc.syscall(248, b"user", b"mote-secret", b"x", 1, -3)  # add_key, session keyring
    if key < 0:
        assert ctypes.get_errno() == 38  # a kernel without keys
    else:
        assert outside("keys", "mote-secret")[0] == "done"
    assert jail.attempt("keys", "mote-secret") == ["EPERM"] * 4


def test_bpf(jail):
    assert outside("bpf") == ["done"]
    assert jail.attempt("bpf") == ["EPERM"]


def test_perf(jail):
    assert jail.attempt("perf") == ["EPERM"]


def test_userfaultfd(jail):
    assert outside("userfaultfd")[0] == "done"
    assert jail.attempt("userfaultfd") == ["EPERM", "ENOENT"]


def test_userfaultfd_when_asked_for(jail):
    if "userfaultfd" in pathlib.Path("/proc/misc").read_text():
        assert jail.attempt("userfaultfd", options=["--uffd"]) == ["done", "done"]
    else:
        assert "no userfaultfd" in jail.refused(options=["--uffd"])


def test_new_namespaces(jail):
    assert outside("namespaces")[0] == "done"
    assert jail.attempt("namespaces") == ["EPERM", "EPERM", "ENOSYS", "EPERM", "EPERM"]


def test_cgroup_escape(jail):
    assert jail.attempt("cgroup", options=["--cgroup", f"{MEMORY}={64 * MIB}"]) == [
        "ENOENT", "EPERM", "EPERM"]


def test_own_cgroup_is_the_root_of_its_namespace(jail):
    with jail.waiting(options=["--cgroup", f"{MEMORY}={64 * MIB}"]) as process:
        (place,) = cgroups(jail)
        assert (place / "cgroup.procs").read_text().split() == [str(jail.pid())]
        inside = os.readlink(f"/proc/{jail.pid()}/ns/cgroup")
        assert inside != os.readlink("/proc/self/ns/cgroup")
        end(process)


def test_filling_the_disk(jail):
    assert jail.attempt("fill", options=["--resource-limit", f"fsize={3 * MIB}"]) == [
        "EFBIG", str(3 * MIB)]


def test_forking_is_limited_by_the_cgroup(jail):
    assert jail.attempt("fork", options=["--cgroup", "pids.max=4"]) == ["EAGAIN", "3"]


def test_forking_is_limited_by_the_user(jail):
    assert jail.attempt("fork", options=["--resource-limit", "nproc=6"],
                        changes={"uid": 64099}) == ["EAGAIN", "5"]


def test_eating_memory_kills_only_that_jail(jail, tmp_path):
    other = type(jail)(tmp_path)
    limit = ["--cgroup", f"{MEMORY}={32 * MIB}"]
    with other.waiting(options=limit) as bystander:
        eater = jail.run("eat", options=limit)
        assert eater.returncode == -9 and eater.stdout == ""
        assert bystander.poll() is None
        end(bystander)


def test_inherited_descriptors(jail):
    """Of what the caller has open only what --keep-fd names, and the standard ones."""
    with open("/etc/passwd", "rb") as secret, open("/dev/null", "rb") as kept:
        for file in (secret, kept):
            os.set_inheritable(file.fileno(), True)
        seen = jail.attempt("descriptors", options=["--keep-fd", kept.fileno()], close_fds=False)
        assert seen == ["0", "1", "2", str(kept.fileno())]
        assert jail.attempt("descriptors", close_fds=False) == ["0", "1", "2"]


def test_errors_are_recorded(jail):
    """For whoever does not read what is meant for people; the VMM has the descriptor, too."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as records:
        seen = jail.attempt("descriptors", options=["--record-fd", writer], pass_fds=[writer])
        assert seen == ["0", "1", "2", str(writer)]
        sentence = jail.refused(options=["--record-fd", writer], pass_fds=[writer],
                                changes={"exec_file": "/nowhere/mote-vmm"})
        os.close(writer)
        lines = records.readlines()
    assert [json.loads(line) for line in lines] == [{"event": "error", "error": sentence}]


def test_directory_as_a_descriptor_is_refused(jail):
    fd = os.open("/", os.O_RDONLY)
    path = os.open("/etc/passwd", os.O_PATH)
    try:
        for number in (fd, path):
            assert "leads out of the jail" in jail.refused(options=["--keep-fd", number],
                                                           pass_fds=[fd, path])
        assert "descriptor 0: a directory" in jail.refused(stdin=fd)
    finally:
        os.close(fd)
        os.close(path)


def test_what_is_writable_cannot_be_executed(jail):
    assert jail.attempt("execute") == ["EACCES", "EPERM", "EACCES"]


def test_only_files_and_sockets_can_be_made(jail):
    assert jail.attempt("make") == ["EACCES", "EPERM", "ENOENT", "EROFS", "EROFS"]


def test_own_program_can_neither_be_read_nor_changed(jail):
    read, write, truncate, *names = jail.attempt("own-program", f"/{PAYLOAD.name}")
    assert (read, write, names) == ("EACCES", "EACCES", ["EBUSY", "EXDEV"])
    assert truncate in ("EACCES", "EROFS")  # a newer Landlock comes before the mount


def test_read_only_root(jail):
    assert jail.attempt("create", "/run/file", options=["--read-only-root"]) == ["done"]
    assert not jail.root.exists()
    assert jail.attempt("create", "/file", options=["--read-only-root"]) == ["EROFS"]


def test_nothing_is_left_of_roots_privileges(jail):
    state = dict(line.split() for line in
                 jail.run("state", options=["--resource-limit", "no-file=99"]).stdout.splitlines())
    assert state == {
        "capabilities": "0", "bounding": "0", "securebits": "ef", "no_new_privs": "1",
        "seccomp": "2", "dumpable": state["dumpable"], "groups": "0", "uid": str(UID),
        "gid": str(GID), "core": "1", "memlock": str(LOCKED), "no_file": "99", "session": "1",
        "environment": "0"}
    # Where fs.suid_dumpable is 2 only root may read a dump.
    assert state["dumpable"] == pathlib.Path("/proc/sys/fs/suid_dumpable").read_text().strip()
    assert state["dumpable"] != "1"


def test_groups_of_the_caller_are_left(jail):
    state = jail.run("state", extra_groups=[10, 12345]).stdout
    assert "groups 0\n" in state


def test_every_namespace_is_its_own(jail):
    with jail.waiting() as process:
        for kind in ("mnt", "pid", "ipc", "uts", "cgroup", "net"):
            inside = os.readlink(f"/proc/{jail.pid()}/ns/{kind}")
            assert inside != os.readlink(f"/proc/self/ns/{kind}"), kind
            assert inside != os.readlink(f"/proc/{process.pid}/ns/{kind}"), kind
        end(process)


@pytest.mark.parametrize("read_only", [False, True])
def test_mounts_of_the_jail(jail, read_only):
    """The root without programs, /dev and the program without writing, nothing else."""
    with jail.waiting(options=["--read-only-root"] if read_only else []) as process:
        mounts = {}
        for line in pathlib.Path(f"/proc/{jail.pid()}/mountinfo").read_text().splitlines():
            fields = line.split()
            mounts[fields[4]] = set(fields[5].split(",")) - {"relatime"}
            # Into a root that is not read-only its owner may mount, and it shows nothing.
            assert "shared:" not in line
            assert "master:" not in line or (fields[4] == "/" and not read_only)
        end(process)
    root = {"/": {"ro", "nosuid", "nodev", "noexec"}, "/run": {"rw", "nosuid", "nodev", "noexec"}} \
        if read_only else {"/": {"rw", "nosuid", "noexec"}}
    assert mounts == {**root, "/dev": {"ro", "nosuid", "noexec"},
                      f"/{PAYLOAD.name}": {"ro", "nosuid", "nodev"}}


def test_device_nodes_are_only_those_needed(jail):
    def nodes(*options):
        with jail.waiting(options=options) as process:
            found = {}
            for path in (jail.root / "dev").rglob("*"):
                status = path.stat()
                if stat.S_ISCHR(status.st_mode):
                    found[path.name] = status.st_rdev
                    assert (status.st_uid, status.st_gid) == (UID, GID)
                    assert stat.S_IMODE(status.st_mode) == 0o600
            end(process)
        return found

    kvm, tun = os.makedev(10, 232), os.makedev(10, 200)
    assert nodes() == {"kvm": kvm}
    assert nodes("--tun") == {"kvm": kvm, "tun": tun}
    assert nodes("--netns", "/proc/self/ns/net") == {"kvm": kvm, "tun": tun}
    jail.own_network = False
    assert nodes() == {"kvm": kvm, "tun": tun}


@pytest.mark.parametrize("read_only", [False, True])
def test_owner_brings_devices_and_mounts_later(tmp_path, read_only):
    """A drive that is a device node, or is mounted, while the VMM runs; not into mote run's jails."""
    subprocess.run(["mount", "-t", "tmpfs", "jails", tmp_path], check=True)
    try:
        subprocess.run(["mount", "--make-shared", tmp_path], check=True)
        (tmp_path / "disk").write_text("disk")
        jail = Jail(tmp_path / "base")
        with jail.waiting(options=["--read-only-root"] if read_only else []) as process:
            inside = pathlib.Path(f"/proc/{jail.pid()}/root")
            os.mknod(jail.root / "node", stat.S_IFCHR | 0o600, os.makedev(1, 3))
            (jail.root / "late").touch()
            subprocess.run(["mount", "--bind", tmp_path / "disk", jail.root / "late"], check=True)
            try:
                assert (inside / "late").read_text() == ("" if read_only else "disk")
                if read_only:
                    with pytest.raises(PermissionError):
                        (inside / "node").read_bytes()
                else:
                    assert (inside / "node").read_bytes() == b""
            finally:
                subprocess.run(["umount", jail.root / "late"], check=True)
            (jail.root / "late").unlink()
            (jail.root / "node").unlink()
            end(process)
        assert not jail.home.exists()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_terminal_cannot_be_made_its_own(jail):
    """As a session's leader it could, if it is that of no session yet, and then type into it."""
    primary, secondary = os.openpty()
    try:
        assert jail.attempt("terminal", stdin=secondary) == ["EPERM", "EPERM"]
        assert select.select([secondary], [], [], 0)[0] == []
    finally:
        os.close(primary)
        os.close(secondary)


def test_dumps_cannot_be_allowed_again(jail):
    assert jail.attempt("dumpable") == ["done", "EPERM"]


def test_terminal_cannot_be_typed_into(jail):
    """It is no session's terminal in the jail, so that TIOCSTI is for root only."""
    primary, secondary = os.openpty()
    try:
        with jail.waiting() as process:
            fields = pathlib.Path(f"/proc/{jail.pid()}/stat").read_text().rsplit(")", 1)[1].split()
            assert int(fields[3]) == jail.pid() and int(fields[4]) == 0  # session, terminal
            end(process)
    finally:
        os.close(primary)
        os.close(secondary)

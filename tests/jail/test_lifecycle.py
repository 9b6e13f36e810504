# SPDX-License-Identifier: Apache-2.0
"""From the jailer's start to its end, whoever ends it and when: nothing is left."""
import os
import pathlib
import resource
import signal
import subprocess

import pytest

from jail import CGROUP_VERSION, CGROUPS, GID, MEMORY, PAYLOAD, UID, Jail, cgroups
from support import BUILD, TIME_LIMIT, wait_until

KILL_AT = BUILD.parent / "kill_at"
LIMIT = ["--cgroup", f"{MEMORY}=64M", "--cgroup", "pids.max=16"]


@pytest.mark.parametrize("status", [0, 1, 7, 125, 148, 255])
def test_exit_status_is_the_vmms(jail, status):
    assert jail.run("end", status).returncode == status


def test_death_by_a_signal_is_the_jailers_too(jail):
    assert jail.run("signal").returncode == -signal.SIGILL


def test_standard_streams_are_the_vmms(jail):
    result = jail.run("open", "/etc/passwd")
    assert (result.stdout, result.stderr) == ("ENOENT\n", "")


def test_end_of_output_is_the_vmms(jail):
    """The jailer does not keep a pipe open that the VMM has closed."""
    with jail.waiting() as process:
        os.kill(jail.pid(), signal.SIGKILL)
        assert process.stdout.read() == ""
        assert process.wait(TIME_LIMIT) == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1,
                                    signal.SIGUSR2, signal.SIGALRM])
def test_signals_are_passed_on(jail, number):
    """To a handler only: the first process of a PID namespace has no default actions."""
    with subprocess.Popen(jail.command("signals"), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        assert process.stdout.readline() == f"{int(number):02}\n"
        process.send_signal(signal.SIGQUIT)
        assert process.wait(TIME_LIMIT) == -signal.SIGKILL


@pytest.mark.parametrize("number", [
    signal.SIGXCPU, signal.SIGXFSZ, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR, signal.SIGSTKFLT,
    signal.SIGTRAP, signal.SIGRTMIN, signal.SIGRTMAX])
def test_other_signals_end_the_vm_and_its_jail(jail, number):
    """Whatever would kill the jailer must not leave anything, as the fixture and this see."""
    with jail.waiting(options=LIMIT) as process:
        process.send_signal(number)
        assert process.wait(TIME_LIMIT) == -signal.SIGKILL
        assert not jail.home.exists() and not cgroups(jail)


@pytest.mark.skipif(CGROUP_VERSION != 1, reason="what is frozen in version 2 dies when it is killed")
def test_frozen_vm_is_ended(jail):
    with jail.waiting(options=["--cgroup", "freezer.state=THAWED", "--cgroup", "pids.max=16"]) as process:
        state = CGROUPS / "freezer" / jail.exec_file.name / jail.id / "freezer.state"
        state.write_text("FROZEN")
        wait_until(lambda: state.read_text() == "FROZEN\n", "the VMM to be frozen")
        process.send_signal(signal.SIGQUIT)
        try:
            assert process.wait(TIME_LIMIT) == -signal.SIGKILL
        finally:
            if state.exists():
                state.write_text("THAWED")


def limit_softly(what, most):
    resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


def test_program_larger_than_a_file_may_be(jail):
    said = jail.refused(preexec_fn=lambda: limit_softly(resource.RLIMIT_FSIZE, 10 << 10))
    assert said.endswith("File too large")


@pytest.mark.release_build  # a shared library of the sanitizer's is a descriptor more
@pytest.mark.parametrize("most", [*range(3, 24), 64])
def test_few_descriptors(jail, most):
    """It starts, or says why not, and leaves nothing."""
    result = jail.run("end", 7, options=LIMIT,
                      preexec_fn=lambda: limit_softly(resource.RLIMIT_NOFILE, most))
    if most == 64 or result.returncode == 7:
        assert result.returncode == 7
        assert result.stderr == ""
    else:
        assert result.stderr.endswith(": Too many open files\n") and result.stderr.count("\n") == 1
    assert not jail.home.exists() and not cgroups(jail)


def test_killed_jailer_takes_the_vm_with_it(jail):
    with jail.waiting(options=LIMIT) as process:
        vmm = jail.pid()
        process.kill()
        process.wait(TIME_LIMIT)
        wait_until(lambda: not pathlib.Path(f"/proc/{vmm}").exists(), "the VMM's end")
    assert jail.home.exists() and cgroups(jail)
    assert jail.attempt("descriptors", options=LIMIT) == ["0", "1", "2"]


def test_what_a_killed_jailer_left_can_be_removed(jail):
    with jail.waiting(options=[*LIMIT, "--tun"]) as process:
        assert "a jail of this id is running" in jail.refused(options=[*LIMIT, "--remove"])
        process.kill()
        process.wait(TIME_LIMIT)
        assert jail.home.exists() and cgroups(jail)
        assert jail.attempt("end", 7, options=[*LIMIT, "--remove"]) == []
        assert not jail.home.exists() and not cgroups(jail)
    # Nothing to remove is fine, too.
    assert jail.attempt(options=[*LIMIT, "--remove"]) == []


def test_next_jail_need_not_wait_for_a_killed_ones_end(jail):
    for _ in range(10):
        with jail.waiting(options=LIMIT) as process:
            process.kill()
            # The id is free with the jailer's end, which the VMM's follows.
            process.wait(TIME_LIMIT)
            assert jail.attempt("descriptors", options=LIMIT) == ["0", "1", "2"]


@pytest.mark.release_build
@pytest.mark.parametrize("who", ["keeper", "prisoner"])
def test_killed_at_every_system_call(jail, who):
    """
    The jailer, or its child, ends by SIGKILL at each system call that it makes: then all of it has
    ended, and a jail of the same id works, and leaves nothing.
    """
    options = [*LIMIT, "--tun"]
    outcome, at = "killed", 0
    while outcome == "killed":
        at += 1
        outcome = subprocess.run([KILL_AT, str(at), who, *jail.command("end", 0, options=options)],
                                 capture_output=True, text=True, check=True,
                                 timeout=TIME_LIMIT).stdout.strip()
        if who == "prisoner" or outcome == "over":
            assert not jail.home.exists() and not cgroups(jail), at
        # While parts of it are removed it is not its user's, whose processes could change them.
        if jail.root.exists() and not (jail.root / "run").exists():
            assert jail.root.stat().st_uid == os.geteuid(), at
        assert jail.attempt("descriptors", options=options) == ["0", "1", "2"], at
        assert not jail.home.exists() and not cgroups(jail), at
    assert at > 150


def test_what_the_vmm_left_in_run_goes(jail):
    """Of a root that is read-only otherwise; also what a killed jailer has left there."""
    options = [*LIMIT, "--read-only-root"]
    assert jail.attempt("create", "/run/file", options=options) == ["done"]
    assert not jail.home.exists()
    with jail.waiting(options=options) as process:
        tree = jail.root / "run" / "a" / "b"
        tree.mkdir(parents=True)
        (tree / "file").touch()
        (jail.root / "run" / "link").symlink_to(jail.base)
        process.kill()
        process.wait(TIME_LIMIT)
        assert jail.attempt("end", 7, options=[*options, "--remove"]) == []
    assert jail.base.is_dir() and not jail.home.exists()


def test_files_of_the_owner_stay(tmp_path):
    """What was put into the root beforehand is there for the VMM, and afterwards for the owner."""
    jail = Jail(tmp_path)
    jail.root.mkdir(parents=True)
    (jail.root / "disk").write_text("contents")
    os.chown(jail.root / "disk", UID, GID)
    assert jail.attempt("open", "/disk") == ["done"]
    assert jail.attempt("overwrite", "/disk") == ["done"]
    assert jail.attempt("create", "/log") == ["done"]
    assert {path.name for path in jail.root.iterdir()} == {"disk", "log"}
    assert (jail.root / "disk").read_text() == "contents"
    assert (jail.root.stat().st_uid, jail.root.stat().st_gid) == (UID, GID)


def test_files_come_in_while_the_vm_runs(jail):
    with jail.waiting() as process:
        (jail.root / "late").write_text("x")
        assert pathlib.Path(f"/proc/{jail.pid()}/root/late").exists()
        (jail.root / "late").unlink()
        process.send_signal(signal.SIGQUIT)
        process.wait(TIME_LIMIT)


def test_layout_is_firecrackers(jail):
    with jail.waiting(options=["--tun"]) as process:
        root = jail.base / PAYLOAD.name / jail.id / "root"
        assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == [
            "dev", "dev/kvm", "dev/net", "dev/net/tun", "payload", "payload.pid", "run"]
        assert (root.stat().st_uid, root.stat().st_mode & 0o7777) == (UID, 0o700)
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        assert children.split() == [(root / "payload.pid").read_text()]
        process.send_signal(signal.SIGQUIT)
        process.wait(TIME_LIMIT)


def test_arguments_of_the_vmm(jail):
    command = jail.run("arguments", "--", "-x", "").stdout.splitlines()
    assert command[0] == PAYLOAD.name
    assert command[1:3] == ["--id", jail.id]
    assert command[3] == "--start-time-us" and command[4].isdigit()
    assert command[5] == "--start-time-cpu-us" and command[6].isdigit()
    assert command[7:] == ["arguments", "--", "-x", ""]


def test_daemonize(jail):
    """The jailer returns when the VMM runs; in the background another of it looks after that."""
    result = jail.run("wait", options=["--daemonize", *LIMIT])
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    vmm = jail.pid()
    for fd in range(3):
        assert os.readlink(f"/proc/{vmm}/fd/{fd}") == "/dev/null"
    os.kill(vmm, signal.SIGKILL)
    wait_until(lambda: not jail.home.exists(), "the end of the jail")
    wait_until(lambda: not cgroups(jail), "the end of its cgroup")


def test_daemonize_says_what_failed(jail):
    assert "exec in the jail" in jail.refused(
        options=["--daemonize"], changes={"exec_file": "/usr/bin/python3.11"})
    assert "no_such" in jail.refused(options=["--daemonize", "--cgroup", "memory.no_such=1"])


def test_firecrackers_options_are_taken(jail):
    options = ["--new-pid-ns", "--resource-limit", "fsize=1000000", "--resource-limit",
               "no-file=100", "--cgroup", "pids.max=9", "--parent-cgroup", f"{PAYLOAD.name}"]
    assert jail.attempt("descriptors", options=options) == ["0", "1", "2"]


def test_parent_cgroup_without_limits_of_its_own(jail):
    """The parent's hold; where there is no one parent, that is said."""
    parent = f"test-parent-{os.getpid()}"
    options = ["--parent-cgroup", parent]
    if CGROUP_VERSION == 1:
        assert "in version 1 it goes with --cgroup" in jail.refused(options=options)
        return
    folder = CGROUPS / parent
    try:
        with jail.waiting(options=options) as process:
            assert (folder / jail.id / "cgroup.procs").read_text().split() == [str(jail.pid())]
            process.send_signal(signal.SIGQUIT)
            process.wait(TIME_LIMIT)
        assert [path for path in folder.iterdir() if path.is_dir()] == []
    finally:
        folder.rmdir()


def test_cgroup_where_its_file_system_is_hidden(jail):
    """As `ip netns exec` hides it, which mounts another /sys."""
    hidden = ["unshare", "--mount", "sh", "-ec", 'mount -t tmpfs none /sys; exec "$@"', "sh"]
    with subprocess.Popen([*hidden, *jail.command("wait", options=LIMIT)],
                          stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "waiting\n"
        assert {(place / "cgroup.procs").read_text().strip() for place in cgroups(jail)} == {
            str(jail.pid())}
        process.send_signal(signal.SIGQUIT)
        process.wait(TIME_LIMIT)


def test_started_with_closed_descriptors_and_ignored_signals(jail):
    """As some parents leave them."""
    def spoil():
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
        os.close(0)
        os.close(2)

    result = subprocess.run(jail.command("descriptors"), stdout=subprocess.PIPE, text=True,
                            preexec_fn=spoil, timeout=TIME_LIMIT, check=True)
    assert result.stdout.split() == ["0", "1", "2"]

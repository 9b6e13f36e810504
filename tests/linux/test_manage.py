# SPDX-License-Identifier: Apache-2.0
"""What is done to running microVMs: exec, ps, kill, logs, stats; and what crashes leave behind."""
import contextlib
import fcntl
import json
import os
import pathlib
import select
import signal
import subprocess
import time

import pytest

from managed import detached, listed, one, runtime, sh, start  # noqa: F401
from support import MOTE, TIME_LIMIT, processes, run_mote, wait_until


def others(*options):
    """Of what is listed, all but the one that is shared."""
    return {name: vm for name, vm in listed(*options).items() if name != "one"}


def other_vmms():
    """VMMs besides that of the one that is shared, which is its jailer's child."""
    shared = {int(child) for name, vm in listed().items() if name == "one" for child in pathlib.Path(
        f"/proc/{vm['vmm_pid']}/task/{vm['vmm_pid']}/children").read_text().split()}
    return set(processes("mote-vmm")) - shared


def left_overs(runtime):
    """Of microVMs that no list knows: their folders, jails and cgroups."""
    known = {vm["id"] for vm in listed("--all").values()}
    jails = runtime.parent / "jail" / "mote-vmm"
    return {str(path) for path in [*runtime.iterdir(), *jails.glob("*"),
                                   *pathlib.Path("/sys/fs/cgroup").glob("mote-vmm/*/"),
                                   *pathlib.Path("/sys/fs/cgroup").glob("*/mote-vmm/*/")]
            if path.name not in known}


def test_exec_has_input_output_and_status(one):
    result = run_mote("exec", "-e", "A=b c", "-u", "nobody", "-w", "/tmp", one, "sh", "-c",
                      'cat; echo "$A $(id -un) $PWD" >&2; exit 9', stdin=b"through")
    assert (result.returncode, result.stdout, result.stderr) == (9, b"through", b"b c nobody /tmp\n")


@pytest.mark.parametrize("arguments, status, text", [
    (["one", "--", "/no/such"], 127, b"mote: /no/such: No such file or directory\n"),
    (["one", "/etc/passwd"], 126, b"mote: /etc/passwd: Permission denied\n"),
    (["--timeout", "200ms", "one", "sleep", "100"], 124,
     b"mote: the command was killed as its time was over\n"),
    (["nosuch", "true"], 125, b"mote: microVM nosuch: there is none of this name\n"),
    (["one"], 2, b"mote exec: NAME COMMAND: both are expected; see mote exec --help\n"),
])
def test_exec_that_fails(one, arguments, status, text):
    result = run_mote("exec", *arguments)
    assert (result.returncode, result.stderr) == (status, text)


def test_exec_tells_what_it_took(one, tmp_path):
    result = run_mote("exec", "--json-result", one, "sh", "-c", "cat; exit 3", stdin=b"abc")
    value = json.loads(result.stderr)
    assert (result.returncode, value["exit_status"], value["code"]) == (3, 3, 3)
    assert value["stdin_bytes"] == value["stdout_bytes"] == 3 and value["memory_peak_bytes"] > 0
    path = tmp_path / "result"
    assert run_mote("exec", f"--json-result={path}", "nosuch", "true").returncode == 125
    value = json.loads(path.read_text())
    assert value["exit_status"] == 125 and "there is none" in value["error"]


def test_exec_on_a_terminal_that_is_none(one):
    """The program has one, with the usual size."""
    result = run_mote("exec", "--tty", "--interactive", one, "sh", "-c", "stty size; exit 4")
    assert (result.returncode, result.stdout) == (4, b"24 80\r\n")


def test_exec_in_the_background(one):
    assert run_mote("exec", "-d", one, "sleep", "1234").returncode == 0
    assert "sleep 1234" in sh(one, "ps -o args")
    assert run_mote("exec", "-d", one, "nosuch").returncode == 127
    sh(one, "kill $(ps -o pid,args | awk '/sleep 1234/ && !/awk/ { print $1 }')")


def test_names_ids_and_their_beginnings(one):
    vm = listed()[one]
    for name in (one, "on", vm["id"], vm["id"][:8]):
        assert run_mote("exec", name, "true").returncode == 0
    with detached("--name", "onion") as other:
        result = run_mote("exec", "on", "true")
        assert result.returncode == 125
        assert result.stderr == b"mote: microVM on: the names of several begin so\n"
        # A whole name is not the beginning of another one.
        assert sh("one", "hostname") == "one\n" and sh(other, "hostname") == "onion\n"


def test_memory_does_not_go_on_in_swap(one):
    if not pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("version 1 of cgroups limits swap on request of the kernel's command line only")
    place = pathlib.Path("/sys/fs/cgroup/mote-vmm") / listed()[one]["id"]
    assert (place / "memory.max").read_text() == f"{(300 + 256) << 20}\n"
    assert (place / "memory.swap.max").read_text() == "0\n"


def test_inspect_says_what_it_is(one):
    vm = json.loads(run_mote("inspect", one).stdout)[0]
    assert [vm] == json.loads(run_mote("inspect", "--json", one).stdout)
    assert vm["name"] == one and vm["memory_mib"] == 300 and vm["running"]
    assert vm["state"] == "running" and vm["image"] == "(busybox)"
    answer = run_mote("api", "--socket", vm["api"], "GET", "/")
    assert json.loads(answer.stdout)["state"] == "Running"


def test_stats_of_host_and_guest(one):
    stats = json.loads(run_mote("stats", "--json", one).stdout)[0]
    assert stats["host_cpu_us"] > 0 and stats["host_memory_bytes"] > 10 << 20
    assert 200 << 20 < stats["guest"]["memory_total_bytes"] < 300 << 20
    assert stats["guest"]["processes"] > 1
    assert run_mote("stats").stdout.decode().splitlines()[1].startswith(one)


def test_paused_is_said(one):
    path = json.loads(run_mote("inspect", one).stdout)[0]["api"]
    resume = ("api", "--socket", path, "PATCH", "/vm", '{"state": "Resumed"}')
    assert run_mote(*resume[:-1], '{"state": "Paused"}').returncode == 0
    try:
        sentence = f"microVM one: it is paused (mote api --socket {path} PATCH /vm " \
                   "'{\"state\": \"Resumed\"}' lets it go on)"
        for command, status in ((("exec", one, "--", "true"), 125), (("cp", f"{one}:/etc/passwd", "-"), 1)):
            result = run_mote(*command)
            assert (result.returncode, result.stderr.decode()) == (status, f"mote: {sentence}\n")
        assert listed()["one"]["state"] == "paused"
        assert run_mote("stats", one).stdout.splitlines()[1].endswith(b"  paused")
    finally:
        assert run_mote(*resume).returncode == 0
    assert listed()["one"]["state"] == "running" and sh(one, "echo on") == "on\n"


def test_logs_of_console_and_command():
    with detached("--", "sh", "-c", "echo out; echo err >&2; echo console > /dev/console; exit 4") as name:
        log = run_mote("logs", "--follow", name)
        assert log.returncode == 0
        assert sorted(log.stdout.decode().split()) == ["console", "err", "out"]
        wait_until(lambda: name in listed("--all") and not listed("--all")[name]["running"], "its end")
        assert listed("--all")[name]["exit_status"] == 4 and name not in listed()
        assert run_mote("logs", name).stdout == log.stdout
        lines = run_mote("logs", "--json", "--follow", name).stdout.splitlines()
        assert sorted(json.loads(line)["line"] for line in lines) == ["console", "err", "out"]
        result = run_mote("exec", name, "true")
        assert result.stderr == f"mote: microVM {name}: it has ended\n".encode()


def test_rm_with_detach_leaves_nothing(runtime):
    name = start("--rm", "--", "true")
    wait_until(lambda: name not in listed("--all"), "it to be forgotten")


def test_detached_holds_nothing_of_its_callers(tmp_path):
    """No lock, and no end of a pipe."""
    with open(tmp_path / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        reader, writer = os.pipe()
        name = run_mote("run", "--detach", pass_fds=[lock.fileno(), writer]).stdout.decode().strip()
        os.close(writer)
    try:
        assert name
        # At once: what would be held would be for as long as the VM runs.
        assert select.select([reader], [], [], 0)[0]
        with open(tmp_path / "lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(reader)
        run_mote("kill", "--force", name)
        run_mote("rm", name)


def test_detached_that_cannot_start_is_told():
    result = run_mote("run", "--detach", "--kernel", "/etc/passwd", "--", "true")
    assert result.returncode == 125
    assert result.stderr == b"mote: kernel image /etc/passwd: not an ELF or bzImage file\n"
    assert not others("--all")


def test_kill_gives_programs_their_time():
    with detached("--", "sh", "-c", "trap 'echo bye; exit 0' TERM; echo ready; "
                  "while :; do sleep 0.1; done") as name:
        wait_until(lambda: b"ready" in run_mote("logs", name).stdout, "it to be ready")
        result = run_mote("kill", "--json", name)
        assert [vm["forced"] for vm in json.loads(result.stdout)] == [False]
        # A shell may tell of its `sleep`, which got the signal, too.
        assert b"bye\n" in run_mote("logs", name).stdout
        assert not others()


def test_kill_waits_for_volumes(tmp_path):
    with detached("-v", f"{tmp_path}:/work", "--", "sh", "-c", "trap 'echo bye > /work/said; exit 0' TERM; "
                  "echo ready; while :; do sleep 0.1; done") as name:
        wait_until(lambda: b"ready" in run_mote("logs", name).stdout, "it to be ready")
        result = run_mote("kill", "--json", name)
        assert [vm["forced"] for vm in json.loads(result.stdout)] == [False]
        assert (tmp_path / "said").read_text() == "bye\n"
        assert listed("--all")[name]["exit_status"] == 0
    with detached("-v", f"{tmp_path}:/work", "--", "sh", "-c", "trap '' TERM; echo ready; "
                  "while :; do sleep 1; done") as name:
        wait_until(lambda: b"ready" in run_mote("logs", name).stdout, "it to be ready")
        result = run_mote("kill", "--grace", "500ms", name)
        assert result.stderr == \
            f"mote: {name}: its command did not end, so its volumes do not come back\n".encode()
        assert not others()


def test_kill_gives_the_stop_signal():
    with detached("--stop-signal", "SIGUSR1", "--label", "a=b", "--", "sh", "-c",
                  "trap 'echo usr1; exit 5' USR1; trap 'echo hup' HUP; trap 'echo term; exit 6' TERM; "
                  "echo ready; while :; do sleep 0.1; done") as name:
        wait_until(lambda: b"ready" in run_mote("logs", name).stdout, "it to be ready")
        # Any number of them does not end it.
        for count in range(1, 4):
            assert run_mote("kill", "--signal", "HUP", name).returncode == 0
            wait_until(lambda n=count: run_mote("logs", name).stdout.count(b"hup") == n, "its word")
        assert json.loads(run_mote("inspect", name).stdout)[0]["labels"] == {"a": "b"}
        assert run_mote("kill", name).returncode == 0
        assert b"usr1\n" in run_mote("logs", name).stdout
        assert listed("--all")[name]["exit_status"] == 5


def test_signals_alone_do_not_end_a_detached_one(tmp_path):
    """Whatever they are; the end that follows is in order, and its volume comes back."""
    with detached("-v", f"{tmp_path}:/work", "--", "sh", "-c",
                  "trap 'echo int >> /work/log' INT; trap 'echo quit >> /work/log' QUIT; "
                  "trap 'echo end >> /work/log; exit 6' TERM; echo $$ > /tmp/pid; echo ready; while :; do sleep 0.1; done") as name:
        wait_until(lambda: b"ready" in run_mote("logs", name).stdout, "it to be ready")
        for count in range(1, 3):
            for number in "INT", "QUIT":
                assert run_mote("kill", "--signal", number, name).returncode == 0
                wait_until(lambda n=count, text=number.lower(): sh(
                    name, "cat /work/log || :").count(text) == n, "its word")
        assert run_mote("kill", "--signal", "TSTP", name).returncode == 0
        wait_until(lambda: sh(name, "cut -d ' ' -f 3 /proc/$(cat /tmp/pid)/stat") == "T\n", "it to stop")
        assert run_mote("kill", "--signal", "CONT", name).returncode == 0
        ended = json.loads(run_mote("kill", "--json", name).stdout)
        assert [vm["forced"] for vm in ended] == [False]
        assert listed("--all")[name]["exit_status"] == 6
    assert (tmp_path / "log").read_text() == "int\nquit\n" * 2 + "end\n"


def test_stop_timeout():
    with detached("--stop-timeout", "1s", "--", "sh", "-c",
                  "trap '' TERM; echo ready; while :; do sleep 1; done") as name:
        wait_until(lambda: b"ready" in run_mote("logs", name).stdout, "it to be ready")
        begin = time.monotonic()
        assert run_mote("kill", name).returncode == 0
        assert time.monotonic() - begin > 0.9
        assert not others()


def test_interrupted_before_a_detached_one_is_ready(tmp_path):
    (tmp_path / "much").write_bytes(bytes(100 << 20))
    with subprocess.Popen([MOTE, "run", "--detach", "-v", f"{tmp_path}:/work"], stdout=subprocess.PIPE) as mote:
        wait_until(lambda: others("--all"), "its supervisor to be there")
        mote.send_signal(signal.SIGINT)
        assert mote.wait(TIME_LIMIT) == -signal.SIGINT
    wait_until(lambda: not others("--all") and not other_vmms(), "nothing to be left")


def test_kill_by_force():
    with detached("--", "sh", "-c", "trap '' TERM; while :; do sleep 1; done") as name:
        begin = time.monotonic()
        assert run_mote("kill", "--force", name).returncode == 0
        assert time.monotonic() - begin < 5
        assert not others() and not other_vmms()
        assert run_mote("kill", name).returncode == 1


def test_kill_when_the_time_for_ending_is_over():
    with detached("--", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done") as name:
        wait_until(lambda: b"ready" in run_mote("logs", name).stdout, "it to be ready")
        begin = time.monotonic()
        assert run_mote("kill", "--grace", "1s", name).returncode == 0
        assert 0.9 < time.monotonic() - begin < 4
        assert not others()
    assert run_mote("kill", "--grace", "2m", name).returncode == 2


def start_and_kill(arguments, *, until=None, **kwargs):
    """Kills mote with SIGKILL when `until` holds, or at once."""
    with subprocess.Popen([MOTE, *map(str, arguments)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **kwargs) as process:
        if until:
            wait_until(until, "the right moment")
        process.send_signal(signal.SIGKILL)
        process.wait(TIME_LIMIT)


def test_killed_in_the_middle_of_run(runtime):
    """At several moments; afterwards ps is right and nothing is left."""
    for moment in range(6):
        seen = []
        start_and_kill(["run", "--name", "doomed", "--", "sleep", "1000"], until=(
            (lambda: seen.append(1) or len(seen) > moment) if moment < 5 else
            (lambda: listed().get("doomed", {}).get("state") == "running")))
        wait_until(lambda: not other_vmms(), "the VMM to die with mote")
        assert not others("--all")
        # The jailer may still be at it.
        wait_until(lambda: not left_overs(runtime), "the jail to be removed")


@pytest.mark.parametrize("victims", [["pid"], ["vmm_pid", "pid"], ["pid", "vmm_pid"]])
def test_killed_supervisor(runtime, victims):
    """Alone, or its jailer too, so that nobody is left to clean up."""
    name = start("--", "sleep", "1000")
    vm = listed()[name]
    for victim in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(vm[victim], signal.SIGKILL)
    wait_until(lambda: not other_vmms(), "the VMM to die with its supervisor")
    assert run_mote("exec", name, "true").returncode == 125
    assert not others("--all")
    wait_until(lambda: not left_overs(runtime), "the jail to be removed")


def test_killed_vmm_is_told(runtime):
    with detached("--", "sleep", "1000") as name:
        os.kill(listed()[name]["vmm_pid"], signal.SIGKILL)
        wait_until(lambda: name not in listed(), "its end to be noticed")
        vm = listed("--all")[name]
        assert vm["exit_status"] == 125 and vm["error"] == "mote-vmm was killed by signal KILL"
        # It was the jailer, and with it whoever removes the jail.
        assert not left_overs(runtime) and not (
            runtime.parent / "jail" / "mote-vmm" / vm["id"]).exists()


def test_killed_in_the_middle_of_other_commands(one, tmp_path):
    """The microVM goes on, and what they have started in it ends."""
    with open(tmp_path / "big", "wb") as big:
        big.truncate(1 << 30)
    start_and_kill(["exec", one, "sleep", "4321"], until=lambda: "sleep 4321" in sh(one, "ps -o args"))
    wait_until(lambda: "sleep 4321" not in sh(one, "ps -o args"), "the program to be killed")
    start_and_kill(["cp", tmp_path / "big", f"{one}:/tmp/cut"],
                   until=lambda: ".mote-" in sh(one, "ls -A /tmp"))
    wait_until(lambda: ".mote-" not in sh(one, "ls -A /tmp"), "the unfinished file to be removed")
    assert "cut" not in sh(one, "ls -A /tmp")
    for command in (["ps"], ["stats"], ["inspect", one], ["logs", "-f", one], ["kill", "nosuch"]):
        start_and_kill(command)
    assert not others("--all")
    assert sh(one, "echo good") == "good\n"

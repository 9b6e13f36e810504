# SPDX-License-Identifier: Apache-2.0
"""The agent in the guest, spoken to directly: programs, several at once, and bad clients."""
import contextlib
import hashlib
import json
import os
import signal
import struct

import pytest

from agent import (ERROR, EXIT, REQUEST, REQUEST_PART, RESULT, SIGNAL, STDIN, STDIN_END, STDIN_WINDOW, STDOUT, TAKEN,
                   WINDOW, start_guest)
from support import TIME_LIMIT, running, wait_until


@pytest.fixture(scope="module")
def guest(tmp_path_factory):
    with start_guest(tmp_path_factory.mktemp("guest"), memory=256) as one:
        yield one


@pytest.fixture(autouse=True)
def nothing_left(request):
    """Whatever a test does, the agent has no program and no control group left in the end."""
    yield
    if "guest" in request.fixturenames:
        one = request.getfixturevalue("guest")
        wait_until(lambda: len(one.sh("echo /sys/fs/cgroup/exec-*").split()) == 1,
                   "the control groups to be removed")


def test_streams_are_apart_and_the_status_exact(guest):
    output, errors, kind, end = guest.run("sh", "-c", "cat; echo problem >&2; exit 7",
                                          stdin=b"through")
    assert (output, errors, kind) == (b"through", b"problem\n", EXIT)
    assert end["code"] == 7 and not end["timed_out"] and not end["oom_killed"]


def test_program_is_told_what_the_request_says(guest):
    # Rows and columns, then what the shell finds.
    output = guest.sh('echo "$A|$HOME|$PWD|$(id -u):$(id -g)|$0|$1"', env=["A=b c"], cwd="/tmp",
                      user="nobody")
    assert output == "b c|/nonexistent|/tmp|65534:65534|sh|\n"
    assert guest.sh('echo "$HOME $(id -u):$(id -g):$(id -G)"', user="12:34") == "/ 12:34:34\n"
    assert guest.sh("id -u; id -g", user="0:nogroup") == "0\n65534\n"


@pytest.mark.parametrize("options, status, sentence", [
    ({"argv": ["/no/such"]}, 127, "/no/such: No such file or directory"),
    ({"argv": ["no-such"]}, 127, "no-such: No such file or directory"),
    ({"argv": ["/etc/passwd"]}, 126, "/etc/passwd: Permission denied"),
    ({"argv": ["/etc"]}, 126, "/etc: Permission denied"),
    ({"argv": ["true"], "cwd": "/no/such"}, 126,
     "working directory /no/such: No such file or directory"),
    ({"argv": ["true"], "user": "nosuch"}, 126, "user nosuch: there is none of this name"),
    ({"argv": ["true"], "user": "0:nosuch"}, 126, "group nosuch: there is none of this name"),
    ({"argv": []}, 125, "exec: argv: a list of strings is expected"),
    ({"argv": ["true"], "sudo": 1}, 125, "exec: "),
    ({}, 125, "exec: "),
])
def test_what_cannot_be_run_is_one_sentence(guest, options, status, sentence):
    with guest.stream() as stream:
        stream.request("exec", options)
        _, _, kind, error = stream.finish()
    assert kind == ERROR and error["status"] == status
    assert sentence in error["error"] and "\n" not in error["error"]


def test_twenty_programs_at_once(guest):
    """Each with input and output of its own; none waits for another."""
    text = [os.urandom(30000) for _ in range(20)]
    streams = [guest.start("sh", "-c", f"read go; sha256sum; exit {i}") for i in range(20)]
    for i in reversed(range(20)):
        streams[i].send(STDIN, b"go\n" + text[i])
        streams[i].send(STDIN_END)
    for i, stream in enumerate(streams):
        with stream:
            output, _, _, end = stream.finish()
        assert output.split()[0].decode() == hashlib.sha256(text[i]).hexdigest()
        assert end["code"] == i


def test_slow_reader_slows_its_program_only(guest):
    with guest.start("sh", "-c", "head -c 20000000 /dev/zero; echo done >&2") as slow:
        assert guest.sh("echo quick") == "quick\n"
        # It cannot have come to its end: what is on the way is bounded.
        kind, _ = slow.frame()
        assert kind == STDOUT
        assert "head" in guest.sh("ps -o args | grep '[h]ead -c 20000000'")
        output, errors, _, end = slow.finish()
    assert errors == b"done\n" and end["code"] == 0
    assert len(output) > 19000000


def test_neither_output_starves_the_other(guest):
    with guest.start("sh", "-c", "yes out & yes err >&2") as stream:
        seen = set()
        while len(seen) < 2:
            seen.add(stream.frame()[0])


def test_signal_reaches_a_program_that_does_not_read(guest):
    """Its input waits in the agent; what comes behind it is not held up."""
    with guest.start("sh", "-c", "trap 'echo caught; exit 3' INT; echo ready; "
                     "while :; do sleep 0.1; done") as stream:
        stream.wait_for(b"ready")
        for _ in range(STDIN_WINDOW // 65536):
            stream.send(STDIN, bytes(65536))
        stream.send(SIGNAL, bytes([signal.SIGINT]))
        output, _, _, end = stream.finish()
    assert output.endswith(b"caught\n") and end["code"] == 3


def test_input_of_many_windows(guest):
    data = os.urandom(STDIN_WINDOW * 5 + 12345)
    with guest.start("sha256sum") as stream:
        sent, window = 0, STDIN_WINDOW
        while sent < len(data):
            part = data[sent:sent + min(window, 65536)]
            if part:
                stream.send(STDIN, part)
                sent += len(part)
                window -= len(part)
            else:
                kind, payload = stream.frame()
                assert kind == TAKEN
                window += struct.unpack("<I", payload)[0]
        stream.send(STDIN_END)
        output, _, _, _ = stream.finish()
    assert output.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_more_input_than_the_window_is_refused(guest):
    with guest.start("sleep", "1000") as stream:
        for _ in range(STDIN_WINDOW // 65536 + 2):
            stream.send(STDIN, bytes(65536))
        _, _, kind, error = stream.finish()
    assert kind == ERROR and error["error"] == "a frame that cannot come here"
    wait_until(lambda: "sleep 1000" not in guest.sh("ps -o args"), "its end")


def test_terminal(guest):
    with guest.start("sh", "-c", "tty; stty size; trap 'stty size; exit 4' WINCH; echo ready; "
                     "while :; do sleep 0.1; done",
                     tty={"rows": 33, "columns": 111}) as stream:
        assert stream.wait_for(b"ready\r\n") == b"/dev/pts/0\r\n33 111\r\nready\r\n"
        stream.send(WINDOW, struct.pack("<HH", 44, 55))
        output, errors, _, end = stream.finish()
    assert (output, errors, end["code"]) == (b"44 55\r\n", b"", 4)


def test_interrupt_key_of_a_terminal(guest):
    with guest.start("sh", "-c", "trap 'exit 5' INT; echo ready; while :; do sleep 0.1; done",
                     tty=True) as stream:
        stream.wait_for(b"ready")
        stream.send(STDIN, b"\x03")
        assert stream.finish()[3]["code"] == 5


def test_end_of_input_of_a_terminal(guest):
    output, _, _, end = guest.run("sh", "-c", "cat; echo over", tty=True, stdin=b"line\n")
    assert output == b"line\r\nline\r\nover\r\n" and end["code"] == 0


def test_time_limit(guest):
    _, _, kind, end = guest.run("sh", "-c", "sleep 1000 & sleep 1000", timeout_ms=300)
    assert kind == EXIT and end["timed_out"] and end["signal"] == 9
    wait_until(lambda: "sleep 1000" not in guest.sh("ps -o args"), "its end")


def test_out_of_memory_is_told_apart_from_a_signal(guest):
    _, _, _, end = guest.run("sh", "-c", "tail /dev/zero")
    assert end["oom_killed"] and end["memory_peak_bytes"] > 100 << 20
    _, _, _, end = guest.run("sh", "-c", "kill -9 $$")
    assert end["signal"] == 9 and not end["oom_killed"]


def test_processor_time_and_memory_of_all_its_processes(guest):
    """Of those that nobody waited for, too."""
    _, _, _, end = guest.run("sh", "-c", """
        sh -c 'i=0; while [ $i -lt 10000 ]; do i=$((i+1)); done; echo done > /tmp/done' &
        while [ ! -e /tmp/done ]; do sleep 0.05; done; rm /tmp/done""")
    _, _, _, little = guest.run("true")
    assert end["user_us"] + end["system_us"] > 3 * (little["user_us"] + little["system_us"])
    _, _, _, much = guest.run("sh", "-c", "head -c 30000000 /dev/zero | tail -c 30000000 | wc -c")
    assert much["memory_peak_bytes"] > 30000000 > little["memory_peak_bytes"] > 0


def test_what_a_program_leaves_behind_ends_with_it(guest):
    output, _, _, end = guest.run("sh", "-c", "setsid sleep 1000 & echo started; exit 6")
    assert (output, end["code"]) == (b"started\n", 6)
    wait_until(lambda: "sleep 1000" not in guest.sh("ps -o args"), "its end")


def test_what_is_to_be_kept_outlives_its_request_and_its_client(guest):
    output, _, _, _ = guest.run("sh", "-c", "sleep 1001 & echo started", keep=True)
    assert output == b"started\n"
    with guest.start("sh", "-c", "echo ready; while [ ! -e /tmp/on ]; do sleep 0.05; done; rm /tmp/on; "
                     "echo on; exec sleep 1002", keep=True) as stream:
        stream.wait_for(b"ready")
    guest.sh("touch /tmp/on")
    wait_until(lambda: "\nsleep 1002\n" in guest.sh("ps -o args"), "the program to go on")
    assert "\nsleep 1001\n" in guest.sh("ps -o args")
    guest.sh("kill $(ps -o pid,args | awk '/[0-9] sleep 100[12]$/ { print $1 }')")
    wait_until(lambda: "\nsleep 100" not in guest.sh("ps -o args"), "both to end")


def test_what_is_kept_can_write_behind_the_end(guest):
    output, _, _, end = guest.run("sh", "-c", "(sleep 0.2; echo late; echo late; touch /tmp/alive; "
                                  "yes) & echo started", keep=True)
    assert (output, end["code"]) == (b"started\n", 0)
    wait_until(lambda: "alive" in guest.sh("ls /tmp"), "it to have written")
    assert guest.sh("echo here") == "here\n"
    guest.sh("rm /tmp/alive")
    wait_until(lambda: guest.run("killall", "yes")[3]["code"] == 0, "it to write on, and be killed")
    output, _, _, end = guest.run("sh", "-c", "yes & sleep 0.1; exit 3", keep=True)
    assert (output[:2], end["code"]) == (b"y\n", 3)
    wait_until(lambda: guest.run("killall", "yes")[3]["code"] == 0, "it to write on, and be killed")


def test_client_that_leaves_takes_its_program_along(guest):
    with guest.start("sh", "-c", "trap '' TERM HUP PIPE; echo ready; sleep 1000") as stream:
        stream.wait_for(b"ready")
        assert "sleep 1000" in guest.sh("ps -o args")
    wait_until(lambda: "sleep 1000" not in guest.sh("ps -o args"), "the program to be killed")


def test_client_that_leaves_with_all_windows_full(guest):
    """Nobody reads on either side."""
    with guest.start("sh", "-c", "yes; sleep 1000") as stream:
        stream.frame()
        for _ in range(STDIN_WINDOW // 65536):
            stream.send(STDIN, bytes(65536))
    wait_until(lambda: "yes" not in guest.sh("ps -o args").split(), "the program to be killed")


def test_killing_everybody_does_not_kill_the_agent(guest):
    with guest.start("sh", "-c", "echo ready; sleep 1000") as other:
        other.wait_for(b"ready")
        with guest.start("sh", "-c", "kill -9 -1; kill -9 1; exit 8") as stream:
            assert stream.finish()[3]["code"] == 8
        assert other.finish()[3]["signal"] == 9


def test_orphans_are_reaped(guest):
    guest.sh("for i in 1 2 3 4 5; do (sleep 0.1 &); done; sleep 0.3")
    assert " Z " not in guest.sh("ps -o stat,args")


@pytest.mark.parametrize("data", [
    b"GET / HTTP/1.1\r\n\r\n",
    struct.pack("<BI", 1, 65537),
    struct.pack("<BI", 1, 0xffffffff),
    struct.pack("<BI", 2, 0),
    struct.pack("<BI", 99, 0),
    struct.pack("<BI", 1, 0),
    struct.pack("<BI", 1, 2) + b"[]",
    struct.pack("<BI", 1, 2) + b"{}",
    struct.pack("<BI", 1, 10) + b'{"exec": 1',
    struct.pack("<BI", 1, 11) + b'{"exec": 1}',
    struct.pack("<BI", 1, 16) + b'{"a": 1, "b": 2}',
    struct.pack("<BI", 1, 8) + b'{"\xff": 1}',
    struct.pack("<BI", 1, 11) + b'{"what": 1}',
])
def test_bad_requests_are_answered_with_a_sentence(guest, data):
    with guest.stream() as stream:
        stream.socket.sendall(data)
        _, _, kind, error = stream.finish()
    assert kind == ERROR and error["status"] == 125 and error["error"]


@pytest.mark.parametrize("kind, payload", [(SIGNAL, b""), (SIGNAL, b"ab"), (WINDOW, b"abc"),
                                           (STDOUT, b"x"), (1, b"{}")])
def test_bad_frames_end_the_program(guest, kind, payload):
    with guest.start("sleep", "1000") as stream:
        stream.send(kind, payload)
        _, _, last, _ = stream.finish()
    assert last == ERROR
    wait_until(lambda: "sleep 1000" not in guest.sh("ps -o args"), "the program to be killed")


def test_as_many_idle_clients_as_there_can_be(guest):
    """One more waits until one of them leaves."""
    idle = [guest.stream() for _ in range(127)]
    try:
        late = []
        with running(lambda: late.append([guest.sh("echo 1"), guest.sh("echo 2")])):
            idle.pop().socket.close()
        assert late == [["1\n", "2\n"]]
    finally:
        for stream in idle:
            stream.socket.close()


def test_the_first_stream_is_the_agents_own(tmp_path):
    """It serves one request like any other, and says that the guest is ready."""
    with start_guest(tmp_path) as guest:
        guest.first.request("exec", {"argv": ["echo", "first"]})
        assert guest.first.finish()[0] == b"first\n"
        assert guest.sh("echo second") == "second\n"


def test_shutdown_gives_programs_their_time(tmp_path):
    """And every client hears its program out, whichever was the last to end."""
    script = ("trap 'head -c 30000 /dev/zero; exit 3' TERM; echo ready; "
              "while :; do sleep 0.1; done")
    with start_guest(tmp_path) as guest, contextlib.ExitStack() as stack:
        polite = [stack.enter_context(guest.start("sh", "-c", script)) for _ in range(10)]
        for stream in polite:
            stream.wait_for(b"ready\n")
        guest.first.request("shutdown", {"grace_ms": 60000})
        assert guest.first.finish()[2] == RESULT
        for stream in polite:
            output, _, _, end = stream.finish()
            assert (output, end["code"]) == (bytes(30000), 3)
        assert guest.process.wait(TIME_LIMIT) == 0


def test_shutdown_does_not_wait_for_ever(tmp_path):
    with start_guest(tmp_path) as guest:
        stubborn = guest.start("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
        stubborn.wait_for(b"ready")
        guest.first.request("shutdown", {"grace_ms": 200})
        assert guest.process.wait(TIME_LIMIT) == 0


def test_root_that_cannot_be_mounted_is_told(tmp_path):
    with start_guest(tmp_path, boot_args="mote.root=ro") as guest:
        _, _, kind, error = guest.run("true")
        assert kind == ERROR and error["status"] == 125
        assert error["error"].startswith("the root image (/dev/vda) cannot be mounted: ")


def test_request_may_be_as_large_as_a_frame(guest):
    value = "x" * 60000
    assert guest.sh("echo ${#A}", env=[f"A={value}"]) == "60000\n"


def test_request_in_several_frames(guest):
    """Three variables of 120,000 bytes, a word that is not UTF-8; the parts may be of any size."""
    text = json.dumps({"exec": {"argv": ["sh", "-c", "printf %s$1 ${#A}${#B}${#C}", "sh", {"base64": "Y2Fm6Q=="}],
                                "env": [f"{name}={'x' * 120000}" for name in "ABC"]}}).encode()
    for size in (65536, 10000):
        with guest.stream() as stream:
            while len(text) > size:
                stream.send(REQUEST_PART, text[:size])
                text = text[size:]
            stream.send(REQUEST_PART)
            stream.send(REQUEST, text)
            output, _, kind, _ = stream.finish()
        assert (kind, output) == (EXIT, b"120000120000120000caf\xe9")
        text = json.dumps({"exec": {"argv": ["printf", "120000120000120000caf\\351"]}}).encode()


def test_request_in_too_many_frames(guest):
    with guest.stream() as stream:
        for _ in range(64):
            stream.send(REQUEST_PART, b" " * 65536)
        stream.send(REQUEST_PART, b"{")
        _, _, kind, error = stream.finish()
    assert kind == ERROR and error["error"] == "a frame that cannot come here"


@pytest.mark.parametrize("value", [1, {"base64": "YQ"}, {"base64": "AA=="}, {"text": "a"}])
def test_words_that_are_no_strings(guest, value):
    for request in ({"argv": [value]}, {"argv": ["true"], "env": [value]}, {"argv": ["true"], "cwd": value}):
        with guest.stream() as stream:
            stream.request("exec", request)
            assert stream.finish()[2] == ERROR


def test_resume_tells_what_a_restored_guest_cannot_know(guest):
    def ask(name, value):
        with guest.stream() as stream:
            stream.request(name, value)
            _, _, kind, result = stream.finish()
            return kind, result

    before = guest.sh("date +%s")
    assert ask("resume", {"epoch": 5, "unix_time_ns": 2_000_000_000 * 10**9, "entropy": "ab" * 32,
                          "hostname": "restored"}) == (RESULT, {"epoch": 5})
    assert guest.sh("hostname; cat /etc/hostname; grep -c restored /etc/hosts") == "restored\nrestored\n1\n"
    assert 0 <= int(guest.sh("date +%s")) - 2_000_000_000 < TIME_LIMIT
    assert int(before) < 2_000_000_000
    for value, sentence in (({"epoch": 5}, "epoch"), ({"epoch": 6, "entropy": "xy"}, "entropy"),
                            ({"epoch": 6, "unix_time_ns": -1}, "unix_time_ns"),
                            ({"epoch": 6, "network": "here"}, "network"), ({}, "epoch")):
        kind, error = ask("resume", value)
        assert kind == ERROR and sentence in error["error"], error
    assert ask("quiesce", {}) == (RESULT, {})
    assert ask("quiesce", {"now": 1})[0] == ERROR
    assert ask("stats", {})[1]["streams"] >= 1
    assert ask("shutdown", {"grace_ms": -1})[0] == ERROR

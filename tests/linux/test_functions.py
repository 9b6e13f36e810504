# SPDX-License-Identifier: Apache-2.0
"""examples/functions: every request in a microVM of its own."""
import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import pytest

from support import BUILD, TIME_LIMIT, TOP, kernel, processes, running, wait_until

EXAMPLE = TOP / "examples" / "functions"
MOST = 4


def patient_functions(path):
    """The example's functions; of those that have no end by themselves, only their timeouts count."""
    functions = json.loads((EXAMPLE / "functions.json").read_text())
    for name, function in functions.items():
        if name != "forever":
            function["timeout_ms"] = TIME_LIMIT * 1000
    path.write_text(json.dumps(functions))
    return path


@pytest.fixture(scope="module", name="gateway")
def started_gateway(tmp_path_factory):
    temporary = tmp_path_factory.mktemp("functions")
    functions = patient_functions(tmp_path_factory.mktemp("configuration") / "functions.json")
    before = processes("mote-vmm")
    with subprocess.Popen(
            [EXAMPLE / "gateway.py", "--port", "0", "--most", str(MOST), "--mote", BUILD,
             "--kernel", kernel("microvm"), "--start-seconds", str(TIME_LIMIT),
             "--end-seconds", str(TIME_LIMIT), "--request-seconds", str(TIME_LIMIT), functions],
            stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(temporary)}) as process:
        yield process.stdout.readline().decode().strip()
        process.terminate()
    # Whatever the functions did.
    assert processes("mote-vmm") == before
    assert os.listdir(temporary) == []


def call(gateway, name, body=b"", *, before=0):
    """Status, fields and body of the answer, when so many others have had theirs."""
    try:
        with urllib.request.urlopen(urllib.request.Request(gateway + name, data=body),
                                    timeout=(1 + before) * TIME_LIMIT) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.loads(error.read())


def test_output_and_what_it_took(gateway):
    status, fields, body = call(gateway, "upper", b"hello\x00\xff")
    assert (status, body) == (200, b"HELLO\x00\xff")
    assert int(fields["Function-Cpu-Us"]) > 0
    assert 0 < int(fields["Function-Memory-Peak-Bytes"]) < 64 << 20


def test_a_body_larger_than_any_buffer(gateway):
    body = os.urandom(1 << 19).hex().encode()
    assert call(gateway, "upper", body)[::2] == (200, body.upper())


def test_fifty_at_once(gateway):
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda number: call(gateway, "upper", b"request %d" % number,
                                                     before=50 // MOST),
                                range(50)))
    assert [(status, body) for status, _, body in answers] == \
        [(200, b"REQUEST %d" % number) for number in range(50)]


def test_one_that_never_ends(gateway):
    status, _, answer = call(gateway, "forever")
    assert (status, answer["error"]) == (504, "it took longer than its timeout")
    assert answer["exit"]["timed_out"] is True


def test_one_that_eats_memory(gateway):
    status, _, answer = call(gateway, "hungry")
    assert (status, answer["error"]) == (500, "it needed more memory than it has")


def test_one_that_tries_the_network(gateway):
    status, _, answer = call(gateway, "curious")
    assert status == 500
    assert answer["error"] == "it ended with status 1"
    assert "unreachable" in answer["stderr"]


def networks():
    """Of the VMMs that run."""
    for pid in processes("mote-vmm"):
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/{pid}/ns/net")


def test_its_vmm_has_no_network_either(gateway):
    seen = set()
    with running(lambda: call(gateway, "forever")):
        wait_until(lambda: seen.update(networks()) or seen, "a VMM")
    assert os.readlink("/proc/self/ns/net") not in seen


def test_one_that_crashes_its_kernel(gateway):
    status, _, answer = call(gateway, "crash")
    assert status == 502
    assert re.match("The guest kernel panicked: ", answer["error"])
    # The next one does not notice.
    assert call(gateway, "upper", b"still here")[2] == b"STILL HERE"


def test_what_there_is_not(gateway):
    assert call(gateway, "other")[::2] == (404, {"error": "/other: there is no such function"})


def test_a_body_that_is_too_large(gateway):
    """It is refused by what its head says, without a byte of it."""
    address = urllib.parse.urlsplit(gateway)
    client = http.client.HTTPConnection(address.hostname, address.port, timeout=TIME_LIMIT)
    with contextlib.closing(client):
        client.putrequest("POST", "/upper")
        client.putheader("Content-Length", str((1 << 20) + 1))
        client.endheaders()
        assert client.getresponse().status == 413

# SPDX-License-Identifier: Apache-2.0
"""The API's socket under clients that are slow, broken, greedy or many."""
import contextlib
import functools
import json
import os
import random
import re
import socket
import threading
import time

import pytest

from api import Connection, start_api
from support import running, wait_until

GET = b"GET / HTTP/1.1\r\n\r\n"
REQUEST_TIME = 10  # seconds, as http.h has it
CONNECTIONS_MAX = 10


@pytest.fixture(name="vmm")
def started_vmm(tmp_path):
    with start_api(tmp_path) as vmm:
        vmm.get("/")
        descriptors = vmm.descriptors()
        yield vmm
        # Whatever the client was: nothing of it is left, and others are served.
        wait_until(lambda: vmm.descriptors() <= descriptors, "the connections' end")
        vmm.connection.close()
        assert vmm.get("/")


def read_answer(client):
    """The status, and the body as text, of one answer."""
    file = client.makefile("rb")
    status = int(file.readline().split()[1])
    length = 0
    while (line := file.readline().strip()):
        name, value = line.split(b": ")
        if name.lower() == b"content-length":
            length = int(value)
    return status, file.read(length).decode()


def exchange(vmm, data):
    """Sends bytes as a client that then says no more; all that comes back."""
    with vmm.connect() as client:
        client.sendall(data)
        answer = b""
        while (part := client.recv(65536)):
            answer += part
        return answer


BAD = [
    (b"\x00\x01\x02\x03\xff\r\n\r\n", 400),
    (bytes(range(256)) * 8, 400),
    (b"GET\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
    (b"GET / HTTP/9.9\r\n\r\n", 505),
    (b"FETCH / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
    (b"PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
    (b"PUT / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
    (b"PUT / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
    (b"GET /" + b"a" * 300 + b" HTTP/1.1\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 3000 + b"\r\n", 400),
    (b"CONNECT host:1 HTTP/1.1\r\n\r\n", 400),
    (b"PUT /vsock HTTP/1.1\r\nContent-Length: 51201\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    (b"\r\n" * 200 + b"junk\r\n\r\n", 400),
]


@pytest.mark.parametrize("data,status", BAD, ids=range(len(BAD)))
def test_what_is_no_request_is_refused_and_the_connection_ends(vmm, data, status):
    answer = exchange(vmm, data)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close" in head
    assert list(json.loads(body)) == ["error"]
    assert b"\r\nContent-Length: %d" % len(body) in head


def test_offer_of_another_protocol_is_not_taken_up(vmm):
    """As curl --http2 makes one; what follows is HTTP/1.1 still."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    body = b'{"mem_size_mib": 64}'
    answer = exchange(vmm, b"GET /version HTTP/1.1\r\n" + offer + b"\r\n"
                      b"PATCH /machine-config HTTP/1.1\r\n" + offer +
                      b"Content-Length: %d\r\n\r\n%s" % (len(body), body) +
                      b"GET /machine-config HTTP/1.0\r\n\r\n")
    assert re.findall(rb"HTTP/1.\d (\d+)", answer) == [b"200", b"204", b"200"]
    assert b'"mem_size_mib":64' in answer


def test_random_bytes(vmm):
    generator = random.Random(1)
    for _ in range(300):
        data = generator.randbytes(generator.randrange(1, 2000))
        with vmm.connect() as client:
            client.sendall(data)
    assert vmm.state() == "Not started"


def test_body_of_the_largest_size_and_one_more(tmp_path):
    with start_api(tmp_path, "--http-api-max-payload-size", "100") as vmm:
        body = '{"guest_cid": 3, "uds_path": "%s"}'
        body %= "v" * (100 - len(body) + 2)
        assert len(body) == 100
        os.chdir(tmp_path)
        status, answer = vmm.request("PUT", "/vsock", body)
        assert status in (204, 400) and "too large" not in str(answer)
        status, answer = vmm.request("PUT", "/vsock", body + " ")
        assert status == 400 and answer == {"error": "the body is too large"}


def test_head_is_answered_without_a_body(vmm):
    with vmm.connect() as client:
        client.sendall(b"HEAD / HTTP/1.1\r\n\r\nGET /version HTTP/1.1\r\n\r\n")
        answer = b""
        while b"mote_version" not in answer:
            answer += client.recv(4096)
        first, _, rest = answer.partition(b"\r\n\r\n")
        assert first.startswith(b"HTTP/1.1 400 ") and b"Content-Length: " in first
        assert rest.startswith(b"HTTP/1.1 200 ")


def test_chunked_body(vmm):
    with vmm.connect() as client:
        parts = [b'{"vcpu_count": 3,', b' "mem_size_mib": ', b"77", b"}", b""]
        client.sendall(b"PUT /machine-config HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" +
                       b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts))
        assert read_answer(client)[0] == 204
    assert vmm.get("/machine-config")["mem_size_mib"] == 77


def test_chunked_body_without_end(vmm):
    with vmm.connect() as client:
        client.sendall(b"PUT /vsock HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(16):
            client.sendall(b"1000\r\n" + b"a" * 4096 + b"\r\n")
        assert read_answer(client)[0] == 400


def test_expect_continue(vmm):
    with vmm.connect() as client:
        body = b'{"vcpu_count": 1, "mem_size_mib": 99}'
        client.sendall(b"PUT /machine-config HTTP/1.1\r\nExpect: 100-continue\r\n"
                       b"Content-Length: %d\r\n\r\n" % len(body))
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert read_answer(client)[0] == 204


def test_a_byte_at_a_time(vmm):
    with vmm.connect() as client:
        for byte in b"GET /version HTTP/1.1\r\nAccept: */*\r\n\r\n":
            client.sendall(bytes([byte]))
        status, body = read_answer(client)
    assert status == 200 and "mote_version" in body


def test_pipelined_requests_are_answered_in_order(vmm):
    with vmm.connect() as client:
        client.sendall(b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % i for i in range(500)))
        file = client.makefile("rb")
        for i in range(500):
            assert file.readline().startswith(b"HTTP/1.1 400")
            while file.readline().strip():
                pass
            body = b"{\"fault_message\":\"GET /%d: there is no such path\"}" % i
            assert file.read(len(body)) == body


def private_kib(process):
    with open(f"/proc/{process.pid}/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@pytest.fixture(name="freed_at_once")
def free_memory_at_once(monkeypatch):
    """AddressSanitizer keeps freed memory, up to 256 MiB of it, which would look like growth."""
    monkeypatch.setenv("ASAN_OPTIONS", "quarantine_size_mb=0:thread_local_quarantine_size_kb=0")


@pytest.mark.usefixtures("freed_at_once")
def test_pipelining_client_that_does_not_read(vmm):
    """What is answered in advance is bounded: the client's writes stall."""
    before = private_kib(vmm.process)
    with vmm.connect() as client:
        client.settimeout(1)
        request = b"GET /vm/config HTTP/1.1\r\n\r\n"
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 64 << 20:
                sent += client.send(request * 100)
        assert private_kib(vmm.process) - before < 8 << 10
        assert vmm.state() == "Not started"


@pytest.mark.parametrize("version,field,kept", [
    (b"1.1", b"", True), (b"1.1", b"Connection: close\r\n", False), (b"1.0", b"", False),
    (b"1.0", b"Connection: keep-alive\r\n", True)])
def test_connections_are_kept_as_asked_for(vmm, version, field, kept):
    with vmm.connect() as client:
        client.sendall(b"GET / HTTP/%s\r\n%s\r\n" % (version, field))
        assert read_answer(client)[0] == 200
        if kept:
            client.sendall(GET)
            assert read_answer(client)[0] == 200
        else:
            assert client.recv(1) == b""


def test_absolute_url(vmm):
    with vmm.connect() as client:
        client.sendall(b"GET http://localhost:80/version?x=y HTTP/1.1\r\n\r\n")
        assert read_answer(client)[0] == 200


def test_client_that_goes_in_the_middle_changes_nothing(vmm):
    body = b'{"vcpu_count": 1, "mem_size_mib": 99}'
    request = b"PUT /machine-config HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    for cut in range(1, len(request)):
        with vmm.connect() as client:
            client.sendall(request[:cut])
    assert vmm.get("/machine-config")["mem_size_mib"] == 128


def test_client_that_does_not_wait_for_the_answer(vmm):
    for _ in range(100):
        with vmm.connect() as client:
            client.sendall(GET * 50)
    assert vmm.state() == "Not started"


def test_one_connection_too_many(vmm):
    vmm.connection.close()
    clients = []
    try:
        for _ in range(CONNECTIONS_MAX):
            clients.append(vmm.connect())
            clients[-1].sendall(GET)
            assert read_answer(clients[-1])[0] == 200
        for _ in range(3):
            with vmm.connect() as one_more:
                one_more.sendall(GET)
                assert read_answer(one_more) == (503, '{"error": "too many connections"}')
        crowd = [vmm.connect() for _ in range(100)]
        for client in clients:
            client.sendall(GET)
            assert read_answer(client)[0] == 200
        for client in crowd:
            client.close()
        clients.pop().close()
        wait_until(lambda: vmm.get("/"), "a place")
    finally:
        for client in clients:
            client.close()


def test_a_thousand_connections_in_turn(vmm):
    descriptors = vmm.descriptors()
    for _ in range(1000):
        connection = Connection(vmm.socket_path)
        connection.request("GET", "/")
        assert connection.getresponse().read()
        connection.close()
    wait_until(lambda: vmm.descriptors() == descriptors, "the last one's end")


def ended_after(client):
    """Seconds until the other end closes. With a byte of ours on the way that is a reset."""
    start = time.monotonic()
    with contextlib.suppress(ConnectionResetError):
        while client.recv(4096):
            pass
    return time.monotonic() - start


def test_slow_request_is_dropped(vmm):
    """A byte now and then does not hold its place."""
    with vmm.connect() as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nX: ")
        stop = threading.Event()

        def drip():
            while not stop.wait(1):
                with contextlib.suppress(OSError):
                    slow.sendall(b"x")

        with running(drip, stop=stop.set):
            took = ended_after(slow)
        assert REQUEST_TIME - 1 < took < REQUEST_TIME + 5


def test_slow_reader_of_the_console_is_dropped(tmp_path):
    """The guest floods the console; who does not read it does not make the VMM keep it."""
    with start_api(tmp_path) as vmm:
        vmm.put("/serial", {"serial_out_path": "/dev/null"})
        with vmm.connect() as slow:
            slow.sendall(b"GET /console HTTP/1.1\r\n\r\n")
            wait_until(lambda: vmm.descriptors() > 0, "a VMM")
            vmm.start("flood")
            descriptors = vmm.descriptors()
            wait_until(lambda: vmm.descriptors() < descriptors, "the reader's end")
            assert vmm.state() == "Running"


def test_concurrent_clients_see_whole_answers(vmm):
    def work(number):
        with contextlib.closing(Connection(vmm.socket_path)) as connection:
            for i in range(200):
                size = 16 + number * 1000 + i
                connection.request("PATCH", "/machine-config", json.dumps({"mem_size_mib": size}))
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 204
                connection.request("GET", "/machine-config")
                assert json.loads(connection.getresponse().read())["mem_size_mib"] >= 16

    with running(*(functools.partial(work, number) for number in range(8))):
        pass

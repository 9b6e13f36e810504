# SPDX-License-Identifier: Apache-2.0
"""vsock of a real Linux guest."""
import os
import re
import signal
import socket
import time

from devices import stream_server
from support import TIME_LIMIT


def kill_with_children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        children = [int(word) for word in file.read().split()]
    for process in [pid, *children]:
        os.kill(process, signal.SIGKILL)


def test_vsock_streams_both_ways(start, tmp_path):
    with stream_server(tmp_path / "v.sock_7000"):
        output = start("""for test in 'send 64' 'receive 64' 'roundtrip 200'; do
stream_bench vsock-client 2 7000 $test > /dev/null && echo good; done""",
                       vsock=tmp_path / "v.sock").output()
    assert output == ["good"] * 3


def test_a_hundred_connections_from_the_guest(start, tmp_path):
    with stream_server(tmp_path / "v.sock_7000"):
        output = start("""for i in $(seq 100); do
(stream_bench vsock-client 2 7000 roundtrip 20 > /dev/null &&
stream_bench vsock-client 2 7000 send 1 > /dev/null && echo good) & done; wait""",
                       vsock=tmp_path / "v.sock").output()
    assert output == ["good"] * 100


def test_vsock_port_that_nobody_listens_on(start, tmp_path):
    output = start("stream_bench vsock-client 2 7001 roundtrip 1; echo $?",
                   vsock=tmp_path / "v.sock").output()
    assert output[0].endswith("Connection reset by peer")
    assert output[-1] == "1"


def test_a_hundred_connections_from_the_host(start, tmp_path):
    guest = start("stream_bench vsock-server 7000 & echo '@ ready'; read line < /dev/ttyS0 & wait",
                  vsock=tmp_path / "v.sock")
    guest.wait_for("@ ready")
    sockets = []
    data = os.urandom(20000)
    # The server may not listen yet, in which case the first connections are refused.
    deadline = time.monotonic() + TIME_LIMIT
    while len(sockets) < 100 and time.monotonic() < deadline:
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(TIME_LIMIT)
        peer.connect(str(tmp_path / "v.sock"))
        peer.sendall(b"CONNECT 7000\n")
        answer = b""
        while not answer.endswith(b"\n"):
            part = peer.recv(1)
            if not part:
                break
            answer += part
        if re.fullmatch(rb"OK \d+\n", answer):
            sockets.append(peer)
        else:
            peer.close()
    assert len(sockets) == 100
    for peer in sockets:
        peer.sendall(b"e" + len(data).to_bytes(4, "little") + data)
    for peer in sockets:
        received = b""
        while len(received) < len(data):
            received += peer.recv(65536)
        assert received == data
        peer.close()
    guest.process.send_signal(signal.SIGTERM)
    assert guest.process.wait(TIME_LIMIT) == 0


def test_vsock_peer_that_dies_and_one_that_never_reads(start, tmp_path):
    with socket.socket(socket.AF_UNIX) as stuck, stream_server(tmp_path / "v.sock_7000"), \
            stream_server(tmp_path / "v.sock_7001") as dying:
        stuck.bind(str(tmp_path / "v.sock_7002"))
        stuck.listen(8)
        guest = start("""stream_bench vsock-client 2 7002 send 64 > /dev/null 2>&1 & never=$!
stream_bench vsock-client 2 7001 send 100000 > /dev/null 2>&1 & dying=$!
echo "@ running"; wait $dying; echo "@ died"
stream_bench vsock-client 2 7000 roundtrip 30 > /dev/null && echo good; kill $never""",
                      vsock=tmp_path / "v.sock")
        with stuck.accept()[0]:
            guest.wait_for("@ running")
            kill_with_children(dying.pid)
            guest.wait_for("@ died")
            assert "good" in guest.output()
    assert not (tmp_path / "v.sock").exists()

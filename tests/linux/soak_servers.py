# SPDX-License-Identifier: Apache-2.0
"""
Servers of Debian's packages as microVMs: they answer over a published port, and end by the signal
that is their own. `tests/run-tests soak` alone runs this; `make soak` builds the images.
"""
import json
import subprocess

import pytest

from support import BUILD, TIME_LIMIT, TOP

HTTP = 'peer.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n"); data = peer.recv(12)'
NODE = ('const server = require("http").createServer((q, a) => a.end("hello")); server.listen(80);'
        'process.on("SIGTERM", () => server.close(() => process.exit(0)))')
PYTHON = ("import http.server, signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); "
          "http.server.ThreadingHTTPServer(('', 80), http.server.SimpleHTTPRequestHandler)"
          ".serve_forever()")
POSTGRES = ("exec /usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main "
            "-c config_file=/etc/postgresql/15/main/postgresql.conf -c listen_addresses='*' "
            "-c unix_socket_directories=/tmp")
# Its image, port, options, command, what a client says and is answered.
SERVERS = {
    "nginx": (80, ["--stop-signal", "QUIT"], ["nginx", "-g", "daemon off;"], HTTP, b"HTTP/1.1 200"),
    "redis": (6379, ["--user", "redis"], ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no",
                                          "--dir", "/tmp"],
              'peer.sendall(b"PING\\r\\n"); data = peer.recv(5)', b"+PONG"),
    "postgres": (5432, ["--user", "postgres", "--stop-signal", "INT"], ["sh", "-c", POSTGRES],
                 # SSLRequest of its protocol, which is answered by one letter.
                 'peer.sendall(bytes.fromhex("0000000804d2162f")); data = peer.recv(1)', b"S"),
    "node": (80, [], ["node", "-e", NODE], HTTP, b"HTTP/1.1 200"),
    "python": (80, [], ["python3", "-c", PYTHON], HTTP, b"HTTP/1.0 200"),
}
CLIENT = """import socket, time
limit = time.monotonic() + {limit}
data = b""
while not data and time.monotonic() < limit:
    try:
        with socket.create_connection(("192.0.2.1", 8000), 10) as peer:
            peer.settimeout(10)
            {says}
    except OSError:
        pass
    time.sleep(0 if data else 0.2)
print(data)
"""


@pytest.mark.parametrize("image", SERVERS)
def test_server(net, world, monkeypatch, image):
    monkeypatch.setenv("XDG_DATA_HOME", str(TOP / "build" / "data"))
    port, options, command, says, answer = SERVERS[image]

    def mote(*arguments):
        return subprocess.run([*net.prefix, BUILD / "mote", *arguments], stdin=subprocess.DEVNULL,
                              capture_output=True, check=False, timeout=TIME_LIMIT, text=True)

    result = mote("run", "--detach", "--name", "server", "--memory", "512M", "--net", "user", "--publish",
                  f"8000:{port}", *options, f"server-{image}", "--", *command)
    assert result.returncode == 0, result.stderr
    try:
        result = subprocess.run([*world, "/usr/bin/python3", "-c",
                                 CLIENT.format(limit=TIME_LIMIT, says=says)],
                                capture_output=True, check=False, timeout=2 * TIME_LIMIT)
        assert result.stdout.strip() == repr(answer).encode(), (result.stderr, mote("logs", "server").stdout)
        ended = json.loads(mote("kill", "--json", "server").stdout)
        assert [vm["forced"] for vm in ended] == [False]
        state = json.loads(mote("ps", "--all", "--json").stdout)
        assert [vm["exit_status"] for vm in state if vm["name"] == "server"] == [0], \
            mote("logs", "server").stdout
    finally:
        mote("kill", "--force", "server")
        mote("rm", "server")

#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A small function platform: every request runs in a microVM of its own, which is gone afterwards.

    examples/functions/gateway.py examples/functions/functions.json

    curl -d 'hello' http://127.0.0.1:8080/upper

A request's body is the function's standard input, its standard output is the answer. What a function
is, is said in the file: "argv", and optionally "memory_mib" (128), "timeout_ms" (1000) and "rootfs".

    200  the function's output; the Function- fields tell what it took
    400  the request's body ended before its length
    404  there is no such function
    408  the request was not sent in time
    411  the request does not tell its body's length
    413  the request's body is larger than 1 MiB
    500  it failed: {"error": ..., "exit": {...}, "stderr": ...}
    502  its microVM failed: it crashed its kernel, for example
    503  there are more clients than the gateway serves at once
    504  it took longer than its timeout
"""
import argparse
import contextlib
import http.server
import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

from microvm import MicroVM, MicroVMError, Settings

BODY_MAX = 1 << 20
REQUEST_SECONDS = 10  # for all of a request, and for each part of an answer to be taken
HERE = pathlib.Path(__file__).resolve().parent


def describe(result):
    """Status and sentence for a function that did not succeed."""
    end = result.exit
    if result.overflow:
        return 500, "it printed more than it may"
    if end.get("timed_out"):
        return 504, "it took longer than its timeout"
    if end.get("oom_killed"):
        return 500, "it needed more memory than it has"
    if "error" in end:
        return 500, end["error"]
    if "signal" in end:
        return 500, f"it was ended by signal {end['signal']}"
    return 500, f"it ended with status {end['code']}"


class Slow(Exception):
    """A client that takes longer than it may."""


class Reader(io.RawIOBase):
    """A connection, to be read from until the request's deadline, however small the pieces are."""

    def __init__(self, connection, seconds):
        super().__init__()
        self.connection = connection
        self.seconds = seconds
        self.start()

    def start(self):
        self.deadline = time.monotonic() + self.seconds

    def readable(self):
        return True

    def readinto(self, buffer):
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Slow
        self.connection.settimeout(left)
        try:
            return self.connection.recv_into(buffer)
        except TimeoutError:
            raise Slow from None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.rfile.close()
        self.reader = Reader(self.connection, self.server.request_seconds)
        self.rfile = io.BufferedReader(self.reader)

    def handle_one_request(self):
        self.reader.start()
        try:
            super().handle_one_request()
        except (Slow, ConnectionError):
            # One that has sent nothing yet, or that left, needs no answer.
            self.close_connection = True

    def finish(self):
        with contextlib.suppress(OSError):
            super().finish()

    def body_length(self):
        """Of the request; None if it does not say so as HTTP has it (RFC 9110, 8.6): digits, once."""
        told = self.headers.get_all("Content-Length", [])
        if len(told) != 1 or "Transfer-Encoding" in self.headers or not re.fullmatch("[0-9]{1,15}", told[0]):
            return None
        return int(told[0])

    def do_POST(self):
        # Whatever is wrong with a request, what follows on its connection is not to be taken for another.
        self.close_connection = True
        length = self.body_length()
        if length is None:
            return self.answer(411, {"error": "a Content-Length is needed"})
        if length > BODY_MAX:
            return self.answer(413, {"error": f"a body is at most {BODY_MAX} bytes"})
        try:
            body = self.rfile.read(length)
        except Slow:
            return self.answer(408, {"error": f"a request takes at most {self.server.request_seconds} s"})
        if len(body) < length:
            return self.answer(400, {"error": "the body ended before its length"})
        self.close_connection = self.headers.get("Connection", "").lower() == "close"
        return self.call(body)

    def call(self, body):
        function = self.server.functions.get(self.path.lstrip("/"))
        if not function:
            return self.answer(404, {"error": f"{self.path}: there is no such function"})
        started = time.monotonic()
        with self.server.slots:
            if self.server.ending:
                self.close_connection = True
                return self.answer(503, {"error": "the gateway ends"})
            waited = time.monotonic() - started
            try:
                with MicroVM(self.server.settings_of(function)) as vm:
                    ready = time.monotonic()
                    result = vm.run(function["argv"], body, function.get("timeout_ms", 1000))
                    ran = time.monotonic()
            except MicroVMError as error:
                return self.answer(502, {"error": str(error)})
        if result.exit.get("code") == 0 and not result.overflow:
            return self.answer(200, result.stdout, {
                "Function-Waited-Ms": f"{waited * 1000:.1f}",
                "Function-Start-Ms": f"{(ready - started - waited) * 1000:.1f}",
                "Function-Run-Ms": f"{(ran - ready) * 1000:.1f}",
                "Function-Cpu-Us": result.exit["user_us"] + result.exit["system_us"],
                "Function-Memory-Peak-Bytes": result.exit["memory_peak_bytes"]})
        status, error = describe(result)
        return self.answer(status, {"error": error, "exit": result.exit,
                                    "stderr": result.stderr.decode(errors="replace")})

    def answer(self, status, body, fields=None):
        # Each part of it is taken within this time.
        self.connection.settimeout(self.server.request_seconds)
        if isinstance(body, dict):
            body = json.dumps(body).encode() + b"\n"
        self.send_response(status)
        for name, value in (fields or {}).items():
            self.send_header(name, str(value))
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        with contextlib.suppress(TimeoutError):
            return self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format, *args):
        pass


class Gateway(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = False  # each ends by itself, with its microVM, before the process does

    def __init__(self, address, functions, settings, most, clients=256, request_seconds=REQUEST_SECONDS):
        super().__init__(address, Handler)
        self.functions = functions
        self.settings = settings
        self.request_seconds = request_seconds
        self.slots = threading.BoundedSemaphore(most)
        self.clients = threading.BoundedSemaphore(clients)
        self.connections = set()
        self.ending = False

    def process_request(self, request, client_address):
        """Each client has a thread, so there are only so many."""
        if not self.clients.acquire(blocking=False):
            with contextlib.suppress(OSError):
                request.setblocking(False)
                request.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.shutdown_request(request)
            return
        self.connections.add(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request, client_address):
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.discard(request)
            self.clients.release()

    def end(self):
        """No new requests; functions that run come to their end."""
        self.ending = True
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
        self.server_close()

    def settings_of(self, function):
        own = {name: function[name] for name in ("memory_mib", "rootfs") if name in function}
        return Settings(**{**self.settings, **own})


def find_mote():
    """The build tree's, or the one that is installed."""
    build = HERE.parent.parent / "build" / "release"
    return build if (build / "mote-vmm").exists() else pathlib.Path("/usr/local/lib/mote")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("functions", type=pathlib.Path, help="a JSON file: name -> function")
    parser.add_argument("--port", type=int, default=8080, help="on 127.0.0.1 (0: any)")
    parser.add_argument("--most", type=int, default=2 * os.cpu_count(),
                        help="microVMs at once; further requests wait")
    parser.add_argument("--clients", type=int, default=256, help="connections at once; others are refused")
    parser.add_argument("--request-seconds", type=float, default=REQUEST_SECONDS,
                        help="in which a client sends a request")
    parser.add_argument("--mote", type=pathlib.Path, default=find_mote(),
                        help="the folder of mote-vmm and initrd.cpio")
    parser.add_argument("--kernel", help="(default: `mote kernel path`)")
    parser.add_argument("--start-seconds", type=float, default=10.0, help="in which a microVM is ready")
    parser.add_argument("--end-seconds", type=float, default=5.0,
                        help="how much later than its timeout a function may end")
    options = parser.parse_args()
    kernel = options.kernel
    if not kernel:
        mote = next((path for path in (options.mote / "mote", options.mote / "../../bin/mote")
                     if path.exists()), "mote")
        kernel = subprocess.run([mote, "kernel", "path"], capture_output=True, text=True,
                                check=True).stdout.strip()
    jailer = str(options.mote / "mote-jailer") if os.geteuid() == 0 else ""
    if not jailer:
        print("gateway: not root: microVMs run without a jail", file=sys.stderr)
    settings = {"vmm": str(options.mote / "mote-vmm"), "jailer": jailer, "kernel": kernel,
                "initrd": str(options.mote / "initrd.cpio"),
                "start_seconds": options.start_seconds, "end_seconds": options.end_seconds}
    gateway = Gateway(("127.0.0.1", options.port), json.loads(options.functions.read_text()),
                      settings, options.most, options.clients, options.request_seconds)
    # serve_forever() is only to be ended from another thread.
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    server = threading.Thread(target=gateway.serve_forever)
    server.start()
    print(f"http://127.0.0.1:{gateway.server_port}/", flush=True)
    ended.wait()
    gateway.shutdown()
    server.join()
    gateway.end()


if __name__ == "__main__":
    main()

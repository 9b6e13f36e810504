#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A small function platform: every request runs in a microVM of its own, which is gone afterwards.

    examples/functions/gateway.py examples/functions/functions.json

    curl -d 'hello' http://127.0.0.1:8080/upper

A request's body is the function's standard input, its standard output is the answer. What a function
is, is said in the file: "argv", and optionally "memory_mib" (128), "timeout_ms" (1000) and "rootfs".

    200  the function's output; the Function- fields tell what it took
    404  there is no such function
    411  the request does not tell its body's length
    413  the request's body is larger than 1 MiB
    500  it failed: {"error": ..., "exit": {...}, "stderr": ...}
    502  its microVM failed: it crashed its kernel, for example
    504  it took longer than its timeout
"""
import argparse
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

from microvm import MicroVM, MicroVMError, Settings

BODY_MAX = 1 << 20
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


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        try:
            length = int(self.headers["Content-Length"])
        except (TypeError, ValueError):
            length = -1
        if length < 0 or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            return self.answer(411, {"error": "a Content-Length is needed"})
        if length > BODY_MAX:
            self.close_connection = True
            return self.answer(413, {"error": f"a body is at most {BODY_MAX} bytes"})
        body = self.rfile.read(length)
        function = self.server.functions.get(self.path.lstrip("/"))
        if not function:
            return self.answer(404, {"error": f"{self.path}: there is no such function"})
        started = time.monotonic()
        with self.server.slots:
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
        if isinstance(body, dict):
            body = json.dumps(body).encode() + b"\n"
        self.send_response(status)
        for name, value in (fields or {}).items():
            self.send_header(name, str(value))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


class Gateway(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, address, functions, settings, most):
        super().__init__(address, Handler)
        self.functions = functions
        self.settings = settings
        self.slots = threading.BoundedSemaphore(most)

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
    parser.add_argument("--mote", type=pathlib.Path, default=find_mote(),
                        help="the folder of mote-vmm and initrd.cpio")
    parser.add_argument("--kernel", help="(default: `mote kernel path`)")
    parser.add_argument("--start-seconds", type=float, default=10.0)
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
                "start_seconds": options.start_seconds}
    gateway = Gateway(("127.0.0.1", options.port), json.loads(options.functions.read_text()),
                      settings, options.most)
    print(f"http://127.0.0.1:{gateway.server_port}/", flush=True)
    try:
        gateway.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()

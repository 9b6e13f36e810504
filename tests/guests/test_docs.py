# SPDX-License-Identifier: Apache-2.0
"""What the documents show of the API is what happens: their transcripts are run and compared."""
import contextlib
import os
import re
import subprocess

import pytest
import yaml

import host
from api import answers
from support import BUILD, GUESTS, TOP, wait_until, watchdog

MARK = "@@"
API_DOCUMENT = (TOP / "docs" / "api.md").read_text(encoding="utf-8")


def transcripts(text):
    """Each fenced block that starts with a prompt: a list of (command, expected output)."""
    for block in re.findall(r"^```\n(\$ .*?)^```$", text, re.M | re.S):
        steps = [step.partition("\n") for step in re.split(r"^\$ ", block, flags=re.M)[1:]]
        yield [(command, output) for command, _, output in steps]


def normalised(text):
    """Without what is another each time, and without the end of the last line, which curl lacks."""
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}", "TIME", text)
    text = re.sub(r'"timestamp_ms":\d{13}', '"timestamp_ms":0', text)
    return re.sub(r'"(vmm|mote)_version": ?"[^"]*"', r'"\1_version":""', text).rstrip("\n")


class Shell:
    """A bash that is given one command after the other."""

    def __init__(self, process):
        self.process = process

    def run(self, command):
        """What the command prints, and the background commands besides."""
        script = f"{command}\nstatus=$?; echo; echo {MARK}; (exit $status)\n"
        self.process.stdin.write(script)
        self.process.stdin.flush()
        lines = []
        while (line := self.process.stdout.readline()) not in (f"{MARK}\n", ""):
            lines.append(line)
        return "".join(lines)[:-1]

    def wait_for_background(self, command, folder):
        """As who types would: for the socket to be there, for the stream to have begun."""
        if command.startswith("mote-vmm "):
            path = folder / re.search(r"--api-sock (\S+)", command)[1]
            wait_until(lambda: answers(path), "the API")
        elif "GET /events" in command:
            path = folder / re.search(r"> (\S+)", command)[1]
            wait_until(lambda: path.exists() and path.stat().st_size > 0, "the first event")


@contextlib.contextmanager
def shell(folder):
    """In a directory with a kernel and a root file system."""
    os.symlink(GUESTS / "waits", folder / "vmlinux")
    host.drive(folder, name="rootfs.ext4")
    environment = {**os.environ, "PATH": f"{BUILD}:{os.environ['PATH']}"}
    environment.pop("MOTE_API_SOCKET", None)
    # A session of its own, so that what is left running in the end can be ended with it.
    with subprocess.Popen(["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, cwd=folder, env=environment, text=True,
                          start_new_session=True) as process:
        end = lambda: os.killpg(process.pid, 9)
        try:
            with watchdog(end):
                yield Shell(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                end()


def run_and_compare(steps, folder):
    with shell(folder) as bash:
        for command, expected in steps:
            output = bash.run(command)
            assert normalised(output) == normalised(expected), f"$ {command}"
            if command.endswith("&"):
                bash.wait_for_background(command, folder)
        assert not bash.run("jobs -r"), "something is left running"


def test_transcripts_of_the_api(tmp_path):
    blocks = list(transcripts(API_DOCUMENT))
    assert len(blocks) >= 6
    run_and_compare([step for block in blocks for step in block], tmp_path)


def test_transcripts_of_snapshots(tmp_path):
    text = (TOP / "docs" / "snapshots.md").read_text(encoding="utf-8")
    blocks = list(transcripts(text))
    assert len(blocks) >= 3
    run_and_compare([step for block in blocks for step in block], tmp_path)


def test_transcript_of_the_readme(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can make a network namespace and a tap device")
    text = (TOP / "README.md").read_text(encoding="utf-8")
    block, = [steps for steps in transcripts(text) if steps[0][0].startswith("mote-vmm --api")]
    assert sum(command.startswith("curl ") for command, _ in block) == 6
    with host.tap():
        run_and_compare([*block, ("kill %1; wait", "")], tmp_path)


POSSIBLE = {"always": {"Not started", "Running", "Paused"}, "before the start": {"Not started"},
            "after the start": {"Running", "Paused"}, "while paused": {"Paused"}}


def documented_routes():
    """Of openapi.yaml: (METHOD, path, value of the field that decides) and the states."""
    document = yaml.safe_load((TOP / "api-socket" / "openapi.yaml").read_text(encoding="utf-8"))
    for path, item in document["paths"].items():
        for method in {"get", "put", "patch", "delete"} & set(item):
            operation = item[method]
            if "x-states" in operation:
                yield (method.upper(), path, ""), set(operation["x-states"])
                continue
            name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            schema = document["components"]["schemas"][name.rpartition("/")[2]]
            (field,) = schema["properties"].values()
            for value, states in field["x-states"].items():
                yield (method.upper(), path, value), set(states)


def test_table_of_routes():
    shown, request = {}, ""
    for cell, what, possible in re.findall(r"^\| (?:([A-Z]+ /.*?) )?\| (.*?) \| (.*?) \|$",
                                           API_DOCUMENT, re.M):
        request = cell or request
        value = re.fullmatch(r"`(\w+)`", what)
        shown[(*request.split(), value[1] if value else "")] = POSSIBLE[possible]
    assert shown == dict(documented_routes())


def test_limits_are_those_of_the_server():
    header = (TOP / "api-socket" / "http.h").read_text(encoding="utf-8")
    constants = dict(re.findall(r"#define HTTP_(\w+)[\s\\]+\(?(\d+)", header))
    limits = API_DOCUMENT[API_DOCUMENT.index("## Limits"):API_DOCUMENT.index("## Signals")]
    shown = [int(number.replace(",", "")) for number in re.findall(r"\b\d[\d,]*\b", limits)]
    for name in ("CONNECTIONS_MAX", "BODY_MAX", "HEADER_MAX", "REQUEST_TIME", "IDLE_TIME",
                 "OUTPUT_MAX", "RATE_BURST", "RATE"):
        assert int(constants[name]) in shown, name
    assert int(constants["PATH_SIZE"]) - 1 in shown

# SPDX-License-Identifier: Apache-2.0
"""Volumes whose owner moves them about while a microVM starts and runs."""
import json
import pathlib
import shutil
import subprocess

import pytest

from support import MOTE, TIME_LIMIT

# A VMM and its guest's agent in one. What is put it unpacks into GUEST, runs SWAP as its command,
# and sends GUEST back.
VMM = """#!/usr/bin/python3
import io, json, os, socket, struct, subprocess, sys, tarfile

def frame(kind, payload):
    return struct.pack("<BI", kind, len(payload)) + payload

def receive(stream):
    kind, size = struct.unpack("<BI", stream.recv(5, socket.MSG_WAITALL))
    return kind, stream.recv(size, socket.MSG_WAITALL) if size else b""

here = os.path.dirname(os.path.abspath(__file__))
def swap(name):
    subprocess.run(["sh", "-ec", json.load(open(here + "/swaps.json"))[name]], check=True)

path = json.load(open(sys.argv[sys.argv.index("--config-file") + 1]))["vsock"]["uds_path"]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
swap("before")
command = socket.socket(socket.AF_UNIX)
command.connect(path + "_52")

def transfer():
    stream = listener.accept()[0]
    while stream.recv(1) != b"\\n":
        pass
    stream.sendall(b"OK 1\\n")
    return stream, json.loads(receive(stream)[1])

with transfer()[0] as stream:
    data = b""
    while True:
        kind, payload = receive(stream)
        if kind == 3:
            break
        data += payload
    with open(here + "/put.tar", "wb") as tar:
        tar.write(data)
    stream.sendall(frame(21, b'{"files": 1, "bytes": 1}'))
receive(command)
swap("while")
command.sendall(frame(19, b'{"code": 0, "user_us": 0, "system_us": 0, "memory_peak_bytes": 0}'))
with transfer()[0] as stream:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        root = tarfile.TarInfo("work")
        root.type, root.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(root)
        info = tarfile.TarInfo("work/result")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    stream.sendall(frame(17, data.getvalue()) + frame(21, b'{"files": 2, "bytes": 4}'))
"""


@pytest.fixture(name="run")
def run_fixture(tmp_path, monkeypatch):
    """Runs mote with a volume, which other hands change before and while its command runs."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    home = tmp_path / "bin"
    home.mkdir()
    shutil.copy(MOTE, home)
    (home / "mote-vmm").write_text(VMM)
    (home / "mote-vmm").chmod(0o755)
    (home / "initrd.cpio").touch()

    def run(volume, before="true", meanwhile="true"):
        (home / "swaps.json").write_text(json.dumps({"before": before, "while": meanwhile}))
        result = subprocess.run(
            [home / "mote", "run", "--no-jail", "--kernel", "/etc/hostname", "--volume",
             f"{volume}:/work", "--", "true"], stdin=subprocess.DEVNULL, capture_output=True,
            timeout=TIME_LIMIT, check=False, cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, b""), result
        names = subprocess.run(["tar", "-tf", home / "put.tar"], capture_output=True, check=True)
        # The first part of each path is what the guest leaves out.
        paths = map(pathlib.PurePosixPath, names.stdout.decode().split())
        return {path.name for path in paths if len(path.parts) > 1}
    return run


@pytest.fixture(name="project")
def project_fixture(tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "mine").touch()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").touch()
    return tmp_path / "project"


def test_volume_swapped_before_it_is_read(run, project):
    swap = f"mv {project} {project}.real; ln -s {project.parent}/secret {project}"
    assert "key" not in run(project, before=swap)
    assert (project.with_name("project.real") / "result").read_text() == "evil"
    assert {path.name for path in (project.parent / "secret").iterdir()} == {"key"}


def test_volume_swapped_while_the_command_runs(run, project):
    swap = f"mv {project} {project}.real; ln -s {project.parent}/secret {project}"
    assert "mine" in run(project, meanwhile=swap)
    assert {path.name for path in (project.parent / "secret").iterdir()} == {"key"}
    assert (project.with_name("project.real") / "result").read_text() == "evil"


def test_volume_above_which_something_is_swapped(run, project):
    """Not its own name, but that of a directory on the way to it."""
    deep = project / "a" / "b"
    deep.mkdir(parents=True)
    (project.parent / "secret" / "b").mkdir()
    swap = f"mv {project}/a {project}/c; ln -s {project.parent}/secret {project}/a"
    run(deep, meanwhile=swap)
    assert not any((project.parent / "secret" / "b").iterdir())
    assert (project / "c" / "b" / "result").read_text() == "evil"


@pytest.mark.parametrize("volume", [".", "link", "project/"])
def test_volume_by_every_kind_of_path(run, project, volume):
    (project.parent / "link").symlink_to("project")
    names = run(volume)
    where = project.parent if volume == "." else project
    assert (where / "result").read_text() == "evil"
    assert ("mine" in names) and ("key" in names) == (volume == ".")

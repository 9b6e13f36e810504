# SPDX-License-Identifier: Apache-2.0
"""Images that `mote image build` makes, and commands in them."""
import pathlib
import subprocess

import pytest

from sources import oci_layout, write_tar
from support import TOP, run_mote

BUSYBOX = pathlib.Path("/bin/busybox").read_bytes()


@pytest.fixture(name="home")
def data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def build(*arguments):
    result = run_mote("image", "build", *arguments)
    assert result.returncode == 0, result.stderr


def output_of(*arguments, stdin=b""):
    result = run_mote("run", *arguments, stdin=stdin)
    assert result.returncode == 0, result.stderr
    return result.stdout.decode()


def test_a_python_image(monkeypatch):
    """As `make test` has built it, with `mote image build --debian python3-minimal -t python`."""
    monkeypatch.setenv("XDG_DATA_HOME", str(TOP / "build" / "data"))
    program = "import os, sys; print(sum(map(int, sys.stdin)), os.getpid() > 1)"
    assert output_of("python", "--", "python3", "-c", program, stdin=b"1\n2\n39\n") == "42 True\n"


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("kind", ["erofs", "ext4"])
def test_files_are_the_sources(tmp_path, kind):
    tar = write_tar(tmp_path / "files.tar",
                    ("bin/busybox", BUSYBOX, {"mode": 0o755}),
                    ("bin/sh", None, {"type": b"2", "linkname": "busybox"}),
                    ("setuid", b"x", {"mode": 0o4711, "uid": 33, "gid": 44}),
                    ("other", None, {"type": b"1", "linkname": "setuid"}),
                    ("caf\u00e9 \n", b"odd", {"mtime": -150_000_000}),
                    ("tmp", None, {"type": b"5", "mode": 0o1777}),
                    # CAP_NET_BIND_SERVICE and CAP_NET_RAW, permitted and effective.
                    ("cap/cat", BUSYBOX, {"mode": 0o755, "pax_headers": {
                        "SCHILY.xattr.security.capability": "\x01\0\0\x02\0\x24" + 14 * "\0"}}))
    build("-t", "files", "--format", kind, tar)
    script = ("/bin/busybox stat -c '%a %u %g %h %Y' /setuid; /bin/busybox stat -c %y /caf*; /bin/busybox cat /caf*; "
              "echo more > /tmp/new && /bin/busybox cat /tmp/new; "
              "/cap/cat /proc/self/status | /bin/busybox grep CapEff; /bin/busybox grep CapEff /proc/self/status")
    assert output_of("--user", "5:6", "files", "--", "/bin/sh", "-c", script) == (
        "4711 33 44 2 1500000000\n1965-03-31 21:20:00.000000000 +0000\noddmore\n"
        "CapEff:\t0000000000002400\nCapEff:\t0000000000000000\n")


@pytest.mark.usefixtures("home")
def test_what_a_container_image_says(tmp_path):
    layer = write_tar(tmp_path / "layer.tar", ("bin/busybox", BUSYBOX, {"mode": 0o755}),
                      ("bin/sh", None, {"type": b"2", "linkname": "busybox"}),
                      ("srv", None, {"type": b"5", "mode": 0o755})).read_bytes()
    oci_layout(tmp_path / "layout", [layer], {
        "Entrypoint": ["/bin/busybox", "sh", "-c"],
        "Cmd": ["echo $WHO $(/bin/busybox id -u):$(/bin/busybox id -g) $(/bin/busybox pwd)"],
        "Env": ["WHO=image"], "WorkingDir": "/srv", "User": "33:44"})
    build("-t", "app", f"oci:{tmp_path}/layout:latest")
    assert output_of("app") == "image 33:44 /srv\n"
    # What is asked for comes before what the image says.
    assert output_of("--env", "WHO=me", "--user", "0", "--workdir", "/bin", "app", "--",
                     "echo $WHO $(/bin/busybox id -u) $(/bin/busybox pwd)") == "me 0 /bin\n"


@pytest.mark.usefixtures("home")
def test_two_vms_share_an_image_and_do_not_meet(tmp_path):
    build("-t", "shared", write_tar(tmp_path / "files.tar",
                                    ("bin/busybox", BUSYBOX, {"mode": 0o755}),
                                    ("file", b"as built", {})))
    script = "/bin/busybox cat /file; echo changed > /file; read line; /bin/busybox cat /file"
    command = [TOP / "build" / "release" / "mote", "run", "-i", "shared", "--", "/bin/busybox",
               "sh", "-c", script]
    vms = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
           for _ in range(2)]
    for vm in vms:
        assert vm.stdout.read(8) == b"as built"
    for vm in vms:
        assert vm.communicate(b"go\n")[0] == b"changed\n"


@pytest.mark.usefixtures("home")
def test_an_image_that_there_is_not():
    result = run_mote("run", "nowhere", "--", "true")
    assert result.returncode == 125
    assert result.stderr.startswith(b"mote: image nowhere: ") and result.stderr.count(b"\n") == 1

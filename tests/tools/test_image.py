# SPDX-License-Identifier: Apache-2.0
"""mote image: what is built, from what, and what is refused. As root, like most of CI; one test builds as
an ordinary user, whose /etc/subuid it brings along."""
import concurrent.futures
import contextlib
import fcntl
import hashlib
import http.server
import json
import os
import pathlib
import re
import select
import signal
import stat
import subprocess
import tarfile

import pytest

from images import (build, data_home, extracted, inspect, is_empty,  # noqa: F401
                    make_tree, mode_of, mote_image, shown)
from sources import oci_layout, write_tar
from support import MOTE, TIME_LIMIT, TOP, running, wait_until

LONG = "n" * 254  # the most that erofs-utils 1.5 takes


def test_directory_with_all_kinds_of_files(home, tmp_path):
    top = tmp_path / "source"
    make_tree(top, ["bin/program", "odd \n'\"*\u00e9", LONG])
    os.chmod(top / "bin" / "program", 0o4755)
    os.link(top / "bin" / "program", top / "same")
    os.symlink("/nowhere/../else", top / "link")
    os.mkfifo(top / "fifo")
    os.mknod(top / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.chown(top / LONG, 1234, 4321)
    os.setxattr(top / "same", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    with open(top / "empty", "wb"):
        pass
    build(top)
    assert inspect("source")["source"] == f"dir:{top}"
    out = extracted("source", tmp_path / "out")
    names = {str(path.relative_to(out)) for path in out.rglob("*")}
    assert names == {str(path.relative_to(top)) for path in top.rglob("*")}
    for name in names - {"fifo", "null", "link"}:
        ours, theirs = os.stat(top / name), os.stat(out / name)
        # The tool that extracts leaves out setuid.
        assert (ours.st_mode & ~0o7000, ours.st_uid, ours.st_gid, int(ours.st_mtime)) == \
            (theirs.st_mode, theirs.st_uid, theirs.st_gid, int(theirs.st_mtime)), name
    assert (out / "odd \n'\"*\u00e9").read_bytes() == "odd \n'\"*\u00e9".encode()
    assert os.readlink(out / "link") == "/nowhere/../else"
    listing = shown("source", "/same")
    assert "Links: 2" in listing and "Xattr size: 0" not in listing
    assert mode_of("source", "/same") == 0o4755


def test_a_name_too_long_for_the_format_is_named(home, tmp_path):
    make_tree(tmp_path / "source", ["sub/" + LONG + "n"])
    result = mote_image("build", tmp_path / "source")
    assert result.stderr == (f"mote: {tmp_path}/source: sub/{LONG}n: the name is too long for erofs "
                             "(try --format ext4)\n")
    build("--format", "ext4", tmp_path / "source")


def test_control_characters_of_a_name_do_not_reach_the_terminal(home, tmp_path):
    make_tree(tmp_path / "source", ["\x1b[2J" + "n" * 251])
    result = mote_image("build", tmp_path / "source")
    assert result.returncode == 1 and f"?[2J{'n' * 251}: the name is too long" in result.stderr
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("kind", ["erofs", "ext4"])
def test_times_before_1970(home, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("TZ", "UTC")
    top = tmp_path / "source"
    make_tree(top, ["new", "old", "older"])
    os.utime(top / "old", (-3, -3))
    os.utime(top / "older", (-150_000_000, -150_000_000))
    build("--format", kind, top)
    for name, shows in (("new", "May 13 16:53:20 2014|2014-05-13 16:53:20"),
                        ("old", "Dec 31 23:59:57 1969|1969-12-31 23:59:57"),
                        ("older", "Mar 31 21:20:00 1965|1965-03-31 21:20:00")):
        said = shown("source", f"/{name}") if kind == "erofs" else subprocess.run(
            ["debugfs", "-R", f"stat /{name}", inspect("source")["file"]], capture_output=True, text=True, check=True).stdout
        assert re.search(shows, said), said


def test_ext4_has_the_root_directory_and_the_longest_links(home, tmp_path):
    top = tmp_path / "source"
    make_tree(top, ["file"])
    os.symlink("t" * 4000, top / "link")
    os.chown(top, 3, 4)
    os.chmod(top, 0o1711)
    os.utime(top, (1_400_000_002, 1_400_000_002))
    build("--format", "ext4", top)

    def said(path):
        return subprocess.run(["debugfs", "-R", f"stat {path}", inspect("source")["file"]], capture_output=True,
                              text=True, check=True).stdout
    assert re.search(r"Type: directory +Mode: +01711 .*User: +3 +Group: +4 .*mtime: 0x53724e02:", said("/"), re.DOTALL)
    assert "Size: 4000\n" in said("/link")


@pytest.mark.parametrize("kind", ["erofs", "ext4"])
def test_same_input_gives_the_same_bytes(home, tmp_path, kind):
    names = [f"{folder}/{number}" for folder in "cab" for number in range(40)]
    digests = set()
    for order in (names, names[::-1], sorted(names, key=lambda name: hashlib.md5(name.encode()).digest())):
        top = tmp_path / f"source{len(digests)}{order[0][0]}"
        make_tree(top, order)
        digests.add(build("-t", "same", "--format", kind, top))
    assert len(digests) == 1
    # The digest is the bytes': of no configuration and the image.
    path = pathlib.Path(inspect("same")["file"])
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digests.pop()


TRIES = """#!/bin/bash
say() { printf '%s ' "$*"; }
for file in /usr/mote-test /mote-test /etc/mote-test /dev/mote-test; do
	! echo 2> /dev/null > $file || say wrote $file
done
for file in /etc/shadow /root /home /run /sys "$SECRET"; do
	! ls $file > /dev/null 2>&1 || say saw $file
done
! cat /proc/sys/kernel/core_pattern 2> /dev/null > /proc/sys/kernel/core_pattern || say set core_pattern
mknod /space/null c 1 3 && ! : 2> /dev/null < /space/null || say opened a device
! mount -t tmpfs none /space/tmp 2> /dev/null || say mounted
[ "$(grep -c : /proc/net/dev)" = 1 ] || say has a network
! head -c 200M /dev/zero 2> /dev/null > /space/tmp/zero || say wrote 200 MiB
[ "$(ls /proc | grep -c '^[0-9]')" -lt 10 ] || say saw processes
[ "$(ls /proc/self/fd | tr '\\n' ' ')" = "0 1 2 3 4 " ] || say has descriptors $(ls /proc/self/fd)
echo capabilities $(grep CapBnd /proc/self/status | cut -f 2)
exit 1
"""


def test_unpacking_is_confined(home, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tmp_path / "secret").write_text("secret")
    (tools / "mkfs.erofs").write_text(TRIES.replace("$SECRET", str(tmp_path / "secret")))
    (tools / "mkfs.erofs").chmod(0o755)
    path = write_tar(tmp_path / "files.tar", ("file", b"x", {}))
    result = mote_image("build", "--max-size", "16M", path,
                        env={**os.environ, "PATH": f"{tools}:/usr/sbin:/usr/bin"})
    # chown, dac_override, fowner, fsetid, mknod and setfcap.
    assert result.stderr == f"mote: {path}: mkfs.erofs: capabilities {0x8800001b:016x}\n"
    assert is_empty(home)


def test_directory_is_the_one_that_was_named(home, tmp_path):
    """And not what its owner has put at its path meanwhile."""
    make_tree(tmp_path / "source", ["mine"])
    make_tree(tmp_path / "secret", ["root's"])
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "setpriv").write_text(f"""#!/bin/sh
if [ ! -L {tmp_path}/source ]; then
	mv {tmp_path}/source {tmp_path}/moved
	ln -s {tmp_path}/secret {tmp_path}/source
fi
exec /usr/bin/setpriv "$@"
""")
    (tools / "setpriv").chmod(0o755)
    build("-t", "x", tmp_path / "source", env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"})
    assert os.listdir(extracted("x", tmp_path / "out")) == ["mine"]


def layer_bytes(tmp_path, *members):
    return write_tar(tmp_path / "layer.tar", *members).read_bytes()


CONFIG = {"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["date"], "Env": ["A=1", "B=two words"],
          "WorkingDir": "/srv", "User": "33:33", "Labels": {"not": "kept"}}


def test_oci_image_with_whiteouts(home, tmp_path):
    oci_layout(tmp_path / "layout", [
        layer_bytes(tmp_path, ("gone", b"1", {}), ("dir/old", b"2", {}), ("dir/other", b"3", {}),
                    ("stays", b"4", {"uid": 5}), ("changes", b"5", {})),
        layer_bytes(tmp_path, (".wh.gone", b"", {}), ("dir/.wh..wh..opq", b"", {}),
                    ("dir/new", b"6", {}), ("changes", b"7", {}))], CONFIG)
    digest = build("-t", "app", f"oci:{tmp_path}/layout:latest")
    out = extracted("app", tmp_path / "out")
    assert {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*")
            if path.is_file()} == {"stays": b"4", "changes": b"7", "dir/new": b"6"}
    assert os.stat(out / "stays").st_uid == 5
    image = inspect("app")
    assert (image["entrypoint"], image["cmd"], image["env"], image["workdir"], image["user"]) == (
        ["/bin/sh", "-c"], ["date"], ["A=1", "B=two words"], "/srv", "33:33")
    assert image["digest"] == digest

    # The same image as other tools write it.
    for transport in ("docker-archive", "oci-archive"):
        archive = tmp_path / f"{transport}.tar"
        subprocess.run(["skopeo", "--insecure-policy", "copy", "--quiet",
                        f"oci:{tmp_path}/layout:latest", f"{transport}:{archive}:app:latest"],
                       check=True)
        build("-t", "other", f"{transport}:{archive}")
        other = inspect("other")
        assert [other.get(key) for key in ("entrypoint", "cmd", "env", "workdir", "user")] == \
            [image[key] for key in ("entrypoint", "cmd", "env", "workdir", "user")]
        assert (extracted("other", tmp_path / transport) / "stays").read_bytes() == b"4"


def test_hostile_oci_layers(home, tmp_path):
    oci_layout(tmp_path / "layout", [layer_bytes(
        tmp_path, ("out", None, {"type": tarfile.SYMTYPE, "linkname": str(tmp_path)}),
        ("out/escaped", b"x", {}))], {})
    mote_image("build", "-t", "hostile", f"oci:{tmp_path}/layout:latest")
    assert not (tmp_path / "escaped").exists()
    result = mote_image("build", "-t", "x", f"oci:{tmp_path}/nowhere")
    assert result.returncode == 1 and result.stderr.count("\n") == 1


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "dir/.wh...", "dir/.wh../"])
def test_whiteouts_of_no_file_are_refused(home, tmp_path, name):
    oci_layout(tmp_path / "layout", [layer_bytes(tmp_path, ("dir/file", b"x", {})),
                                     layer_bytes(tmp_path, (name, b"", {}))], {})
    source = f"oci:{tmp_path}/layout:latest"
    result = mote_image("build", "-t", "x", source)
    assert (result.returncode, result.stderr) == (
        1, f"mote: {source}: layer 2: {name.rstrip('/')}: a whiteout of no file\n")
    assert is_empty(home)


class Listener(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append(self.path)
        self.send_error(404)

    def log_message(self, *_):
        pass


def test_nothing_is_fetched_for_an_image(home, tmp_path):
    """A descriptor may say that its blob lies on any server."""
    layout = tmp_path / "layout"
    oci_layout(layout, [layer_bytes(tmp_path, ("file", b"x", {}))], {})
    blobs = layout / "blobs" / "sha256"
    index = json.loads((layout / "index.json").read_text())
    described = index["manifests"][0]
    manifest = json.loads((blobs / described["digest"][7:]).read_text())
    with http.server.HTTPServer(("127.0.0.1", 0), Listener) as server:
        server.seen = []
        with running(server.serve_forever, stop=server.shutdown):
            manifest["config"]["urls"] = [f"http://127.0.0.1:{server.server_port}/config"]
            text = json.dumps(manifest).encode()
            described.update(digest=f"sha256:{hashlib.sha256(text).hexdigest()}", size=len(text))
            (blobs / described["digest"][7:]).write_bytes(text)
            (layout / "index.json").write_text(json.dumps(index))
            result = mote_image("build", "-t", "x", f"oci:{layout}:latest")
    assert server.seen == []
    assert (result.returncode, result.stderr) == (
        1, f"mote: oci:{layout}:latest: it is not whole: what it refers to on a network is not fetched\n")
    assert is_empty(home)


def test_temporary_files_are_the_builds_own(home, tmp_path):
    """skopeo unpacks an archive first, and not to the host's /var/tmp."""
    oci_layout(tmp_path / "layout", [layer_bytes(tmp_path, ("file", os.urandom(4 << 20), {}))], {})
    subprocess.run(["skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{tmp_path}/layout:latest",
                    f"oci-archive:{tmp_path}/app.tar:latest"], check=True)
    source = f"oci-archive:{tmp_path}/app.tar:latest"
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", 'mount -t tmpfs -o size=1M none /var/tmp; exec "$@"', "sh", MOTE,
         "image", "build", "-t", "app", source],
        capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    result = mote_image("build", "-t", "app", "--max-size", "2M", source)
    assert (result.returncode, result.stderr) == (
        1, f"mote: {source}: its files are more than the 2 MiB of --max-size\n")


def test_images_have_names(home, tmp_path):
    source = tmp_path / "tree"
    make_tree(source, ["file"])
    other = tmp_path / "other"
    make_tree(other, ["another"])
    result = mote_image("ls")
    assert (result.returncode, result.stdout) == (0, "")
    digest = build("-t", "one", source)
    assert build("-t", "two", source) == digest
    assert len(os.listdir(home / "blobs")) == 2
    # A name that moves on leaves nothing without a name.
    assert build("-t", "two", other) != digest
    assert len(os.listdir(home / "blobs")) == 4
    build("-t", "one", other)
    assert len(os.listdir(home / "blobs")) == 2
    listed = json.loads(mote_image("ls", "--json").stdout)
    assert [image["name"] for image in listed] == ["one", "two"]
    assert listed[0]["size"] == os.stat(listed[0]["file"]).st_size
    assert [line.split()[0] for line in mote_image("ls").stdout.splitlines()] == ["one", "two"]
    assert mote_image("rm", "one").returncode == 0
    assert len(os.listdir(home / "blobs")) == 2
    result = mote_image("rm", "one", "two")
    assert (result.returncode, result.stderr) == (
        1, "mote: image one: there is none of this name (`mote image ls` shows them)\n")
    assert is_empty(home)


@pytest.mark.parametrize("name", ["", "A", "../x", ".x", "a/B", "a%b", "a" * 129, "a b", "a\nb"])
def test_bad_names(home, tmp_path, name):
    result = mote_image("build", "-t", name, tmp_path)
    shown = name.replace("\n", "?")
    assert result.returncode == 1 and result.stderr.startswith(f"mote: image name {shown}: ")
    assert not home.exists() or is_empty(home)


@pytest.mark.parametrize("arguments,status", [
    ([], 2), (["build"], 2), (["build", "a", "b"], 2), (["build", "--format", "xfs", "."], 2),
    (["build", "--debian", "x"], 2), (["build", "--max-size", "1Q", "."], 2), (["inspect"], 2),
    (["rm"], 2), (["ls", "x"], 2), (["other"], 2),
    (["build", "/no/such"], 1), (["build", "oci:x"], 1), (["build", "/dev/null"], 1), (["inspect", "none"], 1)])
def test_wrong_usage(home, arguments, status):
    result = mote_image(*arguments)
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr


def test_builds_at_once(home, tmp_path):
    sources = []
    for number in range(4):
        sources.append(tmp_path / f"tree{number % 2}-{number}")
        make_tree(sources[-1], [f"file{number % 2}"])
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(lambda source: build("-t", "same", source), sources * 4))
    assert len(set(digests)) == 2
    image = inspect("same")
    assert image["digest"] in digests
    assert sorted(os.listdir(home / "blobs")) == [f"{image['digest']}.erofs",
                                                  f"{image['digest']}.json"]
    assert os.listdir(home / "scratch") == []


@contextlib.contextmanager
def stuck_build(tmp_path, monkeypatch):
    """A build that has unpacked, and then says so and waits for ever."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    begun = tools / "begun"
    os.mkfifo(begun)
    reader = os.open(begun, os.O_RDONLY | os.O_NONBLOCK)
    (tools / "mkfs.erofs").write_text(f"#!/bin/sh\necho $$ > {begun}\nexec tail -f /dev/null\n")
    (tools / "mkfs.erofs").chmod(0o755)
    source = write_tar(tmp_path / "stuck.tar", ("file", b"x", {}))
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    with subprocess.Popen([MOTE, "image", "build", source], env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert select.select([reader], [], [], TIME_LIMIT)[0], "the build never began"
            yield process
        finally:
            process.kill()
    os.close(reader)
    begun.unlink()


def tails():
    """Processes of a stuck build."""
    found = subprocess.run(["pgrep", "-fx", "tail -f /dev/null"], capture_output=True, check=False)
    return found.stdout.split()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_build_leaves_nothing(home, tmp_path, monkeypatch, number):
    before = tails()
    with stuck_build(tmp_path, monkeypatch) as process:
        process.send_signal(number)
        _, said = process.communicate(timeout=TIME_LIMIT)
    assert process.returncode == 130
    assert said.endswith(b"stuck.tar: interrupted\n")
    assert is_empty(home) and tails() == before


def is_unlocked(folder):
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(held)


def test_killed_build_is_cleaned_up_by_the_next(home, tmp_path, monkeypatch):
    before = tails()
    with stuck_build(tmp_path, monkeypatch) as process:
        process.kill()
        process.wait()
    wait_until(lambda: tails() == before, "the build's processes to end")
    scratch, = (home / "scratch").iterdir()
    wait_until(lambda: is_unlocked(scratch), "the build's last process to end")
    source = tmp_path / "tree"
    make_tree(source, ["file"])
    build("-t", "next", source)
    assert os.listdir(home / "scratch") == [] and tails() == before


def test_tool_that_is_missing_is_named_with_its_package(home, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for program in ("bash", "setpriv", "unshare", "id", "date", "mkdir", "rm", "find", "sort", "du", "cut",
                    "tail", "bwrap", "realpath", "dirname"):
        os.symlink(subprocess.run(["which", program], capture_output=True, text=True,
                                  check=True).stdout.strip(), tools / program)
    source = tmp_path / "tree"
    make_tree(source, ["file"])
    result = mote_image("build", source, env={**os.environ, "PATH": str(tools)})
    assert result.stderr == (f"mote: {source}: mkfs.erofs is missing: install the Debian package "
                             "erofs-utils\n")


# Who it is, and which ids are its own, for the processes in a mount namespace of their own.
AS_USER = """
cp /etc/passwd "$1/passwd"
echo "mote-test:x:54321:54321::$1/home:/bin/sh" >> "$1/passwd"
echo "$3" > "$1/subids"
mount --bind "$1/passwd" /etc/passwd
for file in /etc/subuid /etc/subgid; do mount --bind "$1/subids" "$file"; done
[ -e "$1/fuse" ] || mknod --mode 666 "$1/fuse" c 10 229
mount --bind "$1/fuse" /dev/fuse
chown 54321:54321 "$1/home"
cd "$1/home"
exec setpriv --reuid 54321 --regid 54321 --clear-groups env HOME="$1/home" "$2" image build "$1/files.tar"
"""


def build_as_user(tmp_path, ids, *members):
    (tmp_path / "home").mkdir(exist_ok=True)
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    write_tar(tmp_path / "files.tar", ("file", b"x", {"uid": 33, "gid": 44, "mode": 0o4755}), *members)
    return subprocess.run(["unshare", "--mount", "bash", "-ec", AS_USER, "bash", tmp_path, MOTE,
                           ids], capture_output=True, text=True, timeout=TIME_LIMIT, check=False,
                          env={key: value for key, value in os.environ.items()
                               if key != "XDG_DATA_HOME"})


@pytest.fixture(name="subids")
def subid_files():
    """Mount points, where the machine has no such users."""
    made = [path for path in map(pathlib.Path, ("/etc/subuid", "/etc/subgid"))
            if not path.exists()]
    for path in made:
        path.touch()
    yield
    for path in made:
        path.unlink()


@pytest.mark.usefixtures("subids")
def test_an_ordinary_user_builds_the_same_image(home, tmp_path):
    result = build_as_user(tmp_path, "mote-test:700000:65536")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.strip() == build(tmp_path / "files.tar")
    state = os.stat(extracted("files", tmp_path / "out") / "file")
    assert (state.st_uid, state.st_gid) == (33, 44)
    assert mode_of("files", "/file") == 0o4755


@pytest.mark.usefixtures("subids")
def test_an_ordinary_user_without_ids_is_told(tmp_path):
    result = build_as_user(tmp_path, "other:700000:65536")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and "/etc/subuid" in result.stderr


@pytest.mark.usefixtures("subids")
def test_what_an_ordinary_user_cannot_unpack_is_said(home, tmp_path):
    """Device nodes are left out; files of users that it has no ids for are an error, as with podman."""
    device = ("null", None, {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})
    result = build_as_user(tmp_path, "mote-test:700000:65536", device)
    assert result.returncode == 0
    assert result.stderr == (f"mote: {tmp_path}/files.tar: warning: device nodes are left out, which root alone can "
                             "make: 1\n")
    assert result.stdout.strip() != build(tmp_path / "files.tar")
    result = build_as_user(tmp_path, "mote-test:700000:65536", ("far", b"x", {"uid": 70_000}))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (f"mote: {tmp_path}/files.tar: far: its owner 70000:0 is not among the ids that "
                             "/etc/subuid and /etc/subgid give\n")


def test_debian_packages(tmp_path, monkeypatch):
    """The archive's newest packages, from the host's own mirrors, as `make test` has built them."""
    monkeypatch.setenv("XDG_DATA_HOME", str(TOP / "build" / "data"))
    out = extracted("python", tmp_path / "out")
    assert (out / "usr/bin/python3").exists() and (out / "bin/sh").exists()
    # A source and what python compiled of it fit together: its time is in the latter.
    cached, = (out / "usr/lib/python3.11/__pycache__").glob("os.cpython-311.pyc")
    assert int.from_bytes(cached.read_bytes()[8:12], "little") == \
        int(os.stat(out / "usr/lib/python3.11/os.py").st_mtime)


def test_debian_package_that_there_is_not(home):
    result = mote_image("build", "-t", "x", "--debian", "no-such-package-at-all")
    assert result.returncode == 1
    assert "no-such-package-at-all" in result.stderr and result.stderr.count("\n") == 1
    assert is_empty(home)


def saved(tmp_path, transport, architecture="amd64"):
    """What `docker save` and `podman save` write, of an image with one file."""
    folder = tmp_path / f"layout-{architecture}"
    if not folder.exists():
        oci_layout(folder, [layer_bytes(tmp_path, ("file", b"x", {}))], {"Cmd": ["file"]}, architecture)
    archive = tmp_path / f"{transport}-{architecture}.tar"
    if not archive.exists():
        subprocess.run(["skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{folder}:latest",
                        f"{transport}:{archive}:app:1"], check=True)
    return archive


@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize("compress", [None, "gzip", "zstd"])
def test_archives_of_images_are_known_with_and_without_their_prefix(home, tmp_path, transport, compress):
    archive = saved(tmp_path, transport)
    if compress:
        packed = tmp_path / "app"
        with open(packed, "wb") as out:
            subprocess.run([compress, "-c", archive], stdout=out, check=True)
        archive = packed
    digests = {build("-t", "app", f"{prefix}{archive}")
               for prefix in ("", "docker-archive:", "oci-archive:")}
    assert len(digests) == 1
    assert inspect("app")["cmd"] == ["file"]


def test_a_layout_is_known_without_its_prefix(home, tmp_path):
    saved(tmp_path, "docker-archive")
    build("-t", "app", tmp_path / "layout-amd64")
    assert inspect("app")["cmd"] == ["file"]


def test_a_root_file_system_is_not_taken_for_an_image(home, tmp_path):
    path = write_tar(tmp_path / "files.tar", ("manifest.json", b"{}", {}), ("bin/sh", b"x", {}))
    result = mote_image("build", "-t", "x", f"docker-archive:{path}")
    assert (result.returncode, result.stderr) == (
        1, f"mote: docker-archive:{path}: it is the tarball of a root file system, not of an image (without "
           '"docker-archive:" before its name it is taken)\n')
    build("-t", "x", path)
    assert sorted(os.listdir(extracted("x", tmp_path / "out"))) == ["bin", "manifest.json"]


def test_programs_for_another_architecture_are_warned_of(home, tmp_path):
    archive = saved(tmp_path, "docker-archive", "arm64")
    result = mote_image("build", "-t", "app", archive)
    assert (result.returncode, result.stderr) == (
        0, f"mote: {archive}: warning: its programs are for arm64, and a microVM here runs those for amd64\n")

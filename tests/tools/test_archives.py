# SPDX-License-Identifier: Apache-2.0
"""mote image save, load and push: what survives, and for whom."""
import base64
import hashlib
import io
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import tarfile

import pytest

from images import build, data_home, extracted, inspect, is_empty, mote_image  # noqa: F401
from sources import oci_layout, write_tar
from support import MOTE, OPENAT, TIME_LIMIT, TOP, WRITE, wait_until_called
from test_registry import registry

PACK = TOP / "build" / "release" / "pack-image"
CAPABILITY = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
CONFIG = {"Entrypoint": ["/e"], "Cmd": ["c"], "Env": ["A=b"], "User": "u:g", "WorkingDir": "/w", "StopSignal": "SIGINT",
          "ExposedPorts": {"80/tcp": {}}, "Labels": {"a": "\u00e4\nb"}, "Volumes": {"/v": {}},
          "Healthcheck": {"Test": ["NONE"]}}
ODD = "odd \n'\"*\u00e9"
FILES = [
    ("./", None, {"type": tarfile.DIRTYPE, "mode": 0o1711, "uid": 3, "gid": 4, "mtime": -86400}),
    ("a", b"content", {"mode": 0o6755, "uid": 1_000_000, "gid": 70_000, "mtime": -150_000_000, "pax_headers": {
        "SCHILY.xattr.security.capability": CAPABILITY, "SCHILY.xattr.user.a": "b\nc", "SCHILY.xattr.user.empty": ""}}),
    ("block", b"x" * 4096, {"mtime": -10.25}),
    ("d", None, {"type": tarfile.DIRTYPE, "mode": 0o2770}),
    (f"d/{ODD}", b"y" * 10_000, {"mtime": 1_600_000_000.25}),
    ("d/zlink", None, {"type": tarfile.LNKTYPE, "linkname": "a"}),
    ("fifo", None, {"type": tarfile.FIFOTYPE}),
    ("l" * 250, None, {"type": tarfile.SYMTYPE, "mode": 0o777, "linkname": "t" * 3000}),
    ("null", None, {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3, "mode": 0o666}),
    ("disk", None, {"type": tarfile.BLKTYPE, "devmajor": 259, "devminor": 1048575}),
]


def members(data):
    """All that a layer says of its files; their times to the second."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: (member.type, member.mode, member.uid, member.gid, member.mtime // 1, member.linkname,
                              member.devmajor, member.devminor,
                              {key: value for key, value in member.pax_headers.items() if "xattr" in key},
                              member.isreg() and tar.extractfile(member).read()) for member in tar}


def parts(path):
    """Name, configuration and layer of an archive with one image."""
    with tarfile.open(path) as tar:
        described, = json.load(tar.extractfile("manifest.json"))
        config, (layer,) = described["Config"], described["Layers"]
        config, layer = (tar.extractfile(name).read() for name in (config, layer))
        assert described["Config"] == hashlib.sha256(config).hexdigest() + ".json"
    config = json.loads(config)
    assert config["rootfs"] == {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}
    assert sum(not step.get("empty_layer") for step in config["history"]) == 1
    return described["RepoTags"], config, layer


def made(tmp_path, *options, name="app", layers=1, config=None):
    """An image of FILES."""
    path = write_tar(tmp_path / "files.tar", *FILES)
    layout = tmp_path / "layout"
    if not layout.exists():
        oci_layout(layout, [path.read_bytes()] * layers, CONFIG if config is None else config)
    build("-t", name, *options, layout)


def saved(name, path):
    result = mote_image("save", "-o", path, name)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    return path


@pytest.mark.parametrize("kind", ["erofs", "ext4"])
def test_what_survives_an_archive(home, tmp_path, kind):
    made(tmp_path, "--format", kind, layers=2)
    tags, config, layer = parts(saved("app", tmp_path / "one"))
    assert tags == ["docker.io/library/app:latest"]
    assert (config["config"], config["os"], config["architecture"]) == (CONFIG, "linux", "amd64")
    # The target of a link is too long for a name in ext4's inode, and for ustar.
    expected = members((tmp_path / "files.tar").read_bytes())
    found = members(layer)
    assert set(found) == set(expected)
    first = found["a"]
    assert found["d/zlink"][0] == tarfile.LNKTYPE and first[9] == b"content"
    for name in set(expected) - {"d/zlink"}:
        assert found[name] == expected[name], name
    # And back again.
    assert mote_image("rm", "app").returncode == 0 and is_empty(home)
    result = mote_image("load", "-i", tmp_path / "one")
    assert (result.returncode, result.stdout, result.stderr) == (
        0, "Loaded image: docker.io/library/app:latest\n", "")
    assert (inspect("app")["cmd"], inspect("app")["user"], inspect("app")["stop_signal"]) == (["c"], "u:g", "SIGINT")
    assert parts(saved("app", tmp_path / "two"))[2] == layer
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_others_read_it_and_the_stream_is_the_file(home, tmp_path):
    made(tmp_path)
    path = saved("app", tmp_path / "app.tar")
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()
    said = json.loads(subprocess.run(["skopeo", "inspect", "--config", "--raw", f"docker-archive:{path}"], check=True,
                                     stdout=subprocess.PIPE, timeout=TIME_LIMIT).stdout)
    assert said["config"] == CONFIG
    with subprocess.Popen([MOTE, "image", "save", "app"], stdout=subprocess.PIPE) as saving:
        loaded = subprocess.run([MOTE, "image", "load"], stdin=saving.stdout, capture_output=True, text=True,
                                timeout=TIME_LIMIT, check=False)
    assert (saving.returncode, loaded.returncode, loaded.stderr) == (0, 0, "")
    with open(tmp_path / "stream", "wb") as out:
        subprocess.run([MOTE, "image", "save", "app"], stdout=out, check=True, timeout=TIME_LIMIT)
    assert (tmp_path / "stream").read_bytes() == path.read_bytes()
    with open("/dev/full", "wb") as full:
        result = subprocess.run([MOTE, "image", "save", "app"], stdout=full, stderr=subprocess.PIPE, text=True,
                                timeout=TIME_LIMIT, check=False)
    assert (result.returncode, result.stderr) == (1, "mote: standard output: No space left on device\n")
    # A link stays one.
    (tmp_path / "before").write_text("before")
    (tmp_path / "link").symlink_to("before")
    saved("app", tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "before").read_bytes() == path.read_bytes()
    assert os.listdir(home / "scratch") == []


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_image_without_a_configuration(home, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").touch()
    build("-t", "tree", tmp_path / "tree")
    _, config, layer = parts(saved("tree", tmp_path / "one"))
    assert (config["config"], config["os"], config["architecture"]) == ({}, "linux", "amd64")
    assert sorted(members(layer)) == [".", "file"]


@pytest.mark.parametrize("kept", [True, False])
def test_lost_and_found_of_ext4(home, tmp_path, kept):
    """It is mke2fs's own, unless the source has put something in it."""
    (tmp_path / "tree" / "lost+found").mkdir(parents=True)
    if kept:
        (tmp_path / "tree" / "lost+found" / "keep").write_text("kept")
    build("-t", "tree", "--format", "ext4", tmp_path / "tree")
    found = members(parts(saved("tree", tmp_path / "one"))[2])
    assert sorted(found) == [".", *(["lost+found", "lost+found/keep"] if kept else [])]
    assert not kept or found["lost+found/keep"][9] == b"kept"


def test_all_images_and_names_of_an_archive(home, tmp_path):
    made(tmp_path)
    path = saved("app", tmp_path / "one.tar")
    with tarfile.open(path) as tar:
        described, = json.load(tar.extractfile("manifest.json"))
        rest = [(name, tar.extractfile(name).read(), {}) for name in (described["Config"], *described["Layers"])]

    def archive(*tags):
        manifest = json.dumps([described | {"RepoTags": names} for names in tags]).encode()
        return write_tar(tmp_path / "many.tar", *rest, ("manifest.json", manifest, {}))

    subprocess.run(["gzip", archive(["one:1", "localhost/two:2"], ["a.example:5000/three/four:x"])], check=True)
    result = mote_image("load", "--input", tmp_path / "many.tar.gz")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == ("Loaded image: docker.io/library/one:1\nLoaded image: localhost/two:2\n"
                             "Loaded image: a.example:5000/three/four:x\n")
    assert inspect("one:1")["digest"] == inspect("localhost/two:2")["digest"] == \
        inspect("a.example:5000/three/four:x")["digest"]
    for tags, said in (
            ([["x:1"], []], "image 2 in it has no name (`mote image build -t NAME docker-archive:FILE:@1` takes it)"),
            ([None], "image 1 in it has no name (`mote image build -t NAME docker-archive:FILE:@0` takes it)"),
            ([["x:1 y"]], "manifest.json: it is no list of images and names"),
            ([["x:1\n\u001b[2J"]], "manifest.json: it is no list of images and names"),
            ([["x:1"]] * 1001, "manifest.json: 1001 images are more than 1000"),
            ([["../x"]], None), ([7], "manifest.json: it is no list of images and names"),
            ([], "manifest.json: it is no list of images and names")):
        result = mote_image("load", "-i", archive(*tags))
        assert result.returncode == 1 and result.stderr.count("\n") == 1, result.stderr
        assert result.stderr == (f"mote: {tmp_path}/many.tar: {said}\n" if said else
                                 "mote: image name ../x: it is not like alpine:3.20 or "
                                 "registry.example.org/team/app:1.0\n")
    assert os.listdir(home / "scratch") == []


def test_what_cannot_be_loaded(home, tmp_path):
    path = write_tar(tmp_path / "files.tar", ("file", b"x", {}))
    (tmp_path / "text").write_text("no archive")
    oci_layout(tmp_path / "layout", [path.read_bytes()], {})
    subprocess.run(["skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{tmp_path}/layout:latest",
                    f"oci-archive:{tmp_path}/oci.tar:x"], check=True)
    for name, said in (("files.tar", "it is no archive of images (`mote image build -t NAME` takes it)"),
                       ("oci.tar", "it is an OCI archive, which has no names as docker's have (`mote image build "
                                   "-t NAME` takes it)"),
                       ("text", "Unrecognized archive format"), ("none", "No such file or directory"),
                       (".", "Is a directory")):
        result = mote_image("load", "-i", tmp_path / name)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == f"mote: {tmp_path / name}: {said}\n"
    result = mote_image("load", stdin=subprocess.DEVNULL)
    assert result.returncode == 1 and result.stderr.startswith("mote: standard input: ")
    with open(tmp_path / "large", "wb") as large:
        large.truncate(80 << 20)
    with subprocess.Popen(["cat", tmp_path / "large"], stdout=subprocess.PIPE) as cat:
        result = mote_image("load", "--max-size", "1M", stdin=cat.stdout)
    assert (result.returncode, result.stderr) == (
        1, "mote: standard input: its files are more than the 1 MiB of --max-size\n")
    assert is_empty(home)


@pytest.mark.parametrize("call", [OPENAT, WRITE])
def test_reader_that_does_not_come_or_does_not_read(home, tmp_path, call):
    """A signal ends the wait, and nothing is left of the archive."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"x" * (1 << 20))
    build("-t", "tree", tmp_path / "tree")
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK) if call == WRITE else None
    with subprocess.Popen([MOTE, "image", "save", "-o", tmp_path / "fifo", "tree"]) as saving:
        wait_until_called(saving.pid, call)
        saving.send_signal(signal.SIGINT)
        assert saving.wait(TIME_LIMIT) == -signal.SIGINT
    if reader is not None:
        os.close(reader)
    assert (tmp_path / "fifo").is_fifo() and os.listdir(home / "scratch") == []


def test_what_cannot_be_saved(home, tmp_path):
    (tmp_path / "tree").mkdir()
    with open(tmp_path / "tree" / "file", "wb") as file:
        file.write(b"x" * (3 << 20))
    build("-t", "tree", tmp_path / "tree")
    build("-t", "a-", tmp_path / "tree")
    pinned = "a.example/app@sha256:" + "0" * 64
    build("-t", pinned, tmp_path / "tree")
    out = tmp_path / "out"
    for arguments, said in (
            (("none",), "image none: there is none of this name (`mote image ls` shows them)"),
            (("a-",), "image name a-: it is not like alpine:3.20 or registry.example.org/team/app:1.0"),
            ((pinned,), f"image {pinned}: a digest is no name in an archive or a registry; give it one by "
                        "`mote image tag`"),
            (("--max-size", "2M", "tree"), "tree: its files are more than the 2 MiB of --max-size")):
        result = mote_image("save", "-o", out, *arguments)
        assert (result.returncode, result.stdout, result.stderr) == (1, "", f"mote: {said}\n")
    result = mote_image("save", "-o", tmp_path / "no" / "out", "tree")
    assert (result.returncode, result.stderr) == (1, f"mote: {tmp_path}/no/out: No such file or directory\n")
    result = mote_image("save", "-o", "/dev/full", "tree")
    assert (result.returncode, result.stderr) == (1, "mote: /dev/full: No space left on device\n")
    out.write_text("before")
    with subprocess.Popen(["sh", "-c", 'ulimit -f 1024; trap "" XFSZ; exec "$@"', "sh", MOTE, "image", "save", "-o",
                           out, "tree"], stderr=subprocess.PIPE, text=True) as process:
        assert "mote: " in process.communicate(timeout=TIME_LIMIT)[1]
    assert out.read_text() == "before" and sorted(os.listdir(tmp_path)) == ["data", "out", "tree"]
    assert os.listdir(home / "scratch") == []


def test_a_reference_to_push_to_is_not_cut(home, tmp_path):
    (tmp_path / "tree").mkdir()
    build("-t", "tree", tmp_path / "tree")
    # Nothing listens there, so that only what is refused before is told so.
    start = "localhost:1/" + "p" * 128 + ":"
    reference = start + "t" * (243 - len(start))
    for text in (reference, "docker://" + reference):
        result = mote_image("push", "tree", text)
        assert (result.returncode, result.stdout, result.stderr) == (
            1, "", f"mote: image name {reference}: it is longer than 240 characters\n")
    assert os.listdir(home / "scratch") == []


@pytest.mark.parametrize("arguments", [
    ("save",), ("save", "a", "b"), ("save", "-i", "x", "a"), ("load", "x"), ("load", "-o", "x"), ("push",),
    ("push", "a", "b", "c"), ("push", "-o", "x", "a"), ("save", "--max-size", "x", "a"), ("load", "-i")])
def test_wrong_usage(home, arguments):
    result = mote_image(*arguments)
    assert (result.returncode, result.stdout) == (2, "") and result.stderr


def test_no_archive_for_or_from_a_terminal(home):
    ours, theirs = pty.openpty()
    try:
        for word, streams in (("save app", {"stdout": theirs}), ("load", {"stdin": theirs})):
            result = subprocess.run([MOTE, "image", *word.split()], stderr=subprocess.PIPE, text=True, check=False,
                                    timeout=TIME_LIMIT, **streams)
            assert result.returncode == 2 and "terminal" in result.stderr
    finally:
        os.close(ours)
        os.close(theirs)


def test_sockets_are_left_out_with_a_warning(home, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").touch()
    with socket.socket(socket.AF_UNIX) as sock:
        os.chdir(tmp_path)
        sock.bind("tree/socket")
    build("-t", "tree", tmp_path / "tree")
    result = mote_image("save", "-o", tmp_path / "out", "tree")
    assert (result.returncode, result.stderr) == (
        0, "mote: tree: warning: sockets are left out, which a layer cannot hold: 1\n")
    assert sorted(members(parts(tmp_path / "out")[2])) == [".", "file"]


def test_push_and_pull(home, tmp_path, monkeypatch):
    """To where its name tells, and to elsewhere; with the credentials of the usual file."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    made(tmp_path)
    with registry(tmp_path / "registry", with_password=True) as server:
        result = mote_image("push", "app")
        assert (result.returncode, result.stderr) == (
            1, "mote: image app: its name has no registry; tell where to push it, like "
               "docker://registry.example.org/team/app\n")
        result = mote_image("push", "app", f"docker://{server}/team/app:1")
        assert result.returncode == 1 and result.stderr.count("\n") == 1
        assert result.stderr.startswith(f"mote: {server}/team/app:1: ") and "authentication required" in result.stderr
        path = tmp_path / "auth"
        path.write_text(json.dumps({"auths": {server: {"auth": base64.b64encode(b"user:secret").decode()}}}))
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(path))
        result = mote_image("push", "app", f"{server}/team/app:1")
        assert (result.returncode, result.stderr) == (0, "")
        pinned = result.stdout.strip()
        assert re.fullmatch(re.escape(server) + r"/team/app:1@sha256:[0-9a-f]{64}", pinned)
        assert mote_image("pull", pinned).returncode == 0
        assert mote_image("pull", f"{server}/team/app:1").returncode == 0
        pulled = inspect(f"{server}/team/app:1")
        assert pulled["digest"] == inspect(f"{server}/team/app@{pinned[-71:]}")["digest"]
        assert pulled["oci"]["config"] == CONFIG
        # The same bytes, wherever they come from.
        result = mote_image("push", f"{server}/team/app:1")
        assert (result.returncode, result.stdout) == (0, pinned + "\n")
    layer = parts(saved(f"{server}/team/app:1", tmp_path / "pulled"))[2]
    assert layer == parts(saved("app", tmp_path / "ours"))[2]
    assert os.listdir(home / "scratch") == []


def pack(path, image, kind="erofs", kib=1000):
    result = subprocess.run(["sh", "-c", 'ulimit -f 65536; exec "$@"', "sh", PACK, kind, image, path, str(kib)],
                            capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    assert not path.exists() or path.stat().st_size < 2 << 20
    return result


def test_hostile_file_systems(tmp_path):
    """A directory in itself, a name that leads out, a size beyond the image, and others."""
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "abcd").write_bytes(b"x" * 10)
    os.setxattr(tmp_path / "tree" / "sub" / "abcd", "user.a", b"b")
    image = tmp_path / "image"
    subprocess.run(["mkfs.erofs", "--quiet", image, tmp_path / "tree"], check=True)
    good = image.read_bytes()
    root = int.from_bytes(good[1024 + 14:1024 + 16], "little")
    assert pack(tmp_path / "good", image).returncode == 0

    def offset(path):
        said = subprocess.run(["dump.erofs", f"--path={path}", image], capture_output=True, text=True, check=True)
        return 32 * int(re.search(r"NID: (\d+)", said.stdout)[1])

    entry = good.index(b"abcd")
    sub = good.index(b"sub", 1100)
    cases = {
        "loop": (good.rindex((offset("/sub") // 32).to_bytes(8, "little"), 1100, sub), root.to_bytes(8, "little")),
        "slash": (entry, b"../x"),
        "zero": (entry, b"\0bcd"),
        "size": (offset("/sub/abcd") + 8, b"\xff" * 7),
        "layout": (offset("/sub/abcd"), bytes([good[offset("/sub/abcd")] | 6])),
        "mode": (offset("/sub/abcd") + 4, b"\xff\xff"),
        "attribute": (good.index(b"\x01\x01\x01\x00ab"), b"\xff\x01\xff\xff"),
        "value": (good.index(b"\x01\x01\x01\x00ab"), b"\x01\x01\x40\x00"),
        "prefix": (good.index(b"\x01\x01\x01\x00ab") + 1, b"\x09"),
        "node": (entry - 12 * 3, b"\xff" * 8),
        "block": (1024 + 12, b"\x20"),
        "feature": (1024 + 80, b"\x01"),
        "magic": (1024, b"\0"),
    }
    for name, (at, what) in cases.items():
        image.write_bytes(good[:at] + what + good[at + len(what):])
        result = pack(tmp_path / name, image)
        assert result.returncode == 1 and result.stderr.count("\n") == 1, (name, result)
        assert ("contradicts itself" in result.stderr) == (
            name not in ("size", "layout", "block", "feature", "magic")), result
    for cut in (0, 1100, entry, len(good) // 4096 * 4096 - 4096):
        image.write_bytes(good[:cut])
        assert pack(tmp_path / f"cut{cut}", image).returncode == 1
        assert pack(tmp_path / f"ext{cut}", image, "ext4").returncode == 1


def shared_erofs(path, levels, name_length):
    """Directories in each other, which have the same 4 MiB of names in common ("." and ".." for a length of 0).
    The next one's name, or that of the last one's file, follows the inode."""
    names = [b"x" * name_length] * (4096 // (12 + name_length)) if name_length else [b".", b".."]
    inodes = 4096 * 2
    blocks = inodes + -(-(levels + 1) * 128 // 4096) * 4096
    numbers = [4 * level for level in range(levels + 1)]

    def dirents(names, number):
        at, data = 12 * len(names), b""
        for name in names:
            data += struct.pack("<QHBB", number, at, 1, 0)
            at += len(name)
        return data + b"".join(names)

    size = 1024 * 4096
    image = bytearray(blocks)
    struct.pack_into("<I10xH", image, 1024, 0xe0f5e1e2, 0)
    image[1024 + 12] = 12
    struct.pack_into("<I", image, 1024 + 40, inodes >> 12)
    for level in range(levels):
        tail = dirents([b"!"], numbers[level + 1])
        struct.pack_into("<HHHHIIIIHHI", image, inodes + 128 * level, 2 << 1, 0, 0o40755, 2, size + len(tail), 0,
                         blocks >> 12, 0, 0, 0, 0)
        start = inodes + 128 * level + 32
        image[start:start + len(tail)] = tail
    struct.pack_into("<HHHHIIII", image, inodes + 128 * levels, 0, 0, 0o100644, 1, 0, 0, 0, 0)
    path.write_bytes(image + dirents(names, numbers[levels]).ljust(4096, b"\0") * 1024)


def test_names_in_common(tmp_path):
    """What costs an image nothing takes no memory without end."""
    shared_erofs(tmp_path / "image", 100, 255)
    result = pack(tmp_path / "names", tmp_path / "image", kib=1 << 20)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert re.fullmatch(r"!(/!)*: the names in it and the directories around it are more than 256 MiB\n", result.stderr)


def test_lists_in_common(tmp_path):
    """Nor does it take time without end."""
    shared_erofs(tmp_path / "image", 100, 0)
    result = pack(tmp_path / "lists", tmp_path / "image", kib=100_000)
    assert result.returncode == 1 and re.fullmatch(r"!(/!)*: File too large\n", result.stderr)

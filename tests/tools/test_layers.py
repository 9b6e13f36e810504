# SPDX-License-Identifier: Apache-2.0
"""Layers of OCI images, as `mote image build` unpacks them."""
import gzip
import hashlib
import io
import json
import os
import random
import stat
import subprocess
import tarfile

import pytest

from sources import oci_layout
from support import MOTE, TIME_LIMIT, TOP

UNPACK = TOP / "build" / "release" / "unpack-image"


@pytest.fixture(name="home")
def data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "mote" / "images"


def mote_image(*arguments):
    return subprocess.run([MOTE, "image", *map(str, arguments)], capture_output=True, text=True,
                          timeout=TIME_LIMIT, check=False)


def tar_bytes(*members):
    """Members are (name, content or None, attributes)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content, attributes in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(content or b""), 0o644, 1_500_000_000
            for key, value in attributes.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content or b""))
    return out.getvalue()


DIR = {"type": tarfile.DIRTYPE, "mode": 0o755}


def hard(target):
    return {"type": tarfile.LNKTYPE, "linkname": target}


def symbolic(target):
    return {"type": tarfile.SYMTYPE, "linkname": target}


def unpack(folder, layers, config=None):
    """By the program that builds use, into `folder`; the layers are put where skopeo would."""
    blobs = folder.with_name(f"{folder.name}-blobs")
    blobs.mkdir()
    folder.mkdir()

    def blob(data):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}"}

    manifest = {"config": blob(json.dumps(config or {"os": "linux", "architecture": "amd64"}).encode()),
                "layers": [blob(layer) for layer in layers]}
    (blobs / "manifest.json").write_text(json.dumps(manifest))
    (blobs / "config").touch()
    return subprocess.run(["sh", "-c", 'exec "$@" 3>&1', "sh", UNPACK, blobs, blobs / "config"], cwd=folder,
                          capture_output=True, text=True, timeout=TIME_LIMIT, check=False)


def unpacked(folder, *layers):
    result = unpack(folder, layers)
    assert (result.returncode, result.stderr) == (0, "")
    return folder


def tree(folder):
    """All that there is to say of its files."""
    found, first = {}, {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        name, state = str(path.relative_to(folder)), os.lstat(path)
        content = (os.readlink(path) if path.is_symlink() else
                   path.read_bytes() if stat.S_ISREG(state.st_mode) else None)
        found[name] = (stat.filemode(state.st_mode), state.st_uid, state.st_gid, state.st_mtime_ns, content,
                       first.setdefault(state.st_ino, name), state.st_rdev,
                       {key: os.getxattr(path, key, follow_symlinks=False)
                        for key in os.listxattr(path, follow_symlinks=False)})
    return found


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")
                  if path.is_symlink() or not path.is_dir())


@pytest.mark.parametrize("layers,expected", [
    ([[("d", None, DIR), ("d/old", b"", {})], [("d", None, DIR), ("d/new", b"", {}), ("d/.wh..wh..opq", b"", {})]],
     ["d/new"]),
    ([[("d", None, DIR), ("d/old", b"", {})], [("d/.wh..wh..opq", b"", {}), ("d/new", b"", {})]], ["d/new"]),
    ([[("d/s/old", b"", {})], [("d/s/new", b"", {}), ("d/.wh..wh..opq", b"", {})]], ["d/s/new"]),
    ([[("d", None, DIR), ("d/old", b"", {})], [("d", None, DIR), ("d/new", b"", {}), (".wh.d", b"", {})]],
     ["d/new"]),
    ([[("f", b"", {})], [(".wh.no", b"", {}), ("no/.wh.x", b"", {}), ("f/.wh.x", b"", {}), (".wh..wh.aufs", b"", {})]],
     ["f"]),
    ([[("f", b"", {}), (".wh.f", b"", {}), (".wh..wh..opq", b"", {})]], ["f"]),
    ([[("a", b"shared", {}), ("z", None, hard("a"))], [(".wh.a", b"", {})]], ["z"]),
    ([[("z", None, hard("y")), ("y", None, hard("a")), ("a", b"", {})]], ["a", "y", "z"]),
    ([[("o", b"", {})], [("no/such/h", None, hard("/o"))]], ["no/such/h", "o"]),
    ([[("o", b"", {}), ("o", None, hard("o"))]], ["o"]),
    ([[("l", None, symbolic("/nowhere")), ("h", None, hard("l"))]], ["h", "l"]),
    ([[("x", b"", {})], [("x/y", b"", {})]], ["x/y"]),
    ([[("x/y/z", b"", {})], [("x", b"", {})]], ["x"]),
    ([[("usr/bin/sh", b"", {}), ("bin", None, symbolic("usr/bin"))], [("bin/tool", b"", {}), ("bin/.wh.sh", b"", {})]],
     ["bin", "usr/bin/tool"]),
    ([[("e/keep", b"", {}), ("d", None, symbolic("e"))], [("d", None, DIR), ("d/.wh.keep", b"", {})]], ["e/keep"]),
    ([[("f%d" % number, b"", {})] for number in range(127)], sorted("f%d" % number for number in range(127))),
    ([[]], []),
])
def test_layers_and_whiteouts(tmp_path, layers, expected):
    root = unpacked(tmp_path / "root", *(tar_bytes(*layer) for layer in layers))
    assert names(root) == expected


def test_what_is_said_of_files(tmp_path):
    """Owners, modes, times before 1970, attributes; of the root directory, too."""
    caps = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    root = unpacked(tmp_path / "root", tar_bytes(
        ("./", None, DIR | {"mode": 0o1711, "uid": 3, "gid": 4, "mtime": -86400 * 400}),
        ("d", None, DIR | {"mode": 0o2555, "mtime": 77}),
        ("d/f", b"x", {"mode": 0o6755, "uid": 1, "gid": 2, "mtime": -7.25, "pax_headers": {
            "SCHILY.xattr.security.capability": caps, "SCHILY.xattr.user.a": "b",
            "SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.security.selinux": "z"}}),
        ("implied/f", b"", {}), ("p", None, {"type": tarfile.FIFOTYPE, "mode": 0o600})),
        # Neither what a layer adds nor what it removes makes the directory younger.
        tar_bytes(("d/g", b"", {}), ("d/.wh.g2", b"", {})))
    found = tree(root)
    assert found["."][:4] == ("drwx--x--t", 3, 4, -86400 * 400 * 10**9)
    assert found["d"][:4] == ("dr-xr-sr-x", 0, 0, 77 * 10**9)
    assert found["d/f"][:4] == ("-rwsr-sr-x", 1, 2, -7_250_000_000)
    assert found["d/f"][7] == {"security.capability": caps.encode("latin1"), "user.a": b"b"}
    assert found["implied"][:4] == ("drwxr-xr-x", 0, 0, 0)
    assert found["p"][0] == "prw-------"


def test_a_sparse_file_stays_so(tmp_path):
    with open(tmp_path / "hole", "wb") as out:
        out.truncate(64 << 20)
        out.seek(32 << 20)
        out.write(b"data")
    made = subprocess.run(["tar", "--sparse", "-c", "-C", tmp_path, "hole"], check=True, stdout=subprocess.PIPE)
    state = os.stat(unpacked(tmp_path / "root", made.stdout) / "hole")
    assert state.st_size == 64 << 20 and state.st_blocks * 512 < 1 << 20


@pytest.mark.parametrize("compress", [
    lambda data: data, gzip.compress, lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]),
    lambda data: subprocess.run(["zstd", "-qc"], input=data, check=True, stdout=subprocess.PIPE).stdout,
    # A frame that decoders skip, as it ends layers that are read in parts.
    lambda data: subprocess.run(["zstd", "-qc"], input=data, check=True, stdout=subprocess.PIPE).stdout
    + bytes.fromhex("502a4d1804000000") + b"skip",
], ids=["plain", "gzip", "gzip-members", "zstd", "zstd-frames"])
def test_compressions(tmp_path, compress):
    root = unpacked(tmp_path / "root", compress(tar_bytes(("f", b"content", {}))))
    assert (root / "f").read_bytes() == b"content"


@pytest.mark.parametrize("layer,said", [
    (tar_bytes(("../f", b"", {})), "layer 1: ../f: Path contains '..'"),
    (tar_bytes(("a", None, hard("b"))), "layer 1: a: a hard link to b, which is not there"),
    (tar_bytes(("a", None, hard("../b"))), "layer 1: a: a hard link to ../b: Path contains '..'"),
    (tar_bytes(("d", None, DIR), ("a", None, hard("d"))), "layer 1: a: a hard link to the directory d"),
    (tar_bytes(("a", None, hard("/"))), "layer 1: a: a hard link to the directory "),
    (tar_bytes((".", b"", {})), "layer 1: it has a file in the place of the root directory"),
    (tar_bytes(("n" * 256, b"", {})), f"layer 1: {'n' * 256}: File name too long"),
    (os.urandom(2000), "layer 1: Unrecognized archive format"),
    (tar_bytes(("f", b"x" * 5000, {}))[:3000], "layer 1: f: Truncated tar archive"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_hostile_layers(tmp_path, layer, said):
    (tmp_path / "b").write_bytes(b"")
    result = unpack(tmp_path / "root", [layer])
    assert (result.returncode, result.stderr) == (1, said + "\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "root", "root-blobs"]


class Random:
    """Sequences of layers that make sense: what is linked to is there, and so is what goes."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.kinds = {"": "dir"}  # of what is there

    def children(self, path):
        return [name for name in self.kinds if name.startswith(path + "/" if path else "") and name != path]

    def attributes(self, mode):
        choose = self.random.choice
        made = {"mode": mode, "uid": choose([0, 1, 1000, 65533]), "gid": choose([0, 7]),
                "mtime": choose([0, 1, 1_600_000_000, 1_600_000_000.25, 12345.5])}
        return made

    def directory(self):
        return self.random.choice([name for name, kind in self.kinds.items() if kind == "dir"])

    def forget(self, path):
        for name in [path, *self.children(path)]:
            self.kinds.pop(name, None)

    def entry(self, members, seen):
        choose = self.random.choice
        parent = self.directory()
        path = f"{parent}/{choose('abcdef')}".lstrip("/")
        kind = choose(["dir", "file", "file", "symbolic", "hard", "fifo", "gone", "opaque"])
        if path in seen or any(name in seen for name in self.children(path)):
            return
        if kind == "gone":
            if path in self.kinds:
                members.append((f"{parent}/.wh.{path.rpartition('/')[2]}".lstrip("/"), b"", {}))
                self.forget(path)
                seen.add(path)
            return
        if kind == "opaque":
            if parent and not any(name in seen for name in self.children(parent)):
                members.append((f"{parent}/.wh..wh..opq", b"", {}))
                for name in self.children(parent):
                    self.forget(name)
            return
        files = [name for name in self.links if self.kinds.get(name) == "file"]
        if kind == "hard" and (not files or path in files):
            return
        seen.add(path)
        if not (kind == "dir" and self.kinds.get(path) == "dir"):
            self.forget(path)
        self.kinds[path] = "file" if kind == "hard" else kind
        mode = choose([0o644, 0o600, 0o4755, 0o2711, 0o1777, 0o000])
        if kind == "file":
            members.append((path, self.random.randbytes(choose([0, 10, 5000])),
                            self.attributes(mode) | {"pax_headers": choose([{}, {"SCHILY.xattr.user.a": "b"}])}))
        elif kind == "hard":
            members.append((path, None, self.links[choose(files)]))
            return
        else:
            types = {"dir": tarfile.DIRTYPE, "symbolic": tarfile.SYMTYPE, "fifo": tarfile.FIFOTYPE}
            members.append((path, None, self.attributes(mode) | {"type": types[kind], "linkname": choose(
                ["a", "/b/c", "../x"]) if kind == "symbolic" else ""}))
        if kind == "file":
            self.links[path] = members[-1][2] | {"type": tarfile.LNKTYPE, "linkname": path, "pax_headers": {}}

    def layer(self):
        members, seen = [("./", None, self.attributes(0o755) | {"type": tarfile.DIRTYPE})], {""}
        self.links = {}
        for _ in range(self.random.randrange(30)):
            self.entry(members, seen)
        return tar_bytes(*members)


@pytest.mark.parametrize("seed", range(12))
def test_random_layers_as_another_tool_unpacks_them(tmp_path, seed):
    made = Random(seed)
    layers = [made.layer() for _ in range(1 + seed % 6)]
    ours = unpacked(tmp_path / "ours", *layers)
    oci_layout(tmp_path / "layout", layers, {})
    subprocess.run(["umoci", "--log=error", "raw", "unpack", "--image", f"{tmp_path}/layout:latest", tmp_path / "theirs"],
                   check=True, timeout=TIME_LIMIT)
    assert tree(ours) == tree(tmp_path / "theirs")
    assert set(tree(ours)) - {"."} == set(made.kinds) - {""}


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh..."])
def test_whiteouts_of_no_file_are_refused_in_any_layer(tmp_path, name):
    result = unpack(tmp_path / "root", [tar_bytes((name, b"", {}))])
    assert (result.returncode, result.stderr) == (1, f"layer 1: {name}: a whiteout of no file\n")


@pytest.mark.parametrize("manifest,said", [
    ("{", "its manifest: string or '}' expected near end of file"),
    ('{"layers": []}', "its manifest: the configuration has no SHA-256 digest"),
    ('{"config": {"digest": "sha256:%s"}}' % ("a" * 64), "its manifest: there is no list of layers"),
    ('{"config": {"digest": "sha256:%s"}, "layers": []}' % "../../../../../../etc/hostname".rjust(64, "/"),
     "its manifest: the configuration has no SHA-256 digest"),
    (json.dumps({"config": {"digest": f"sha256:{'a' * 64}"}, "layers": [{"digest": f"sha256:{'b' * 64}"}] * 1025}),
     "its manifest: 1025 layers are more than 1024"),
])
def test_hostile_manifests(tmp_path, manifest, said):
    (tmp_path / "manifest.json").write_text(manifest)
    result = subprocess.run(["sh", "-c", 'exec "$@" 3>&1', "sh", UNPACK, tmp_path, tmp_path / "config"], cwd=tmp_path,
                            capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    assert (result.returncode, result.stderr) == (1, said + "\n")


def test_an_image_of_another_system_is_refused(tmp_path):
    result = unpack(tmp_path / "root", [tar_bytes(("f", b"", {}))], {"os": "windows", "architecture": "amd64"})
    assert (result.returncode, result.stderr) == (1, "it is an image for windows, not for Linux\n")


@pytest.mark.parametrize("key", ["os", "architecture"])
def test_words_of_an_image_are_words(tmp_path, key):
    """Each of its lines would be one more of the program that reads them."""
    result = unpack(tmp_path / "root", [tar_bytes(("f", b"", {}))], {key: "x\nwarning: y"})
    assert (result.returncode, result.stdout, result.stderr) == (
        1, "", "its configuration: os and architecture are words\n")

# SPDX-License-Identifier: Apache-2.0
"""mote image build of tarballs: what of them becomes an image, and what is refused."""
import io
import os
import subprocess
import tarfile

import pytest

from images import build, data_home, extracted, is_empty, make_tree, mote_image, shown  # noqa: F401
from sources import write_tar


@pytest.mark.parametrize("ending,compress", [
    (".tar", None), (".tar.gz", "gzip"), (".tar.xz", "xz"), (".tgz", "gzip")])
def test_tarball(home, tmp_path, ending, compress):
    plain = write_tar(tmp_path / "My-Tools.tar", ("sub/file", b"content", {"uid": 7, "gid": 8}))
    path = tmp_path / f"My-Tools{ending}"
    if compress:
        with open(path, "wb") as out:
            subprocess.run([compress, "-c", plain], stdout=out, check=True)
    digest = build(path)
    # The directory that the tarball only implies is not younger than at the next build.
    assert build(path) == digest
    out = extracted("my-tools", tmp_path / "out")
    assert (out / "sub" / "file").read_bytes() == b"content"
    state = os.stat(out / "sub" / "file")
    assert (state.st_uid, state.st_gid, state.st_mtime) == (7, 8, 1_500_000_000)


@pytest.mark.parametrize("name,members", [
    ("dotdot", [("../escaped", b"x", {})]),
    ("inner-dotdot", [("a/../../escaped", b"x", {})]),
    ("hard-link-out", [("in", None, {"type": tarfile.LNKTYPE, "linkname": "/OUTSIDE/secret"})]),
    ("hard-link-dotdot", [("in", None, {"type": tarfile.LNKTYPE,
                                        "linkname": "../../../../../../../OUTSIDE/secret"})]),
    ("hard-link-through-a-link", [
        ("out", None, {"type": tarfile.SYMTYPE, "linkname": "/OUTSIDE"}),
        ("in", None, {"type": tarfile.LNKTYPE, "linkname": "out/secret"})]),
])
def test_tarball_that_tries_to_leave_its_root(home, tmp_path, name, members):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    for _, _, attributes in members:
        if "linkname" in attributes:
            attributes["linkname"] = attributes["linkname"].replace("/OUTSIDE", str(outside))
    result = mote_image("build", write_tar(tmp_path / f"{name}.tar", *members))
    assert (result.returncode, result.stdout) == (1, "")
    line, = result.stderr.splitlines()
    assert line.startswith(f"mote: {tmp_path}/{name}.tar: ")
    assert is_empty(home)
    assert os.listdir(outside) == ["secret"] and os.stat(outside / "secret").st_nlink == 1
    assert not list(tmp_path.rglob("escaped"))


LINK = {"type": tarfile.SYMTYPE}


@pytest.mark.parametrize("members,lands", [
    ([("out", None, LINK | {"linkname": ".."}), ("out/file", b"x", {})], "file"),
    ([("out", None, LINK | {"linkname": "/OUTSIDE"}), ("out/file", b"x", {})], "OUTSIDE/file"),
    ([("one", None, LINK | {"linkname": "."}), ("one/two", None, LINK | {"linkname": "../.."}),
      ("one/two/file", b"x", {})], "file"),
    ([("usr/bin", None, {"type": tarfile.DIRTYPE, "mode": 0o755}),
      ("bin", None, LINK | {"linkname": "usr/bin"}), ("bin/file", b"x", {})], "usr/bin/file"),
    ([("var/run", None, LINK | {"linkname": "../run/./here"}), ("var/run/file", b"x", {})], "run/here/file"),
    ([("loop", None, LINK | {"linkname": "loop"}), ("loop/file", b"x", {})], None),
    ([("link", None, LINK | {"linkname": "x" * 4095}), ("link/file", b"x", {})], None),
], ids=lambda value: value if isinstance(value, str) else "")
def test_links_are_followed_as_in_the_image(home, tmp_path, members, lands):
    """Its root directory is the root of every path, and what is above it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    members = [(name, content, {key: value.replace("/OUTSIDE", str(outside)) if key == "linkname" else value
                                for key, value in attributes.items()}) for name, content, attributes in members]
    result = mote_image("build", "-t", "x", write_tar(tmp_path / "links.tar", *members))
    assert os.listdir(outside) == []
    if lands is None:
        assert result.returncode == 1 and result.stderr.count("\n") == 1
        assert is_empty(home)
        return
    assert (result.returncode, result.stderr) == (0, "")
    out = extracted("x", tmp_path / "out")
    files = [str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and path.name == "file"]
    assert [f"/{name}".replace(str(outside), "/OUTSIDE") for name in files if not os.path.islink(out / name)] \
        == [f"/{lands}".replace("/OUTSIDE/", "/OUTSIDE/")]


def test_absolute_names_stay_inside(home, tmp_path):
    build(write_tar(tmp_path / "absolute.tar", ("/etc/mote-escaped", b"x", {})))
    assert (extracted("absolute", tmp_path / "out") / "etc" / "mote-escaped").read_bytes() == b"x"
    assert not os.path.exists("/etc/mote-escaped")


def test_devices_of_a_tarball_are_the_images_alone(home, tmp_path):
    build(write_tar(tmp_path / "devices.tar",
                    ("sda", None, {"type": tarfile.BLKTYPE, "devmajor": 8, "devminor": 0})))
    assert "block" in shown("devices", "/sda")


def sparse_tar(path, size):
    """GNU tar's sparse format: a file that is all hole."""
    file = path.parent / "hole"
    with open(file, "wb") as out:
        out.truncate(size)
    subprocess.run(["tar", "--sparse", "-cf", path, "-C", path.parent, "hole"], check=True)
    file.unlink()
    return path


def test_huge_files_are_refused(home, tmp_path):
    path = sparse_tar(tmp_path / "huge.tar", 1 << 40)
    result = mote_image("build", path)
    assert result.returncode == 1
    assert result.stderr == f"mote: {path}: its files are more than the 16384 MiB of --max-size\n"
    assert is_empty(home)
    path = sparse_tar(tmp_path / "large.tar", 3 << 20)
    result = mote_image("build", "--max-size", "2M", path)
    assert result.stderr == f"mote: {path}: its files are more than the 2 MiB of --max-size\n"
    assert is_empty(home)


def test_max_size_is_of_the_files_and_not_of_the_image(home, tmp_path):
    """An ext4 image has room beside its files."""
    make_tree(tmp_path / "tree", ["file"])
    (tmp_path / "tree" / "file").write_bytes(os.urandom(40 << 20))
    build("--format", "ext4", "--max-size", "41M", tmp_path / "tree")


def test_bomb_of_many_files_is_refused(home, tmp_path):
    """Each within --max-size, and together far over it."""
    path = tmp_path / "bomb.tgz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for number in range(64):
            member = tarfile.TarInfo(f"file{number}")
            member.size = 8 << 20
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    result = mote_image("build", "--max-size", "16M", path)
    assert (result.returncode, result.stderr) == (
        1, f"mote: {path}: its files are more than the 16 MiB of --max-size\n")
    assert is_empty(home)


def test_truncated_and_other_files_are_refused(home, tmp_path):
    whole = write_tar(tmp_path / "whole.tar", ("file", os.urandom(100_000), {}))
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[:50_000])
    junk = tmp_path / "junk"
    junk.write_bytes(os.urandom(5000))
    for path in (cut, junk):
        result = mote_image("build", "-t", "x", path)
        assert result.returncode == 1
        assert result.stderr.startswith(f"mote: {path}: ") and result.stderr.count("\n") == 1
    assert is_empty(home)


@pytest.mark.parametrize("kind", ["zip", "cpio", "iso9660", "7zip", "mtree"])
def test_formats_that_are_no_tarballs_are_refused(home, tmp_path, kind):
    make_tree(tmp_path / "tree", ["file"])
    path = tmp_path / f"archive.{kind}"
    subprocess.run(["bsdtar", "--format", kind, "-cf", path, "-C", tmp_path / "tree", "file"], check=True)
    result = mote_image("build", "-t", "x", path)
    # The first block of an ISO 9660 file system is empty.
    said = "no file is in it" if kind == "iso9660" else "Unrecognized archive format"
    assert (result.returncode, result.stderr) == (1, f"mote: {path}: {said}\n")
    assert is_empty(home)


def test_flags_of_files_are_not_set(home, tmp_path):
    """An immutable file could be removed by nobody."""
    build(write_tar(tmp_path / "flags.tar", ("dir", None, {
        "type": tarfile.DIRTYPE, "mode": 0o755, "pax_headers": {"SCHILY.fflags": "sappnd"}}),
        ("dir/file", b"x", {"pax_headers": {"SCHILY.fflags": "schg"}})))
    assert os.listdir(home / "scratch") == []


def test_attributes_are_bounded_too(home, tmp_path):
    """Each takes a block of its own, which no size of a file tells."""
    path = write_tar(tmp_path / "attributes.tar", *(
        (f"file{number}", b"", {"pax_headers": {"SCHILY.xattr.user.x": f"{number:0>1500}"}})
        for number in range(26_000)))
    result = mote_image("build", "--max-size", "16M", path)
    assert (result.returncode, result.stderr) == (
        1, f"mote: {path}: its files are more than the 16 MiB of --max-size\n")
    assert is_empty(home)


# What unpacking may do, as it finds out itself in the place of a tool.

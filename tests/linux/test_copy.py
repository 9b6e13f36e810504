# SPDX-License-Identifier: Apache-2.0
"""Files and trees that go into microVMs and come back: cp, and volumes."""
import errno
import hashlib
import io
import json
import os
import subprocess
import tarfile

import pytest

from managed import one, runtime, sh  # noqa: F401
from support import MOTE, run_mote, wait_until


def make_tree(folder):
    """Names, links, modes and sizes of all kinds."""
    tree = folder / "tree"
    (tree / "sub" / ("d" * 200)).mkdir(parents=True)
    (tree / "empty").write_bytes(b"")
    (tree / "block").write_bytes(os.urandom(512))
    (tree / "odd").write_bytes(os.urandom(70001))
    (tree / "with space\nand line").write_text("odd name")
    (tree / ("n" * 255)).write_text("long name")
    (tree / "sub" / ("d" * 200) / ("f" * 200)).write_text("long path")
    (tree / "naïve").write_text("not ASCII")
    (tree / "link").symlink_to("odd")
    (tree / "dangling").symlink_to("/no/such/" + "x" * 150)
    os.link(tree / "odd", tree / "hard")
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o750)
    for name in ("odd", "sub", "."):
        os.utime(tree / name, (1234567890, 1234567890))
    return tree


def contents(tree):
    found = {}
    for path in sorted(tree.rglob("*")):
        name, st = str(path.relative_to(tree)), path.lstat()
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = ("directory", st.st_mode & 0o777, int(st.st_mtime))
        else:
            found[name] = (hashlib.sha256(path.read_bytes()).hexdigest(), st.st_mode & 0o777,
                           int(st.st_mtime))
    return found


def test_tree_goes_in_and_comes_back(one, tmp_path):
    tree = make_tree(tmp_path)
    assert run_mote("cp", tree, f"{one}:/tmp/first").returncode == 0
    assert run_mote("cp", f"{one}:/tmp/first", tmp_path / "back").returncode == 0
    assert contents(tmp_path / "back") == contents(tree)
    # Into a directory that is there, on both sides.
    assert run_mote("cp", tree, f"{one}:/tmp/first").returncode == 0
    assert sh(one, "cat '/tmp/first/tree/naïve'; stat -c %a:%u /tmp/first/tree/run") == \
        "not ASCII750:0\n"
    (tmp_path / "there").mkdir()
    assert run_mote("cp", f"{one}:/tmp/first/tree/sub/", tmp_path / "there").returncode == 0
    assert contents(tmp_path / "there" / "sub") == contents(tree / "sub")


def test_single_files_and_owners(one, tmp_path):
    (tmp_path / "file").write_text("text")
    assert run_mote("cp", "-u", "nobody", tmp_path / "file", f"{one}:/tmp/a/b/c").returncode == 0
    assert sh(one, "cat /tmp/a/b/c; stat -c ' %U' /tmp/a/b/c") == "text nobody\n"
    assert run_mote("cp", f"{one}:/tmp/a/b/c", tmp_path / "out").returncode == 0
    assert (tmp_path / "out").read_text() == "text"
    os.chown(tmp_path / "file", 12, 34)
    assert run_mote("cp", "--archive", tmp_path / "file", f"{one}:/tmp/owned").returncode == 0
    assert sh(one, "stat -c %u:%g /tmp/owned") == "12:34\n"


def test_links_are_copied_as_links_unless_followed(one, tmp_path):
    sh(one, "mkdir -p /tmp/links/real; echo 1 > /tmp/links/real/file; ln -s real /tmp/links/link")
    assert run_mote("cp", f"{one}:/tmp/links/link", tmp_path / "as").returncode == 0
    assert os.readlink(tmp_path / "as") == "real"
    assert run_mote("cp", "-L", f"{one}:/tmp/links/link", tmp_path).returncode == 0
    assert (tmp_path / "link" / "file").read_text() == "1\n"
    (tmp_path / "here").symlink_to("link")
    assert run_mote("cp", tmp_path / "here", f"{one}:/tmp/links/").returncode == 0
    assert run_mote("cp", "-L", tmp_path / "here", f"{one}:/tmp/links/real/").returncode == 0
    assert sh(one, "readlink /tmp/links/here; cat /tmp/links/real/here/file") == "link\n1\n"


def test_contents_of_a_directory(one, tmp_path):
    """As docker's: DIRECTORY/. is what is in it, into a directory that is made if need be."""
    (tmp_path / "d" / "sub").mkdir(parents=True)
    (tmp_path / "d" / "file").write_text("text")
    for place in ("new", "new", "there"):
        sh(one, "mkdir -p /tmp/contents/there")
        assert run_mote("cp", f"{tmp_path}/d/.", f"{one}:/tmp/contents/{place}").returncode == 0
        assert sh(one, f"cd /tmp/contents/{place}; find . | sort") == ".\n./file\n./sub\n"
    (tmp_path / "here").mkdir()
    for place in ("back", "back", "here"):
        assert run_mote("cp", f"{one}:/tmp/contents/new/.", tmp_path / place).returncode == 0
        assert sorted(path.name for path in (tmp_path / place).iterdir()) == ["file", "sub"]
    result = run_mote("cp", f"{one}:/tmp/contents/new/.", tmp_path / "d" / "file")
    assert (result.returncode, result.stderr) == (
        1, f"mote: {tmp_path}/d/file: Not a directory\n".encode())


def test_directories_and_files_do_not_take_each_others_place(one, tmp_path):
    sh(one, "mkdir -p /tmp/kinds/d /tmp/kinds/into/f; echo old > /tmp/kinds/f; echo 1 > /tmp/kinds/d/x")
    (tmp_path / "f").write_text("precious")
    (tmp_path / "link").symlink_to("f")
    (tmp_path / "d").mkdir()
    (tmp_path / "into" / "d").mkdir(parents=True)
    for source, target, reason in (
            (f"{one}:/tmp/kinds/d", tmp_path / "f", "Not a directory"),
            (f"{one}:/tmp/kinds/d", tmp_path / "link", "Not a directory"),
            (tmp_path / "d", f"{one}:/tmp/kinds/f", "Not a directory"),
            (tmp_path / "f", f"{one}:/tmp/kinds/into", "Is a directory")):
        result = run_mote("cp", source, target)
        assert result.returncode == 1 and reason in result.stderr.decode(), (source, target)
        assert result.stderr.count(b"\n") == 1
    assert (tmp_path / "f").read_text() == "precious" and os.readlink(tmp_path / "link") == "f"
    assert sh(one, "cat /tmp/kinds/f; ls -d /tmp/kinds/into/f/") == "old\n/tmp/kinds/into/f/\n"


def test_files_that_do_not_know_their_size(one, tmp_path):
    for path in ("/proc/cpuinfo", "/proc/cmdline", "/sys/kernel/mm/transparent_hugepage/enabled"):
        assert run_mote("cp", f"{one}:{path}", tmp_path / "file").returncode == 0
        assert (tmp_path / "file").read_text() == sh(one, f"cat {path}")


def test_sparse_files_remain_so(one, tmp_path):
    with open(tmp_path / "sparse", "wb") as file:
        file.write(b"begin")
        file.truncate(100 << 20)
    assert run_mote("cp", tmp_path / "sparse", f"{one}:/tmp/sparse").returncode == 0
    assert int(sh(one, "du -k /tmp/sparse").split()[0]) < 1000
    assert run_mote("cp", f"{one}:/tmp/sparse", tmp_path / "back").returncode == 0
    st = (tmp_path / "back").stat()
    assert st.st_size == 100 << 20 and st.st_blocks * 512 < 1 << 20
    sh(one, "rm /tmp/sparse")


def test_copies_are_counted(one, tmp_path):
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_bytes(bytes(1000))
    for arguments in ((tree, f"{one}:/tmp/counted"), (f"{one}:/tmp/counted", tmp_path / "back")):
        counts = json.loads(run_mote("cp", "--json", *arguments).stdout)
        assert counts == {"files": 3, "bytes": 1000}


def test_tar_streams(one):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("p" * 120 + "/é")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"12345"))
    assert run_mote("cp", "-", f"{one}:/tmp/pax/", stdin=archive.getvalue()).returncode == 0
    assert sh(one, "cat /tmp/pax/p*/é") == "12345"
    result = run_mote("cp", f"{one}:/tmp/pax", "-")
    with tarfile.open(fileobj=io.BytesIO(result.stdout)) as tar:
        assert tar.extractfile("pax/" + "p" * 120 + "/é").read() == b"12345"


@pytest.mark.parametrize("source, target, sentence", [
    ("/no/such", "one:/tmp", "/no/such: No such file or directory"),
    ("one:/no/such", "/tmp/x", "/no/such: No such file or directory"),
    ("one:relative", "/tmp/x", "get: path: one that begins with / is expected"),
    ("/etc/hostname", "one:relative", "put: path: one that begins with / is expected"),
    ("one:/etc/passwd", "/no/such/folder/x", "/no/such/folder/x: No such file or directory"),
    ("/etc/hostname", "nosuch:/tmp", "microVM nosuch: there is none of this name"),
])
def test_copies_that_fail(one, source, target, sentence):
    result = run_mote("cp", source, target)
    assert result.returncode == 1
    assert result.stderr.decode() == f"mote: {sentence}\n"


def attributes(path):
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


@pytest.fixture(name="place")
def place_fixture(tmp_path):
    """A directory whose file system has extended attributes of users: tmpfs before Linux 6.6 has none."""
    try:
        os.setxattr(tmp_path, "user.try", b"")
        os.removexattr(tmp_path, "user.try")
        yield tmp_path
        return
    except OSError as error:
        assert error.errno == errno.ENOTSUP
    folder = tmp_path / "mounted"
    folder.mkdir()
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", tmp_path / "drive", "8M"], check=True)
    subprocess.run(["modprobe", "loop"], check=True)
    subprocess.run(["mount", "-o", "loop", tmp_path / "drive", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


# cap_net_raw+ep, as setcap(8) writes it.
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def test_extended_attributes(one, place):
    """Users' come along both ways, file capabilities into the guest alone."""
    tree = place / "tree"
    tree.mkdir()
    (tree / "f").write_text("text")
    for path in (tree, tree / "f"):
        os.setxattr(path, "user.bytes", b"a\0b\n=")
    os.setxattr(tree / "f", "user.large", bytes(3000))
    os.setxattr(tree / "f", "trusted.mine", b"1")
    (tree / "f").chmod(0o444)
    os.setxattr(tree / "f", "security.capability", CAPABILITY)
    users = {"user.bytes": b"a\0b\n=", "user.large": bytes(3000)}
    for options in ((), ("-u", "nobody"), ("-a",)):
        assert run_mote("cp", *options, tree, f"{one}:/tmp/attributes").returncode == 0
        result = run_mote("cp", f"{one}:/tmp/attributes", "-")
        with tarfile.open(fileobj=io.BytesIO(result.stdout), errors="surrogateescape") as tar:
            headers = {member.name: member.pax_headers for member in tar}
        assert headers["attributes/f"]["SCHILY.xattr.security.capability"].encode(
            errors="surrogateescape") == CAPABILITY, options
        assert "SCHILY.xattr.trusted.mine" not in headers["attributes/f"]
        assert sh(one, "stat -c %a /tmp/attributes/f") == "444\n"
        back = place / f"back{len(options)}{options[:1]}"
        assert run_mote("cp", f"{one}:/tmp/attributes", back).returncode == 0
        assert attributes(back / "f") == users
        assert attributes(back) == {"user.bytes": b"a\0b\n="}
        sh(one, "rm -r /tmp/attributes")
    # As a stream of another tar's.
    stream = subprocess.run(["tar", "--xattrs", "--xattrs-include=*", "-C", place, "-cf", "-", "tree"],
                            stdout=subprocess.PIPE, check=True).stdout
    assert run_mote("cp", "-", f"{one}:/tmp/stream/", stdin=stream).returncode == 0
    assert run_mote("cp", f"{one}:/tmp/stream/tree", place / "again").returncode == 0
    assert attributes(place / "again" / "f") == users
    # Where there can be none.
    sh(one, "mkdir /tmp/ram; mount -t ramfs ram /tmp/ram")
    assert run_mote("cp", tree, f"{one}:/tmp/ram/").returncode == 0
    assert sh(one, "cat /tmp/ram/tree/f; umount /tmp/ram") == "text"


def test_stream_that_leads_out_of_the_destination(one, tmp_path):
    """Names, links and hard links; nothing outside is touched."""
    sh(one, "echo secret > /tmp/secret; mkdir -p /tmp/in")
    for members in ([("../secret", None)], [("a/../../secret", None)],
                    [("out", "/tmp"), ("out/secret", None)],
                    [("out", ".."), ("out/secret", None)]):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, link in members:
                info = tarfile.TarInfo(name)
                if link:
                    info.type, info.linkname = tarfile.SYMTYPE, link
                info.size = 0 if link else 4
                tar.addfile(info, None if link else io.BytesIO(b"evil"))
        run_mote("cp", "-", f"{one}:/tmp/in/", stdin=archive.getvalue())
        assert sh(one, "cat /tmp/secret; rm -rf /tmp/in/*") == "secret\n"


def test_full_disk_in_the_guest(one, tmp_path):
    sh(one, "mkdir /tmp/small; mount -t tmpfs -o size=1m small /tmp/small")
    (tmp_path / "big").write_bytes(b"x" * (3 << 20))
    result = run_mote("cp", tmp_path / "big", f"{one}:/tmp/small/")
    assert (result.returncode, result.stderr) == (1, b"mote: big: No space left on device\n")
    sh(one, "umount /tmp/small")


def test_copies_keep_no_ends_of_pipes(one):
    """One that nobody reads is still there when another program's input ends."""
    sh(one, "head -c 8000000 /dev/urandom > /tmp/much")
    with subprocess.Popen([MOTE, "exec", one, "--", "sh", "-c", "cat > /tmp/took; echo end"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        wait_until(lambda: "took" in sh(one, "ls /tmp"), "it to run")
        with subprocess.Popen([MOTE, "cp", f"{one}:/tmp/much", "-"], stdout=subprocess.PIPE) as copy:
            copy.stdout.read(1000)
            cat.stdin.close()
            assert cat.stdout.read() == b"end\n"
            copy.stdout.read()
    sh(one, "rm /tmp/much /tmp/took")


def test_volume_goes_in_and_comes_back(tmp_path):
    folder = tmp_path / "odd: name"
    (folder / "deep").mkdir(parents=True)
    (folder / "in\nput").write_text("data")
    result = run_mote("run", "--volume", f"{folder}:/work", "--user", "nobody", "--workdir", "/work",
                      "--", "sh", "-c", "cat in*; cat in* | tr a-z A-Z > deep/out; rm in*; exit 3")
    assert (result.returncode, result.stdout, result.stderr) == (3, b"data", b"")
    assert (folder / "deep" / "out").read_text() == "DATA"
    assert (folder / "in\nput").exists()
    run_mote("run", "-v", f"{folder}:/work:ro", "--", "sh", "-c", "echo x > /work/new")
    assert not (folder / "new").exists()


def test_volume_keeps_extended_attributes(place):
    folder = place / "folder"
    folder.mkdir()
    for name in ("same", "new"):
        (folder / name).write_text("old")
        os.setxattr(folder / name, "user.mine", b"1")
    os.setxattr(folder, "user.mine", b"1")
    before = (folder / "same").stat().st_ino
    result = run_mote("run", "-v", f"{folder}:/work", "--", "sh", "-c", "echo new >> /work/new")
    assert (result.returncode, result.stderr) == (0, b"")
    assert (folder / "new").read_text() == "oldnew\n"
    assert [attributes(path) for path in (folder, folder / "same", folder / "new")] == 3 * [{"user.mine": b"1"}]
    assert (folder / "same").stat().st_ino == before


def test_volume_takes_what_became_of_it(tmp_path):
    """Files in place of directories, and the other way round, and all the rest beside them."""
    folder = tmp_path / "folder"
    (folder / "d" / "deep").mkdir(parents=True)
    (folder / "d" / "deep" / "x").write_text("old")
    (folder / "f").write_text("old")
    (folder / "l").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "victim").write_text("safe")
    (folder / "d" / "way").symlink_to("../../outside")
    result = run_mote("run", "-v", f"{folder}:/work", "--workdir", "/work", "--", "sh", "-c",
                      "rm -r d f l; echo new > d; mkdir f; echo in > f/x; ln -s f l; echo z > zz")
    assert (result.returncode, result.stderr) == (0, b"")
    assert (folder / "d").read_text() == "new\n" and (folder / "f" / "x").read_text() == "in\n"
    assert os.readlink(folder / "l") == "f" and (folder / "zz").exists()
    assert (tmp_path / "outside" / "victim").read_text() == "safe"


@pytest.mark.parametrize("script", ["rm -r /work; echo x > /work", "rm -r /work; ln -s /etc/passwd /work"])
def test_volume_itself_stays(tmp_path, script):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "precious").write_text("old")
    result = run_mote("run", "-v", f"{tmp_path}:/work", "--", "sh", "-c", f"umount /work 2> /dev/null; {script}")
    assert result.returncode == 125 and b"it is not a directory any more\n" in result.stderr
    assert (tmp_path / "d" / "precious").read_text() == "old"


@pytest.mark.parametrize("place", ["/etc", "/tmp/", "/new/", "/var//run/.", "/bin"])
def test_volume_hides_what_the_image_has(tmp_path, place):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "busybox").write_bytes(b"data")
    os.utime(folder / "busybox", ns=(1, 1234567890_123456789))
    if place == "/bin":
        # Where the shell is, too: there is nothing left to run.
        assert run_mote("run", "-v", f"{folder}:{place}", "--", "sh").returncode == 127
        return
    before = (folder / "busybox").stat()
    result = run_mote("run", "-v", f"{folder}:{place}", "--", "sh", "-c", f"cd {place} && ls && echo > new")
    assert (result.returncode, result.stdout) == (0, b"busybox\n"), result.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["busybox", "new"]
    after = (folder / "busybox").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_guest_cannot_write_beside_a_volume(tmp_path):
    (tmp_path / "volume").mkdir()
    (tmp_path / "victim").mkdir()
    result = run_mote("run", "-v", f"{tmp_path / 'volume'}:/work", "--", "sh", "-c",
                      "ln -s ../victim /work/x; mknod /work/null c 1 3; chmod 4755 /bin/busybox; "
                      "cp -p /bin/busybox /work/suid")
    assert result.returncode == 0
    assert result.stderr == b"mote: 1 devices and fifos of /work were left out\n"
    assert not (tmp_path / "volume" / "null").exists()
    assert not list((tmp_path / "victim").iterdir())
    assert all(not path.lstat().st_mode & 0o6000 for path in (tmp_path / "volume").iterdir())


def test_volumes_that_cannot_be():
    for value, status in (("/no/such:/x", 125), ("/etc/passwd:/x", 125), ("/tmp", 2), ("/tmp:x", 2),
                          ("/tmp:/", 125), ("/tmp:/./", 125)):
        assert run_mote("run", "--volume", value, "--", "true").returncode == status

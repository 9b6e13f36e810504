# SPDX-License-Identifier: Apache-2.0
"""`mote run IMAGE`: what an image says about its program, and where changes to the root go."""
import json
import subprocess

import pytest

from support import BUILD, MOTE, run_mote


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory):
    """A store with one image, busybox, as `mote image build` would leave it."""
    folder = tmp_path_factory.mktemp("data")
    images = folder / "mote" / "images"
    for name in ("blobs", "tags", "tree"):
        (images / name).mkdir(parents=True)
    with open(BUILD / "initrd.cpio", "rb") as archive:
        subprocess.run(["cpio", "-id", "--quiet"], stdin=archive, cwd=images / "tree", check=True)
    (images / "tree" / "init").unlink()
    (images / "tree" / "srv").mkdir()
    blob = images / "blobs" / ("0" * 64 + ".erofs")
    subprocess.run(["mkfs.erofs", "--quiet", blob, images / "tree"], check=True)
    (images / "tags" / "busy").symlink_to(f"../blobs/{blob.name}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder))
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        yield blob


@pytest.fixture
def says(store):
    """What the image says."""
    path = store.with_suffix(".json")
    yield lambda **config: path.write_text(json.dumps(config))
    path.unlink(missing_ok=True)


def output(*arguments, status=0):
    result = run_mote("run", *arguments)
    assert (result.returncode, result.stderr) == (status, b"")
    return result.stdout.decode()


def test_command_in_an_image(store):
    assert output("busy", "cat", "/etc/hostname") == "microvm\n"
    assert output("busy", "--", "mount").startswith("overlay on / type overlay")
    assert output(str(store), "echo", "by its file") == "by its file\n"
    assert run_mote("run", "busy").returncode == 2


def test_entry_point_command_environment_directory_and_user(says):
    says(entrypoint=["sh", "-c", 'echo "$A|$B|$PWD|$(id -un)|$0 $*"'], cmd=["default", "x"],
         env=["A=image", "B=image"], workdir="/srv", user="nobody")
    assert output("busy") == "image|image|/srv|nobody|default x\n"
    assert output("busy", "given") == "image|image|/srv|nobody|given \n"
    assert output("-e", "B=mine", "-w", "/tmp", "-u", "root", "busy") == \
        "image|mine|/tmp|root|default x\n"


def test_what_an_image_says_must_make_sense(says):
    for config in ({"cmd": "true"}, {"env": [1]}, {"workdir": 1}):
        says(**config)
        result = run_mote("run", "busy", "true")
        assert result.returncode == 125 and b"its configuration" in result.stderr


def test_changes_are_gone_with_the_microvm(store):
    before = store.read_bytes()
    assert output("busy", "sh", "-c", "echo x > /srv/new; rm /etc/hostname; ls /srv") == "new\n"
    assert output("busy", "sh", "-c", "ls /srv; cat /etc/hostname") == "microvm\n"
    assert store.read_bytes() == before


def test_changes_are_kept_on_an_overlays_drive(tmp_path):
    drive = tmp_path / "changes.ext4"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", drive, "16M"], check=True)
    output("--overlay", str(drive), "busy", "sh", "-c", "echo kept > /srv/new; rm /etc/hostname")
    assert output("--overlay", str(drive), "busy", "sh", "-c", "cat /srv/new; ls /etc") == \
        "kept\ngroup\nhostname\nhosts\npasswd\n"
    # It was shut down in order.
    assert subprocess.run(["e2fsck", "-fn", drive], capture_output=True,
                          check=False).returncode == 0


@pytest.fixture
def ext4(store, tmp_path):
    path = tmp_path / "root.ext4"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", store.parent.parent / "tree", path, "32M"],
                   check=True)
    return path


def test_root_that_is_written_to(ext4):
    output("--rootfs", f"{ext4}:rw", "--", "sh", "-c", "echo kept > /srv/new")
    output("--rootfs", str(ext4), "--", "sh", "-c", "echo lost > /srv/other; cat /srv/new > /dev/null")
    assert output("--rootfs", str(ext4), "--", "sh", "-c", "cat /srv/*") == "kept\n"
    assert subprocess.run(["e2fsck", "-fn", ext4], capture_output=True, check=False).returncode == 0
    result = run_mote("run", "--rootfs", ext4, "busy", "true")
    assert result.returncode == 125 and b"is the root already" in result.stderr


def test_further_drives(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(name.encode() * 512)
    assert output("--drive", f"{tmp_path / 'one'}:ro", "--drive", str(tmp_path / "two"), "--", "sh", "-c",
                  "head -c 3 /dev/vda; head -c 3 /dev/vdb; cat /sys/block/vda/ro /sys/block/vdb/ro; "
                  "echo TWO | dd of=/dev/vdb conv=notrunc 2> /dev/null") == "onetwo1\n0\n"
    assert (tmp_path / "two").read_bytes().startswith(b"TWO\n")
    assert (tmp_path / "one").read_bytes() == b"one" * 512


def test_more_for_the_kernels_command_line():
    assert " mote.extra=1 last " in output("--boot-args", "mote.extra=1 last", "--", "cat",
                                           "/proc/cmdline")


def test_several_at_once_share_an_image():
    runs = [subprocess.Popen([MOTE, "run", "busy", "sh", "-c", f"echo {i} > /srv/i; cat /srv/i"],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) for i in range(4)]
    assert [run.communicate()[0] for run in runs] == [b"0\n", b"1\n", b"2\n", b"3\n"]

# SPDX-License-Identifier: Apache-2.0
"""Images that `mote image build` makes, and what is in them, for the tests about them."""
import json
import os
import pathlib
import re
import subprocess

import pytest

from support import MOTE, TIME_LIMIT


@pytest.fixture(name="home")
def data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "mote" / "images"


def mote_image(*arguments, **kwargs):
    return subprocess.run([MOTE, "image", *map(str, arguments)], capture_output=True, text=True,
                          timeout=TIME_LIMIT, check=False, **kwargs)


def build(*arguments, **kwargs):
    """The digest of an image that must come to be."""
    result = mote_image("build", *arguments, **kwargs)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.strip()


def inspect(name):
    return json.loads(mote_image("inspect", name).stdout)


def extracted(name, folder):
    """The image's files, by the tool of those who defined the format."""
    subprocess.run(["fsck.erofs", f"--extract={folder}", "--preserve", inspect(name)["file"]],
                   check=True, stdout=subprocess.DEVNULL)
    return folder


def shown(name, path):
    """What the image says of one of its files."""
    return subprocess.run(["dump.erofs", f"--path={path}", inspect(name)["file"]],
                          capture_output=True, text=True, check=True).stdout


def mode_of(name, path):
    """With setuid, which the tool leaves out: i_mode of the on-disk inode."""
    nid = int(re.search(r"NID: (\d+)", shown(name, path))[1])
    image = pathlib.Path(inspect(name)["file"]).read_bytes()
    meta = int.from_bytes(image[1024 + 40:1024 + 44], "little") * 4096
    return int.from_bytes(image[meta + 32 * nid + 4:meta + 32 * nid + 6], "little") & 0o7777


def is_empty(home):
    return not home.exists() or [len(os.listdir(home / part)) for part in
                                 ("blobs", "tags", "scratch")] == [0, 0, 0]


def make_tree(top, names):
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(name.encode())
        os.utime(top / name, (1_400_000_000, 1_400_000_000))
    for folder in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
        os.utime(folder, (1_400_000_001, 1_400_000_001))
    os.utime(top, (1_400_000_002, 1_400_000_002))

# SPDX-License-Identifier: Apache-2.0
"""What a program finds in an image's microVM is what podman would have given it, see the rows."""
import json
import pathlib
import subprocess

import pytest

from as_docker_rows import (CALLER, DIFFERENT, ENV_FILE, GROUPS, answers, make_tree,
                            output_of, words)
from support import MOTE

FOUND = json.loads(pathlib.Path(__file__).with_name("as_docker.json").read_text("ascii"))["rows"]


@pytest.fixture(name="image")
def built(tmp_path, monkeypatch):
    """Makes the image of a group, as `mote image build` would leave it."""
    images = tmp_path / "mote" / "images"
    for name in ("blobs", "tags"):
        (images / name).mkdir(parents=True)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    for name, value in CALLER.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NOT_THERE", raising=False)
    (tmp_path / "env").write_text(ENV_FILE)

    def build(group):
        make_tree(tmp_path / "tree", group.files)
        blob = images / "blobs" / ("0" * 64 + ".erofs")
        subprocess.run(["mkfs.erofs", "--quiet", blob, tmp_path / "tree"], check=True)
        blob.with_suffix(".json").write_text(json.dumps(group.config))
        (images / "tags" / "image").symlink_to(f"../blobs/{blob.name}")
    return build


@pytest.mark.parametrize("name", GROUPS)
def test_as_docker(name, image, tmp_path):
    group = GROUPS[name]
    image(group)
    options = [option.replace("@env", f"{tmp_path}/env") for option in group.options]
    output, status = output_of([str(MOTE), "run", *options, "image", *words(group)], group.tty)
    found = answers(name, group, output.decode(errors="surrogateescape"), status)
    expected = {row: DIFFERENT[row][0] if row in DIFFERENT else FOUND.get(row)
                for row in answers_of(name, group)}
    assert found == expected


def answers_of(name, group):
    """The names of a group's rows."""
    return [f"{name}/{row}" for row in group.rows] or [name]


def test_differences_are_differences():
    """One that is none any more does not stay in the list."""
    rows = {row for name, group in GROUPS.items() for row in answers_of(name, group)}
    assert set(DIFFERENT) <= rows and set(FOUND) <= rows
    assert not [row for row, (said, why) in DIFFERENT.items() if FOUND.get(row) == said or not why]

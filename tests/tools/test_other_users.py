# SPDX-License-Identifier: Apache-2.0
"""mote among other users, whose directories and links are in the places that variables name."""
import contextlib
import fcntl
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

from support import MOTE, TIME_LIMIT, run_mote

USER = 54321  # nobody's


def own(path, *, follow=True):
    os.chown(path, USER, USER, follow_symlinks=follow)
    return path


@pytest.fixture(name="theirs")
def theirs_fixture(tmp_path):
    """A directory of somebody else's."""
    (tmp_path / "theirs").mkdir()
    return own(tmp_path / "theirs")


def refused(*arguments):
    result = run_mote(*arguments)
    assert result.returncode != 0 and b"belongs to another user (54321)\n" in result.stderr, result
    assert result.stderr.count(b"\n") == 1


IMAGES = (("image", "ls"), ("image", "rm", "x"), ("image", "build", "-t", "x", "/etc/hostname"),
          ("run", "x", "--", "true"))


def test_image_store_of_another_user(theirs, monkeypatch):
    """Their link does not lead to what is removed as what a build has left."""
    monkeypatch.setenv("XDG_DATA_HOME", str(theirs))
    store = theirs / "mote" / "images"
    store.mkdir(parents=True)
    for path in (store.parent, store):
        own(path)
    precious = theirs.parent / "precious"
    (precious / "data").mkdir(parents=True)
    (store / "scratch").symlink_to(precious)
    own(store / "scratch", follow=False)
    for arguments in IMAGES:
        refused(*arguments)
    assert (precious / "data").is_dir()


def test_store_of_ones_own_in_the_directory_of_another(theirs, monkeypatch):
    """Who can put another one in its place."""
    monkeypatch.setenv("XDG_DATA_HOME", str(theirs / "data"))
    (theirs / "data" / "mote" / "images").mkdir(parents=True)
    for arguments in IMAGES:
        refused(*arguments)
    assert not any((theirs / "data" / "mote" / "images").iterdir())


def test_store_behind_the_link_of_another(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    own(tmp_path / "link", follow=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "link"))
    for arguments in IMAGES:
        refused(*arguments)
    assert not any((tmp_path / "real").iterdir())


def test_parts_of_the_store_that_are_links(tmp_path, monkeypatch):
    """The store's own, but what is in it leads elsewhere."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    store = tmp_path / "mote" / "images"
    (tmp_path / "precious" / "data").mkdir(parents=True)
    store.mkdir(parents=True)
    (store / "scratch").symlink_to(tmp_path / "precious")
    result = run_mote("image", "build", "-t", "x", "/etc")
    assert result.returncode == 1 and result.stderr.endswith(b"scratch: not a directory\n")
    assert (tmp_path / "precious" / "data").is_dir()


def test_store_cannot_be_blocked(tmp_path, monkeypatch):
    """By a lock on a directory that others may read."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    store = tmp_path / "mote" / "images"
    store.mkdir(parents=True, mode=0o755)
    blocker = os.open(store, os.O_RDONLY)
    try:
        fcntl.flock(blocker, fcntl.LOCK_EX)
        assert b"there is none of this name" in run_mote("image", "rm", "x").stderr
    finally:
        os.close(blocker)
    assert (store / "lock").stat().st_mode & 0o7777 == 0o600


def test_kernels_of_another_user(theirs, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(theirs))
    folder = theirs / "mote" / "kernels" / "microvm" / "current"
    folder.mkdir(parents=True)
    (folder / "kernel").touch()
    for path in (folder.parent.parent.parent, folder.parent.parent):
        own(path)
    for arguments in (("kernel", "list"), ("kernel", "path"), ("run", "--", "true")):
        refused(*arguments)


@pytest.fixture(name="usual")
def usual_fixture():
    """Root's runtime directory, which other microVMs may be in; without it at the end, if it was so."""
    before = pathlib.Path("/run/mote").exists()
    yield pathlib.Path("/run/mote/vms")
    if not before:
        for path in ("/run/mote/vms", "/run/mote"):
            with contextlib.suppress(OSError):
                os.rmdir(path)


def test_runtime_directory_in_the_directory_of_another(theirs, monkeypatch, usual):
    """It is root's, but they can put another in its place: it is not used."""
    (theirs / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(theirs / "run"))
    assert run_mote("ps").returncode == 0
    assert not any((theirs / "run").iterdir()) and usual.is_dir()


def test_runtime_directory_that_others_may_enter(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "mote").mkdir(mode=0o755)
    result = run_mote("ps")
    assert result.returncode != 0 and b"nobody else may enter\n" in result.stderr


def test_runtime_directory_of_another_owner():
    """Root's, in the environment of an ordinary user: after su, say."""
    with tempfile.TemporaryDirectory() as home:
        own(home)
        copy = shutil.copy(MOTE, home)
        with tempfile.TemporaryDirectory() as runtime:
            os.chmod(runtime, 0o755)
            result = subprocess.run([copy, "ps"], env={"HOME": home, "XDG_RUNTIME_DIR": runtime},
                                    user=USER, group=USER, extra_groups=[], capture_output=True,
                                    timeout=TIME_LIMIT, check=False)
        assert (result.returncode, result.stderr) == (0, b"")
        assert (pathlib.Path(home) / ".cache" / "mote" / "run" / "vms").is_dir()


def test_nobody_is_kept_out_by_who_was_first_in_tmp():
    """An ordinary user without a runtime directory, whose name in /tmp somebody else has taken."""
    squatted = pathlib.Path(f"/tmp/mote-{USER}")
    squatted.mkdir(mode=0o755)
    try:
        with tempfile.TemporaryDirectory() as home:
            own(home)
            # What is built may be where others cannot go.
            copy = shutil.copy(MOTE, home)
            result = subprocess.run([copy, "ps"], env={"HOME": home}, user=USER, group=USER,
                                    extra_groups=[], capture_output=True, timeout=TIME_LIMIT,
                                    check=False)
            assert (result.returncode, result.stderr) == (0, b"")
            state = pathlib.Path(home) / ".cache" / "mote" / "run" / "vms"
            assert state.stat().st_mode & 0o7777 == 0o700 and state.stat().st_uid == USER
    finally:
        squatted.rmdir()

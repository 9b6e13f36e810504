# SPDX-License-Identifier: Apache-2.0
"""mote image build --file: buildah is called, with a storage of its own."""
import json
import os
import subprocess

import pytest

from support import MOTE, TIME_LIMIT

STORAGE = """
[storage]
driver = "vfs"
graphroot = "{folder}/storage"
runroot = "{folder}/run"
"""


@pytest.fixture(name="context")
def context_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "storage.conf").write_text(STORAGE.format(folder=tmp_path))
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(tmp_path / "storage.conf"))
    folder = tmp_path / "My-App"
    folder.mkdir()
    (folder / "file").write_text("content")
    return folder


def mote_image(*arguments, **kwargs):
    return subprocess.run([MOTE, "image", *map(str, arguments)], capture_output=True, text=True, timeout=TIME_LIMIT,
                          check=False, stdin=subprocess.DEVNULL, **kwargs)


def test_dockerfile(context, tmp_path):
    (tmp_path / "Dockerfile").write_text('FROM scratch\nCOPY file /srv/file\nUSER 7\nCMD ["/srv/file"]\n')
    result = mote_image("build", "--file", "Dockerfile", "My-App", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    image = json.loads(mote_image("inspect", "my-app").stdout)
    assert (image["cmd"], image["user"], image["digest"]) == (["/srv/file"], "7", result.stdout.strip())
    subprocess.run(["fsck.erofs", f"--extract={tmp_path}/out", image["file"]], check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "out" / "srv" / "file").read_text() == "content"
    said = mote_image("history", "my-app").stdout.splitlines()
    assert ["CMD" in said[0], "USER" in said[1], "COPY" in said[2]] == [True] * 3
    # Of what was built nothing stays with buildah.
    listed = subprocess.run(["buildah", "images", "--quiet"], check=True, stdout=subprocess.PIPE)
    assert listed.stdout == b""


@pytest.mark.parametrize("text", ["FROM scratch\nCOPY file /\n", "FROM localhost/mine:1\n"])
def test_images_of_the_user_stay(context, monkeypatch, text):
    """Also one that is what is built here, as all of it is in the cache."""
    monkeypatch.setenv("BUILDAH_LAYERS", "true")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY file /\n")
    subprocess.run(["buildah", "build", "--quiet", "--tag", "localhost/mine:1", context], check=True,
                   stdout=subprocess.DEVNULL)
    (context / "Dockerfile").write_text(text)
    result = mote_image("build", "--file", context / "Dockerfile", context)
    assert (result.returncode, result.stderr) == (0, "")
    listed = subprocess.run(["buildah", "images", "--format", "{{.Name}}:{{.Tag}}"], check=True, text=True,
                            stdout=subprocess.PIPE).stdout.split()
    assert [name for name in listed if not name.startswith("<none>")] == ["localhost/mine:1"]


def test_a_context_that_looks_like_an_image(context):
    for name in "oci-layout", "index.json":
        (context / name).write_text("{}")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY oci-layout /\n")
    result = mote_image("build", "--file", context / "Dockerfile", context)
    assert (result.returncode, result.stderr) == (0, "")


def test_dockerfile_that_is_wrong(context, tmp_path):
    (context / "Dockerfile").write_text("FROM scratch\nCOPY nothing /\n")
    result = mote_image("build", "--file", context / "Dockerfile", context)
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"mote: {context}: buildah: ") and "nothing" in result.stderr
    assert os.listdir(tmp_path / "data" / "mote" / "images" / "scratch") == []


def test_without_buildah_its_package_is_named(context, tmp_path):
    (context / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "bin").mkdir()
    for program in ("bash", "rm", "setpriv"):
        os.symlink(f"/usr/bin/{program}", tmp_path / "bin" / program)
    result = mote_image("build", "--file", context / "Dockerfile", context, env={**os.environ, "PATH": str(tmp_path / "bin")})
    assert result.stderr == f"mote: {context}: buildah is missing: install the Debian package buildah\n"


@pytest.mark.parametrize("arguments,status", [
    (["pull", "-f", "Dockerfile", "x"], 2), (["build", "-f", "Dockerfile", "--debian", "x"], 2),
    (["build", "-f", "Dockerfile"], 2), (["build", "-f", "Dockerfile", "/etc/passwd"], 1)])
def test_file_goes_with_a_directory(context, arguments, status):
    result = mote_image(*arguments)
    assert result.returncode == status and result.stderr.count("\n") == 1

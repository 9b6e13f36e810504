# SPDX-License-Identifier: Apache-2.0
"""mote image pull, from a registry that is started here: docker-registry on a loopback address."""
import base64
import contextlib
import hashlib
import json
import os
import re
import socket
import subprocess

import pytest

from sources import oci_layout, write_tar
from support import MOTE, TIME_LIMIT

CONFIG = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}/storage}}}}
http: {{addr: "127.0.0.1:{port}"}}
{auth}
"""
SECRET = "$2b$12$qhL4b8qRwzf9hQoPGpQj8unaIdAOZbxsJczMaqUh/kGjg2Zf8ayiW"  # "secret", by bcrypt
AUTH = "auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}"


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextlib.contextmanager
def registry(folder, with_password=False):
    """Its HOST:PORT."""
    folder.mkdir()
    port = free_port()
    (folder / "htpasswd").write_text(f"user:{SECRET}\n")
    (folder / "config.yml").write_text(CONFIG.format(
        folder=folder, port=port, auth=AUTH.format(folder=folder) if with_password else ""))
    with subprocess.Popen(["docker-registry", "serve", folder / "config.yml"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:
        try:
            subprocess.run(["curl", "-s", "--retry", "100", "--retry-connrefused", "--retry-delay", "0",
                            "--retry-max-time", str(TIME_LIMIT), f"http://127.0.0.1:{port}/v2/"],
                           check=True, stdout=subprocess.DEVNULL, timeout=TIME_LIMIT)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.fixture(scope="module", name="server")
def started_registry(tmp_path_factory):
    with registry(tmp_path_factory.mktemp("registry") / "registry") as address:
        yield address


@pytest.fixture(name="home")
def data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return tmp_path / "data" / "mote" / "images"


def mote(*arguments, **kwargs):
    return subprocess.run([MOTE, *map(str, arguments)], capture_output=True, text=True, timeout=TIME_LIMIT,
                          check=False, stdin=subprocess.DEVNULL, **kwargs)


def inspect(name):
    return json.loads(mote("image", "inspect", name).stdout)


def push(tmp_path, reference, architecture="amd64", *options):
    """An image whose only file is of that name; the digest of its manifest."""
    folder = tmp_path / f"layout-{architecture}"
    if not folder.exists():
        layer = write_tar(tmp_path / "layer.tar", (architecture, b"x", {})).read_bytes()
        oci_layout(folder, [layer], {"Cmd": [architecture]}, architecture)
    digest = tmp_path / "pushed.digest"
    subprocess.run(["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", "--digestfile", digest,
                    *options, f"oci:{folder}:latest", f"docker://{reference}"], check=True, timeout=TIME_LIMIT)
    return digest.read_text()


def test_pull_by_tag_and_by_digest(home, tmp_path, server):
    digest = push(tmp_path, f"{server}/team/app:1.0")
    result = mote("image", "pull", f"{server}/team/app:1.0")
    assert (result.returncode, result.stderr) == (0, "")
    image = inspect(f"{server}/team/app:1.0")
    assert image["digest"] == result.stdout.strip()
    assert (image["cmd"], image["source"]) == (["amd64"], f"docker://{server}/team/app:1.0@{digest}")
    pinned = f"{server}/team/app@{digest}"
    assert mote("image", "pull", pinned).returncode == 0
    assert mote("image", "build", "-t", "mine", f"docker://{pinned}").stdout == result.stdout
    assert [image["name"] for image in json.loads(mote("image", "ls", "--json").stdout)] == \
        [f"{server}/team/app:1.0", pinned, "mine"]
    assert mote("image", "rm", pinned, f"{server}/team/app:1.0", "mine").returncode == 0
    assert [len(os.listdir(home / part)) for part in ("blobs", "tags", "scratch")] == [0, 0, 0]


def test_the_tag_is_latest(home, tmp_path, server):
    push(tmp_path, f"{server}/app:latest")
    assert mote("image", "pull", f"{server}/app").returncode == 0
    assert inspect(f"{server}/app")["name"] == f"{server}/app:latest"


def test_an_index_gives_the_image_for_this_machine(home, tmp_path, server):
    manifests = []
    for architecture in ("arm64", "amd64"):
        digest = push(tmp_path, f"{server}/many:{architecture}", architecture)
        manifest = subprocess.run(["skopeo", "inspect", "--raw", "--tls-verify=false",
                                   f"docker://{server}/many:{architecture}"], stdout=subprocess.PIPE, check=True)
        manifests.append({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
                          "size": len(manifest.stdout), "platform": {"os": "linux", "architecture": architecture}})
    kind = "application/vnd.oci.image.index.v1+json"
    for name, chosen in (("many", manifests), ("arm", manifests[:1])):
        text = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": chosen})
        subprocess.run(["curl", "-sf", "-X", "PUT", "-H", f"Content-Type: {kind}", "-d", text,
                        f"http://{server}/v2/many/manifests/{name}"], check=True, timeout=TIME_LIMIT)
    result = mote("image", "pull", "-t", "many", f"{server}/many:many")
    assert (result.returncode, result.stderr) == (0, "")
    assert inspect("many")["cmd"] == ["amd64"]
    result = mote("image", "pull", "-t", "arm", f"{server}/many:arm")
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert "amd64" in result.stderr
    result = mote("image", "pull", "-t", "arm", f"{server}/many:arm64")
    assert result.returncode == 0
    assert result.stderr.endswith("warning: its programs are for arm64, and a microVM here runs those for amd64\n")


@pytest.mark.parametrize("reference,said", [
    ("{server}/no/such:1", "mote: {server}/no/such:1: .*(manifest|name) unknown"),
    ("127.0.0.1:1/app", "mote: 127.0.0.1:1/app:latest: .*connection refused"),
    ("UPPER", "mote: image name UPPER: it is not like alpine:3.20 or "),
    ("docker://a:b:c", "mote: image name a:b:c: it is not like "),
])
def test_what_cannot_be_pulled(home, server, reference, said):
    result = mote("image", "pull", reference.format(server=server))
    assert (result.returncode, result.stdout) == (1, "")
    assert re.match(said.format(server=server), result.stderr) and result.stderr.count("\n") == 1
    assert 'level=' not in result.stderr
    assert [len(os.listdir(home / part)) for part in ("blobs", "tags", "scratch")] == [0, 0, 0]


def test_a_blob_with_other_bytes_is_refused(home, tmp_path):
    with registry(tmp_path / "registry") as server:
        push(tmp_path, f"{server}/app:1")
        layer = hashlib.sha256((tmp_path / "layer.tar").read_bytes()).hexdigest()
        for path in (tmp_path / "registry" / "storage").rglob("data"):
            if path.stat().st_size > 5000 or path.parent.name == layer:
                path.write_bytes(path.read_bytes()[:-1] + b"y")
        # What was sent may have been compressed on the way.
        for path in (tmp_path / "registry" / "storage").rglob("data"):
            if path.read_bytes()[:2] == b"\x1f\x8b":
                path.write_bytes(path.read_bytes()[:-1] + b"y")
        result = mote("image", "pull", f"{server}/app:1")
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert "did not match" in result.stderr.lower(), result.stderr
    assert not os.listdir(home / "blobs")


@pytest.mark.parametrize("place", ["REGISTRY_AUTH_FILE", "runtime", ".docker"])
def test_credentials_of_the_usual_files(home, tmp_path, monkeypatch, place):
    with registry(tmp_path / "registry", with_password=True) as server:
        push(tmp_path, f"{server}/app:1", "amd64", "--dest-creds", "user:secret")
        result = mote("image", "pull", f"{server}/app:1")
        assert result.returncode == 1 and "authentication required" in result.stderr
        path = {"REGISTRY_AUTH_FILE": tmp_path / "auth", "runtime": tmp_path / "run" / "containers" / "auth.json",
                ".docker": tmp_path / "home" / ".docker" / "config.json"}[place]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"auths": {server: {"auth": base64.b64encode(b"user:secret").decode()}}}))
        if place == "REGISTRY_AUTH_FILE":
            monkeypatch.setenv(place, str(path))
        if place == "runtime":
            monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
            (tmp_path / "run").chmod(0o700)
        result = mote("image", "pull", f"{server}/app:1")
        assert (result.returncode, result.stderr) == (0, "")


def test_too_large_a_pull_is_refused(home, tmp_path, server):
    layer = write_tar(tmp_path / "layer.tar", ("file", os.urandom(9 << 20), {})).read_bytes()
    oci_layout(tmp_path / "layout-amd64", [layer], {})
    push(tmp_path, f"{server}/large:1")
    result = mote("image", "pull", "--max-size", "2M", f"{server}/large:1")
    assert (result.returncode, result.stderr) == (
        1, f"mote: {server}/large:1: its files are more than the 2 MiB of --max-size\n")
    assert [len(os.listdir(home / part)) for part in ("blobs", "tags", "scratch")] == [0, 0, 0]


def test_run_pulls_what_names_its_registry_and_is_not_there(home, tmp_path, server):
    push(tmp_path, f"{server}/app:run")
    arguments = ("run", "--kernel", "nosuch", f"{server}/app:run", "--", "true")
    result = mote(*arguments)
    assert result.returncode == 125 and result.stderr.startswith("mote: kernel nosuch: ")
    assert inspect(f"{server}/app:run")["cmd"] == ["amd64"]
    before = os.stat(inspect(f"{server}/app:run")["file"]).st_ctime_ns
    assert mote(*arguments).returncode == 125
    assert os.stat(inspect(f"{server}/app:run")["file"]).st_ctime_ns == before
    result = mote("run", "--kernel", "nosuch", f"{server}/app:none", "--", "true")
    assert result.returncode == 125 and result.stderr.startswith(f"mote: {server}/app:none: ")


def test_run_tells_how_to_pull_what_names_no_registry(home):
    for name, whole in (("alpine", "docker.io/library/alpine:latest"), ("team/app:1", "docker.io/team/app:1")):
        result = mote("run", "--kernel", "nosuch", name, "--", "true")
        assert result.returncode == 125
        assert result.stderr.startswith(f"mote: image {name}: there is none of this name (")
        assert f'"mote image pull" fetches {whole};' in result.stderr


def test_what_ends_with_a_slash_is_a_path(home, tmp_path):
    (tmp_path / "notes").touch()
    for path, cause in (("notes/", "Not a directory"), ("none/", "No such file or directory"),
                        ("./", 'a directory, not a file ("mote image build" makes an image of one)')):
        result = mote("run", "--kernel", "./notes", path, "--", "true", cwd=tmp_path)
        assert (result.returncode, result.stderr) == (125, f"mote: drive rootfs: {path}: {cause}\n")


def test_short_names_are_of_docker_io_unless_they_are_ones_own(home, tmp_path):
    for number, tag in enumerate(("docker.io/library/alpine:latest", "alpine")):
        (tmp_path / f"tree{number}").mkdir()
        (tmp_path / f"tree{number}" / f"file{number}").touch()
        result = mote("image", "build", "-t", tag, tmp_path / f"tree{number}")
        assert (result.returncode, result.stderr) == (0, "")
        assert inspect("alpine")["name"] == tag
    assert inspect("library/alpine")["name"] == "docker.io/library/alpine:latest"
    assert mote("image", "tag", "library/alpine:latest", "other:2").returncode == 0
    assert inspect("other:2")["digest"] == inspect("docker.io/library/alpine")["digest"]
    assert inspect("other:2")["name"] == "docker.io/library/other:2"
    assert mote("image", "tag", "none", "x").returncode == 1
    assert mote("image", "tag", "alpine", "Bad").returncode == 1
    assert mote("image", "prune").returncode == 0

# SPDX-License-Identifier: Apache-2.0
"""MicroVMs that go on in the background, for the tests of the commands about them."""
import contextlib
import json

import pytest

from support import processes, run_mote, wait_until


@pytest.fixture(scope="module", autouse=True)
def runtime(tmp_path_factory):
    """A runtime directory of the module's own."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield folder / "mote" / "vms"


@pytest.fixture(scope="module")
def one(runtime):
    """A microVM that several tests share."""
    assert start("--name", "one", "--memory", "300M") == "one"
    yield "one"
    assert run_mote("kill", "one").returncode == 0
    assert run_mote("rm", "one").returncode == 0
    wait_until(lambda: not processes("mote-vmm"), "the last mote-vmm to go")
    assert not list(runtime.iterdir())


def start(*arguments):
    result = run_mote("run", "--detach", *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout.decode().strip()


def listed(*options):
    result = run_mote("ps", "--json", *options)
    assert result.returncode == 0, result.stderr
    return {vm["name"]: vm for vm in json.loads(result.stdout)}


@contextlib.contextmanager
def detached(*arguments):
    name = start(*arguments)
    try:
        yield name
    finally:
        run_mote("kill", "--force", name)
        run_mote("rm", name)


def sh(name, script, **kwargs):
    result = run_mote("exec", name, "--", "sh", "-c", script, **kwargs)
    assert result.returncode == 0, result.stderr
    return result.stdout.decode()

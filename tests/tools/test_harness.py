# SPDX-License-Identifier: Apache-2.0
"""The tests' own promise: one that waits for ever fails alone, and the others run."""
import os
import pathlib
import subprocess

from support import TIME_LIMIT

TESTS = pathlib.Path(__file__).resolve().parent.parent
# The shell ends; what it has started goes on with the pipe.
HANGING = """
import subprocess
import pytest

def hang():
    with subprocess.Popen(["sh", "-c", "sleep 1000 &"], stdout=subprocess.PIPE) as process:
        assert process.stdout.read() == b"what never comes"

def test_in_its_call():
    hang()

@pytest.fixture(scope="module")
def hanging():
    hang()

def test_in_a_fixture_of_the_module(hanging):
    pass

def test_after_them():
    pass
"""


def test_what_hangs_fails_alone_and_says_where(tmp_path):
    (tmp_path / "conftest.py").write_bytes((TESTS / "conftest.py").read_bytes())
    (tmp_path / "test_hanging.py").write_text(HANGING)
    result = subprocess.run(
        ["/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path],
        env={**os.environ, "PYTHONPATH": str(TESTS), "MOTE_TEST_TIME_LIMIT": "1"},
        capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    assert "1 passed" in result.stdout and "error" in result.stdout, result.stdout
    for name in "test_in_its_call", "test_in_a_fixture_of_the_module":
        assert f"{name} hangs:" in result.stderr
    assert "in hang" in result.stderr and "sleep 1000" in result.stderr

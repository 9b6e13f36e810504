# SPDX-License-Identifier: Apache-2.0
"""A test that hangs, or leaves something behind, is a failed test, and never the end of it all."""
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import time

import pytest

from support import TIME_LIMIT, TOP

LOADER = importlib.machinery.SourceFileLoader("run_tests", str(TOP / "tests" / "run-tests"))


@pytest.fixture(name="tier")
def tier_fixture(tmp_path, monkeypatch):
    """Runs some text as the one file of a tier, which has `limit` seconds: its counts."""
    runner = importlib.util.module_from_spec(
        importlib.util.spec_from_loader(LOADER.name, LOADER))
    LOADER.exec_module(runner)
    monkeypatch.setattr(runner, "REPORTS", tmp_path / "reports")
    monkeypatch.setattr(runner, "LAST_WORDS", 2)

    def run(text, limit=60):
        folder = tmp_path / "tests" / "tier"
        folder.mkdir(parents=True)
        for name in ("conftest.py", "support.py"):
            shutil.copy(TOP / "tests" / name, folder.parent)
        (folder / "test_it.py").write_text(text)
        monkeypatch.setitem(runner.TIME_LIMITS, "tier", limit)
        return runner.pytest("tier", folder)
    return run


def test_a_good_one(tier):
    assert str(tier("def test_it(): pass\n")) == "1 passed, 0 failed, 0 skipped"


def test_one_that_hangs_says_where(tier, capfd):
    counts = tier("""
import threading
def waits_for_ever():
    threading.Event().wait()
def test_it():
    threading.Thread(target=waits_for_ever).start()
    waits_for_ever()
""", limit=5)
    assert counts.failed == 1
    captured = capfd.readouterr()
    assert "tier: did not end within 5 s" in captured.out
    # timeout signals its child, and then its group: the child may take that as one or as two.
    assert captured.err.count("in waits_for_ever") in (2, 4), captured.err


@pytest.mark.parametrize("start", ["threading.Thread(target=threading.Event().wait, daemon=True).start()",
                                   "subprocess.Popen(['sleep', '60'])"])
def test_what_is_left_behind_is_a_failure(tier, monkeypatch, start):
    monkeypatch.setenv("MOTE_TEST_TIME_LIMIT", "1")
    counts = tier(f"import subprocess, threading\ndef test_it():\n    {start}\n")
    assert str(counts) == "0 passed, 1 failed, 0 skipped"


def test_one_that_waits_for_a_process_for_ever_fails_alone(tier, monkeypatch):
    monkeypatch.setenv("MOTE_TEST_TIME_LIMIT", "1")
    counts = tier("""
import subprocess
def test_it():
    with subprocess.Popen(["sleep", "1000"], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        raise AssertionError
def test_other():
    pass
""", limit=100)
    assert str(counts) == "1 passed, 1 failed, 0 skipped"


def test_a_thread_that_does_not_return_fails_its_test_alone(tier, monkeypatch):
    monkeypatch.setenv("MOTE_TEST_TIME_LIMIT", "1")
    begin = time.monotonic()
    counts = tier("""
import threading
from support import running
def test_it():
    with running(threading.Event().wait):
        pass
def test_other():
    pass
""")
    assert str(counts) == "1 passed, 1 failed, 0 skipped"
    assert time.monotonic() - begin < TIME_LIMIT


@pytest.mark.parametrize("ci,commands,status,last", [
    ("", ["echo 2 passed, 0 failed, 1 skipped", "true"], 0, "3 passed, 0 failed, 1 skipped"),
    ("true", ["echo 2 passed, 0 failed, 1 skipped", "true"], 1, "3 passed, 1 failed, 1 skipped"),
    ("true", ["echo 2 passed, 1 failed, 0 skipped; false", "echo on"], 1,
     "3 passed, 1 failed, 0 skipped"),
    # A count that is good does not outweigh an end that is not.
    ("", ["echo 2 passed, 0 failed, 0 skipped; exit 3"], 1, "2 passed, 1 failed, 0 skipped"),
    ("", ["kill -9 $$", "true"], 1, "1 passed, 1 failed, 0 skipped"),
    # It ends when the other has begun, and not before.
    ("", ["--beside", "until [ -e $FOLDER/begun ]; do sleep 0.01; done; echo 4 passed, 0 failed, 0 skipped",
          "touch $FOLDER/begun"], 0, "5 passed, 0 failed, 0 skipped"),
    ("", ["--beside", "exit 1", "true"], 1, "1 passed, 1 failed, 0 skipped"),
])
def test_steps_are_added_up(tmp_path, ci, commands, status, last):
    done = subprocess.run([TOP / "tests" / "steps", *commands], capture_output=True, check=False,
                          env={**os.environ, "CI": ci, "FOLDER": str(tmp_path)}, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (status, last)

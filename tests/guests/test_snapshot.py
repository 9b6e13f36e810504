# SPDX-License-Identifier: Apache-2.0
"""A VM goes on from the files of its snapshot as it would have gone on without."""
import contextlib
import os
import pathlib
import shutil

import pytest

import host
from api import start_api
from snapshots import (MEMORY, STATE, load, load_body, loaded, look, pause, paths, resume, save, says,
                       start, wait_for_more, word)
from support import TIME_LIMIT, wait_until

COUNTER = ROUNDS = 0x8000  # of counter.c, fill.c, works.c
LOST = 0x8008
TICKS, EARLY, PINGS = 0x8800, 0x8808, 0x8810  # of ticks.c
MIB = 1 << 20


@pytest.fixture(name="vmm")
def vmm_fixture(tmp_path):
    with start_api(tmp_path) as vmm:
        yield vmm


def saved(vmm, folder):
    pause(vmm)
    return save(vmm, folder)


# What goes on.

def test_counter_goes_on(tmp_path, vmm):
    start(vmm, "counter", mem_size_mib=16)
    wait_for_more(vmm, tmp_path / "look", COUNTER, 1000)
    snapshot = saved(vmm, tmp_path / "snapshot")
    count = word(snapshot, COUNTER)
    # Paused, and loaded without a resume, it is what it was.
    with loaded(tmp_path / "other", snapshot, resume_vm=False) as other:
        assert other.state() == "Paused"
        again = save(other, tmp_path / "again")
        assert (again / MEMORY).read_bytes() == (snapshot / MEMORY).read_bytes()
        resume(other)
        wait_for_more(other, tmp_path / "look", COUNTER, count)
    # Once more from the same files, and the one that was saved, too.
    with loaded(tmp_path / "third", snapshot) as third:
        assert third.state() == "Running"
        wait_for_more(third, tmp_path / "look", COUNTER, count)
    assert word(snapshot, COUNTER) == count
    resume(vmm)
    wait_for_more(vmm, tmp_path / "look", COUNTER, count)


def test_cycles(tmp_path):
    """A hundred times in a row, with a timer that no interrupt gets lost of."""
    snapshot = None
    ticks = 0
    folders = [tmp_path / "a", tmp_path / "b"]
    with start_api(tmp_path) as vmm:
        start(vmm, "ticks", mem_size_mib=16, deadline=1)
        says(vmm, "ticking")
        snapshot = saved(vmm, folders[0])
    for cycle in range(100):
        with loaded(tmp_path / "vmm", snapshot) as vmm:
            wait_for_more(vmm, tmp_path / "look", TICKS, ticks)
            snapshot = saved(vmm, folders[(cycle + 1) % 2])
        assert word(snapshot, TICKS) > ticks
        ticks = word(snapshot, TICKS)
    assert word(snapshot, EARLY) == 0

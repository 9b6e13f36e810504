# SPDX-License-Identifier: Apache-2.0
import faulthandler
import os
import pathlib
import signal
import sys
import threading

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from support import TIME_LIMIT, VARIANT, children, watchdog  # noqa: E402

# Under nohup, or in the background of a script, the tests' programs would ignore these, as they
# should; the tests expect the defaults.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    config.addinivalue_line("markers", "release_build: not for sanitizers")
    # With it run-tests asks where a tier is that does not end. Here pytest captures nothing: the
    # answer goes to the real standard error.
    faulthandler.register(signal.SIGUSR1, file=os.fdopen(os.dup(2), "w"), all_threads=True)


def pytest_collection_modifyitems(config, items):
    """
    A sanitizer's runtime is a shared library, which mote-vmm would not find in the jail, and which
    maps files of its own; and what takes long shows nothing new with it.
    """
    left_out = [item for item in items
                if VARIANT != "release" and item.get_closest_marker("release_build")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def everything_ends():
    """
    What a test starts ends with it: threads and child processes. A test that waits for ever does so
    for one of these: past a limit they are killed, so that it alone fails, and says where it was.
    """
    threads, processes = set(threading.enumerate()), children()
    hangs = []

    def end():
        hangs.append(True)
        faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
        for pid, _ in children() - processes:
            os.kill(pid, signal.SIGKILL)

    with watchdog(end, 5 * TIME_LIMIT):
        yield
    assert not hangs, f"the test did not end within {5 * TIME_LIMIT} s"
    for thread in set(threading.enumerate()) - threads:
        thread.join(TIME_LIMIT)
        assert not thread.is_alive(), f"the test leaves a thread behind: {thread.name}"
    left = children() - processes
    for pid, _ in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, f"the test leaves processes behind: {left}"

# SPDX-License-Identifier: Apache-2.0
import contextlib
import faulthandler
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from support import TIME_LIMIT, VARIANT, children, watchdog  # noqa: E402

# Under nohup, or in the background of a script, the tests' programs would ignore these, as they
# should; the tests expect the defaults.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


ERRORS = pytest.StashKey()
HANGS = pytest.StashKey()
# Longer than any single wait of a test, which ends by itself and says what for.
HANGS_AFTER = 3 * TIME_LIMIT


def pytest_configure(config):
    config.addinivalue_line("markers", "release_build: not for sanitizers")
    # Here pytest captures nothing yet: this is the real standard error.
    config.stash[ERRORS] = os.fdopen(os.dup(2), "w")
    # With it run-tests asks where a tier is that does not end.
    faulthandler.register(signal.SIGUSR1, file=config.stash[ERRORS], all_threads=True)


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


def show_processes(file):
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(["ps", "-ewwo", "pid,ppid,stat,wchan:24,args"], stdin=subprocess.DEVNULL,
                       stdout=file, stderr=file, timeout=TIME_LIMIT, check=False)


def pipes():
    """The pipes of which this process has an end."""
    names = set()
    for fd in pathlib.Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            names.add(os.readlink(fd))
    return {name for name in names if name.startswith("pipe:")}


def users(names):
    """The other processes that have an end of one of these pipes."""
    for fd in pathlib.Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(fd) in names and int(fd.parts[2]) != os.getpid():
                yield int(fd.parts[2])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    """
    A test or a fixture that waits for ever does so for a process, or for a pipe that a process
    below one which has ended has inherited: past a limit these are killed, so that this test alone
    fails, and says where it was.
    """
    if item.config.option.xmlpath:
        # For run-tests, which names it when the whole tier does not end.
        pathlib.Path(item.config.option.xmlpath + ".running").write_text(item.nodeid)
    own_pipes = pipes()
    item.stash[HANGS] = False

    def end():
        item.stash[HANGS] = True
        errors = item.config.stash[ERRORS]
        print(f"\n{item.nodeid} hangs:", file=errors, flush=True)
        faulthandler.dump_traceback(file=errors, all_threads=True)
        show_processes(errors)
        for pid in {pid for pid, _ in children()} | set(users(pipes() - own_pipes)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    with watchdog(end, HANGS_AFTER):
        yield


@pytest.fixture(autouse=True)
def everything_ends(request):
    """What a test starts ends with it: threads and child processes."""
    threads, processes = set(threading.enumerate()), children()
    yield
    assert not request.node.stash[HANGS], f"the test did not end within {HANGS_AFTER} s"
    for thread in set(threading.enumerate()) - threads:
        thread.join(TIME_LIMIT)
        assert not thread.is_alive(), f"the test leaves a thread behind: {thread.name}"
    left = children() - processes
    for pid, _ in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, f"the test leaves processes behind: {left}"

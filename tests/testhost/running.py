"""The test host as its own tests run it."""
import contextlib
import pathlib
import subprocess
import time

# Seconds: only what hangs takes as long, also beside much else on the real machine.
LIMIT = 1200
RUN = pathlib.Path(__file__).resolve().parent / "run"


def start(*command, options=(), **popen):
    popen = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE,
             "stderr": subprocess.PIPE} | popen
    return subprocess.Popen([RUN, f"--timeout={LIMIT}", *options, "--", *command], **popen)


def finish(process, stdin=None):
    out, err = process.communicate(stdin)
    return process.returncode, out, err


def run(*command, stdin=None, **options):
    if stdin is not None:
        options["stdin"] = subprocess.PIPE
    return finish(start(*command, **options), stdin)


def processes_marked(mark):
    """The processes with `mark` in their environment, which children inherit."""
    found = []
    for environ in pathlib.Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in environ.read_bytes():
                found.append(environ.parent.name)
    return found


def gone(mark, seconds=LIMIT):
    deadline = time.monotonic() + seconds
    while processes_marked(mark):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True

# SPDX-License-Identifier: Apache-2.0
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

# Under nohup, or in the background of a script, the tests' programs would ignore these, as they
# should; the tests expect the defaults.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    config.addinivalue_line("markers", "release_build: not for sanitizers")

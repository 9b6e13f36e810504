# SPDX-License-Identifier: Apache-2.0
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

# Under nohup the tests' VMMs would ignore it, too, as they should; the tests expect the default.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# SPDX-License-Identifier: Apache-2.0
import pathlib
import sys

for name in ("guests", "jail"):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / name))

import os
import random

import pytest


@pytest.fixture
def marked():
    mark = f"MOTE_TESTHOST_MARK={random.getrandbits(64):x}"
    name, value = mark.split("=")
    return mark.encode(), os.environ | {name: value}

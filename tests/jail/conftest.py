# SPDX-License-Identifier: Apache-2.0
"""A jail in a directory of its own, whose host is as before at the end of the test."""
import pytest

from jail import Jail, cgroups
from support import VARIANT


def pytest_configure(config):
    config.addinivalue_line("markers", "static_vmm: needs the mote-vmm that runs in a chroot")


def pytest_collection_modifyitems(config, items):
    """A sanitizer's runtime is a shared library, which is not there in the jail."""
    left_out = [item for item in items
                if VARIANT != "release" and item.get_closest_marker("static_vmm")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def jail(tmp_path):
    one = Jail(tmp_path)
    yield one
    assert not one.home.exists(), list(one.home.rglob("*"))
    assert not cgroups(one)

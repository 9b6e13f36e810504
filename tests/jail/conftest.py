# SPDX-License-Identifier: Apache-2.0
"""Which of these tests a sanitizer's build can run."""
from jail import jail_fixture  # noqa: F401
from support import VARIANT


def pytest_collection_modifyitems(config, items):
    """
    A sanitizer's runtime is a shared library, which mote-vmm would not find in the jail; and what
    takes long shows nothing new with it.
    """
    left_out = [item for item in items
                if VARIANT != "release" and item.get_closest_marker("release_build")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]

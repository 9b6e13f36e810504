# SPDX-License-Identifier: Apache-2.0
"""
The jail's walls on the kernel that runs Linux guests: in the test host Debian's own, which has an
older Landlock, and version 2's cgroups.
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "jail"))

from jail import jail_fixture  # noqa: E402, F401
from test_lifecycle import (  # noqa: E402, F401
    test_cgroup_where_its_file_system_is_hidden, test_killed_jailer_takes_the_vm_with_it,
    test_parent_cgroup_without_limits_of_its_own)
from test_hostile_callers import (  # noqa: E402, F401
    test_locks_are_nobody_elses_to_open, test_same_id_in_another_base,
    test_same_id_in_many_bases_at_once)
from test_root_user import (  # noqa: E402, F401
    test_in_a_named_network_namespace, test_not_in_the_hosts_network_namespace, test_walls_hold)
from test_walls import *  # noqa: E402, F401, F403

# SPDX-License-Identifier: Apache-2.0
from jail import jail_fixture  # noqa: F401

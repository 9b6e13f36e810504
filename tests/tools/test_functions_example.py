# SPDX-License-Identifier: Apache-2.0
"""examples/functions: what goes wrong before a guest runs is a MicroVMError, which the gateway answers."""
import http.client
import sys

import pytest

from support import TOP

sys.path.insert(0, str(TOP / "examples" / "functions"))
import microvm  # pylint: disable=wrong-import-position


@pytest.mark.parametrize("error", [OSError("broken"), http.client.BadStatusLine("x"), TimeoutError()])
def test_whatever_fails_at_the_start_is_one_kind_of_error(monkeypatch, error):
    def start(_):
        raise error
    monkeypatch.setattr(microvm.MicroVM, "start", start)
    with pytest.raises(microvm.MicroVMError, match="could not be started: ."):
        with microvm.MicroVM(None):
            pass


@pytest.mark.parametrize("text,said", [
    (b'{"fault_message": "one"}', "one"), (b'{"error": "two"}', "two"),
    (b"{}", "its API answered b'{}'"), (b"[1]", "its API answered b'[1]'"), (b"", "its API answered b''")])
def test_answers_that_refuse(text, said):
    assert microvm.fault(text) == said

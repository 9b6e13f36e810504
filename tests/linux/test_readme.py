# SPDX-License-Identifier: Apache-2.0
"""What the README shows of `mote` is what happens: its transcripts are run and compared."""
import os
import re
import subprocess

import pytest

from support import BUILD, TIME_LIMIT, TOP

# Their output is another machine's; what matters of it is tested elsewhere.
NOT_COMPARED = ("make ", "mote doctor", "mote kernel list", "mote image build", "cat vm.json", "mote-vmm ")


def transcripts():
    """Each fenced block that starts with a prompt: a list of (command, expected output)."""
    text = (TOP / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```\n(\$ .*?)^```$", text, re.M | re.S):
        steps = [step.partition("\n") for step in re.split(r"^\$ ", block, flags=re.M)[1:]]
        if not any(command.startswith(NOT_COMPARED) for command, _, _ in steps):
            yield [(command, output) for command, _, output in steps]


TRANSCRIPTS = list(transcripts())


def test_the_readme_has_transcripts():
    assert len(TRANSCRIPTS) >= 3


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda steps: steps[0][0][:40])
def test_transcript(transcript):
    environment = {**os.environ, "PATH": f"{BUILD}:{os.environ['PATH']}",
                   "XDG_DATA_HOME": str(TOP / "build" / "data")}
    status = 0
    for command, expected in transcript:
        result = subprocess.run(["bash", "-c", f"(exit {status}); {command}"], env=environment,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, timeout=TIME_LIMIT, check=False)
        assert result.stdout.decode() == expected
        status = result.returncode

# SPDX-License-Identifier: Apache-2.0
"""
The contract with Firecracker's clients: contract.yaml, and what docs/firecracker.md shows of it.
Run, it prints the document's table.
"""
import pathlib

import yaml

HERE = pathlib.Path(__file__).resolve().parent
TABLE = yaml.safe_load((HERE / "contract.yaml").read_text(encoding="utf-8"))
KINDS = ("requests", "commands", "configurations", "elsewhere")


def differences():
    """The rows of all kinds in which mote differs."""
    return [row for kind in KINDS for row in TABLE[kind] if "mote" in row]


def cell(value):
    if isinstance(value, dict):
        value = ", ".join(f"{name} {text}" for name, text in value.items())
    return str(value).replace("|", "\\|")


def markdown():
    lines = ["| what | Firecracker | mote | why |", "| --- | --- | --- | --- |"]
    for row in differences():
        cells = [row["what"], row["firecracker"], row["mote"], row["why"]]
        lines.append(f"| {' | '.join(map(cell, cells))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")

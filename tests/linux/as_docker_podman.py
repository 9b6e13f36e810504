# SPDX-License-Identifier: Apache-2.0
"""as_docker_podman.py FILE: writes what podman answers to the rows, in the test host, to FILE."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from as_docker_rows import CALLER, ENV_FILE, GROUPS, answers, make_tree, output_of, words

CHANGES = {"user": "USER {}", "workdir": "WORKDIR {}"}


def podman(work):
    """Its command, with a store of its own."""
    return ["podman", "--root", f"{work}/root", "--runroot", f"{work}/run", "--storage-driver",
            "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "crun"]


def changes(config):
    """For podman import."""
    lines = [f"{key.upper()} {json.dumps(config[key])}" for key in ("entrypoint", "cmd")
             if key in config]
    lines += [f"ENV {value}" for value in config.get("env", ())]
    lines += [line.format(config[key]) for key, line in CHANGES.items() if key in config]
    return [word for line in lines for word in ("--change", line)]


def main():
    """Each group in a container of its own."""
    os.environ.update(CALLER)
    found = {}
    with tempfile.TemporaryDirectory() as work:
        pathlib.Path(work, "env").write_text(ENV_FILE, encoding="ascii")
        for name, group in GROUPS.items():
            tree = pathlib.Path(work, "trees", name)
            make_tree(tree, group.files)
            with subprocess.Popen(["tar", "-c", "-C", tree, "."], stdout=subprocess.PIPE) as tar:
                subprocess.run([*podman(work), "import", "--quiet", *changes(group.config), "-", name],
                               stdin=tar.stdout, stdout=subprocess.DEVNULL, check=True)
            options = [option.replace("@env", f"{work}/env") for option in group.options]
            output, status = output_of([*podman(work), "run", "--rm", "--network", "none", "--cgroups",
                                  "disabled", *options, name, *words(group)], group.tty)
            found.update(answers(name, group, output.decode(errors="surrogateescape"), status))
    version = subprocess.run(["podman", "--version"], capture_output=True, text=True,
                             check=True).stdout.strip()
    crun = subprocess.run(["crun", "--version"], capture_output=True, text=True,
                          check=True).stdout.splitlines()[0]
    with open(sys.argv[1], "w", encoding="ascii") as out:
        json.dump({"made by": [version, crun], "rows": found}, out, indent=1)
        out.write("\n")


if __name__ == "__main__":
    main()

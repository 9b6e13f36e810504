# SPDX-License-Identifier: Apache-2.0
"""The scripts that build things, and what `make install` installs."""
import os
import pathlib
import pwd
import re
import signal
import subprocess

import pytest

from support import BUILD, MOTE, TIME_LIMIT, TOP

BUILD_KERNEL = TOP / "rootfs-tools" / "kernel" / "build.sh"
BUILD_INITRD = TOP / "rootfs-tools" / "image" / "build-initrd.sh"


def test_interrupted_kernel_build_leaves_nothing(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    with subprocess.Popen([BUILD_KERNEL, "microvm"], env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, start_new_session=True) as build:
        assert b"unpacking" in build.stderr.readline()
        os.killpg(build.pid, signal.SIGTERM)
        build.communicate(timeout=TIME_LIMIT)
    assert build.returncode != 0
    assert os.listdir(tmp_path / "mote" / "kernels" / "microvm") == [".lock"]


def test_cached_kernel_is_not_built_again():
    result = subprocess.run([BUILD_KERNEL, "microvm"], capture_output=True, check=True, timeout=10)
    assert result.stdout.endswith(b"/mote/kernels/microvm/current/kernel\n")
    assert result.stderr == b""


def test_kernel_of_an_unknown_name():
    result = subprocess.run([BUILD_KERNEL, "other"], capture_output=True, check=False)
    assert result.returncode == 2
    assert result.stderr == b"usage: build.sh microvm|microvm-acpi|microvm-full\n"


def test_same_initrd_from_the_same_input(tmp_path):
    for name in ("one", "two"):
        subprocess.run([BUILD_INITRD, BUILD / "mote-init", tmp_path / name], check=True)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    subprocess.run(["make", "-s", "install", f"DESTDIR={root}", "PREFIX=/opt/mote"], cwd=TOP,
                   check=True, stdout=subprocess.DEVNULL)
    return root / "opt" / "mote"


def test_install_under_destdir_and_prefix(installed):
    files = sorted(str(path.relative_to(installed)) for path in installed.rglob("*")
                   if path.is_file())
    assert files == ["bin/mote", "lib/mote/build-image.sh", "lib/mote/initrd-debian-cloud.cpio",
                     "lib/mote/initrd.cpio", "lib/mote/mote-init", "lib/mote/mote-jailer",
                     "lib/mote/mote-vmm", "lib/mote/pack-image", "lib/mote/unpack-image",
                     "share/bash-completion/completions/mote", "share/man/man1/mote.1"]


def test_installed_mote_finds_its_own_files(installed):
    """The kernel is wrong, so that it is mote-vmm, found in ../lib/mote, that says so."""
    result = subprocess.run([installed / "bin" / "mote", "run", "--kernel", "/dev/null", "--",
                             "true"], capture_output=True, check=False)
    assert result.stderr == b"mote: kernel image /dev/null: not a regular file\n"


def test_kernel_without_its_modules_is_refused(installed, tmp_path):
    own = tmp_path / "mote" / "kernels" / "own" / "current"
    (own / "lib" / "modules").mkdir(parents=True)
    (own / "kernel").touch()
    result = subprocess.run([installed / "bin" / "mote", "run", "--kernel", "own", "--", "true"],
                            capture_output=True, check=False,
                            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)})
    assert result.returncode == 125 and result.stderr == (
        b"mote: kernel own: its drivers are modules, which come in initrd-own.cpio, and that is "
        b"not there (\"make build/release/initrd-own.cpio\" builds it)\n")


@pytest.mark.parametrize("what,options", [
    ("drive rootfs: {}", ["--rootfs", "{}"]), ("drive rootfs: {}", ["--rootfs", "{}:rw"]),
    ("drive drive0: {}", ["--drive", "{}"]), ("drive drive0: {}", ["--drive", "{}:ro"]),
    ("drive rootfs: {}", ["{}"])])
def test_directory_where_an_image_is_needed(tmp_path, what, options):
    result = subprocess.run(
        [BUILD / "mote", "run", "--kernel", "/dev/null",
         *[option.replace("{}", str(tmp_path)) for option in options], "--", "true"],
        capture_output=True, check=False, text=True)
    assert (result.returncode, result.stderr) == (
        125, f"mote: {what.format(tmp_path)}: a directory, not a file "
             "(\"mote image build\" makes an image of one)\n")


@pytest.mark.parametrize("program", ["mote", "mote-vmm"])
def test_programs_are_hardened(program):
    """Static PIE, RELRO with immediate binding, no executable stack, no W+X segment."""
    headers = subprocess.run(["readelf", "-lWd", BUILD / program], capture_output=True, check=True,
                             text=True).stdout
    assert "DYN (Position-Independent Executable file)" in headers or " DYN " in headers
    assert "INTERP" not in headers
    assert "GNU_RELRO" in headers and "NOW" in headers
    assert re.search(r"GNU_STACK .* RW ", headers)
    assert not re.search(r"LOAD .* RWE ", headers)


def test_init_is_small_and_static():
    path = BUILD / "mote-init"
    assert path.stat().st_size < 1 << 20
    headers = subprocess.run(["readelf", "-lW", path], capture_output=True, check=True,
                             text=True).stdout
    assert "INTERP" not in headers


def test_man_page_tells_what_help_tells(installed):
    page = subprocess.run(["man", "-l", installed / "share" / "man" / "man1" / "mote.1"],
                          capture_output=True, check=True, text=True,
                          env={**os.environ, "MANWIDTH": "110", "LC_ALL": "C.UTF-8"})
    assert page.stderr == ""
    shown = re.sub("\\s+", " ", page.stdout)
    commands = re.findall("^  ([a-z]+) ", subprocess.run(
        [BUILD / "mote", "--help"], capture_output=True, check=True, text=True).stdout, re.M)
    assert len(commands) == 13
    for command in commands:
        text = subprocess.run([BUILD / "mote", command, "--help"], capture_output=True, check=True,
                              text=True).stdout
        for line in text.splitlines():
            assert re.sub("\\s+", " ", line).strip() in shown


def test_help_is_to_be_had_everywhere():
    def said(*words):
        return subprocess.run([BUILD / "mote", *words], capture_output=True, check=True,
                              text=True).stdout
    assert said("-h") == said("--help")
    for command in re.findall("^  ([a-z]+) ", said("--help"), re.M):
        assert said(command, "-h") == said(command, "--help")
    for command, actions in (("image", ("build", "ls", "inspect", "rm")), ("kernel", ("list", "path"))):
        for action in actions:
            assert said(command, action, "-h") == said(command, action, "--help") == \
                said(command, "--help")


def doctor(before=(), options=(), **environment):
    return subprocess.run([*before, BUILD / "mote", "doctor", *options], capture_output=True, check=False,
                          text=True, env={**os.environ, **environment})


def test_doctor_misses_a_kernel(tmp_path):
    assert "\nok    the guest kernel is there\n" in doctor().stdout
    result = doctor(XDG_CACHE_HOME=str(tmp_path))
    assert result.returncode == 1
    assert f"\nBAD   kernel microvm: there is none of this name in {tmp_path}/mote/kernels (" \
           '"make kernel" builds the default one)\n' in result.stdout


def test_doctor_reports_what_can_be_sent(tmp_path):
    """Also where a file is missing, no line names the host, the user or a path of theirs."""
    result = doctor(options=["--report"], XDG_CACHE_HOME=str(tmp_path), HOME=str(tmp_path), USER="somebody")
    assert result.returncode == 1
    head, _, checks = result.stdout.partition("\nok    ")
    told = dict(line.split(":", 1) for line in head.splitlines())
    assert told["kernel"] == f" {os.uname().release}"
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text(encoding="ascii").split("\n\n", maxsplit=1)[0]
    fields = dict(re.split(r"\s*: ?", line, maxsplit=1) for line in cpuinfo.splitlines())
    for name in "vendor_id", "cpu family", "model", "stepping":
        assert told[name] == f" {fields[name]}"
    assert set(told["flags"].split()) <= set(fields["flags"].split() + fields.get("vmx flags", "").split())
    for module in "kvm", "kvm_intel", "kvm_amd", "kvm_pvm":
        parameters = pathlib.Path("/sys/module", module, "parameters")
        assert (module in told) == parameters.exists()
        names = {path.name for path in parameters.glob("*") if path.stat().st_mode & 0o400}
        assert {word.split("=")[0] for word in told.get(module, "").split()} == names
    needed = re.findall(r"NEED\((KVM_CAP_\w+)\)", (TOP / "base/kvm_needs.h").read_text(encoding="ascii"))
    assert len(needed) > 5 and set(needed) < set(re.findall("KVM_CAP_[A-Z0-9_]+", told["capabilities"]))
    assert "\nBAD   the guest kernel is missing\n" in checks
    words = re.findall(r"[^\s():,;]+", result.stdout)
    assert not {os.uname().nodename, "somebody"} & set(words)
    assert {word for word in words if word.startswith("/")} <= {"/dev/kvm", "/dev/net/tun", "/sys/fs/cgroup"}


def test_doctor_tells_an_ordinary_user_which_option_is_needed():
    """Whose cgroup nobody has handed over."""
    said = doctor(["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"]).stdout
    assert "mote run refuses without: systemd-run --user --scope mote run ..., or mote run " \
           "--weaker-jail cgroup\n" in said


def may_raise_limits(user):
    """Not every root has CAP_SYS_RESOURCE."""
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    return user == 0 and bool(int(re.search(r"CapEff:\t(\w+)", status)[1], 16) >> 24 & 1)


@pytest.mark.parametrize("user", [0, 54321])
def test_doctor_tries_io_uring_as_a_jailed_vmm_does(user):
    """With the memory that the jail leaves it, which is no more than the caller may have."""
    command = ["prlimit", "--memlock=0", "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    counts = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 14)
    if counts and not may_raise_limits(user):
        expected = "note  io_uring lacks locked memory for the drives of a VM: "
    else:
        expected = "ok    io_uring works under the jail's limits\n"
    assert f"\n{expected}" in doctor(command).stdout


@pytest.mark.skipif(not os.path.exists("/sys/module/kvm_pvm") or not os.path.exists("/dev/kvm"),
                    reason="Linux boots on this machine's KVM")
def test_run_says_what_doctor_says_of_a_kvm_on_which_linux_does_not_boot(tmp_path):
    result = subprocess.run([BUILD / "mote", "run", "--", "true"], capture_output=True, check=False, text=True,
                            timeout=TIME_LIMIT, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)})
    told, = re.findall("BAD   (KVM is kvm_pvm.*)", doctor().stdout)
    assert (result.returncode, result.stderr) == (125, f"mote: the guest did not boot: {told}\n")


def without_home(*words, user=0):
    """As a system's service that says nothing about its environment."""
    return subprocess.run(["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "env", "-i", BUILD / "mote",
                           *words], capture_output=True, check=False, text=True, timeout=TIME_LIMIT)


def test_home_is_found_without_the_variable():
    home = pwd.getpwuid(0).pw_dir
    assert without_home("kernel", "path", "none").stderr.startswith(
        f"mote: kernel none: there is none of this name in {home}/.cache/mote/kernels (")


def test_user_without_any_home_is_told_what_to_set():
    assert without_home("kernel", "path", user=54321).stderr == (
        "mote: the cache directory: /etc/passwd has no home for user 54321: set HOME or XDG_CACHE_HOME\n")


def complete(*words, **environment):
    """What the completion offers for the last of these words."""
    script = (f"source {TOP}/tools/completion/mote; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _mote; "
              "printf '%s\\n' \"${COMPREPLY[@]}\"")
    return subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, check=True,
                          text=True, env={**os.environ, "PATH": f"{BUILD}:{os.environ['PATH']}",
                                          **environment}).stdout.split()


def test_completion_for_bash(tmp_path):
    assert complete("mote", "ex") == ["exec"]
    assert {"run", "image", "doctor"} < set(complete("mote", ""))
    assert complete("mote", "run", "--det") == ["--detach"]
    assert "--timeout" in complete("mote", "exec", "--")
    assert complete("mote", "run", "--net", "u") == ["user"]
    assert complete("mote", "run", "--", "--det") == []
    assert complete("mote", "image", "b") == ["build"]
    data = {"XDG_DATA_HOME": str(tmp_path / "data"), "XDG_RUNTIME_DIR": str(tmp_path)}
    (tmp_path / "tree").mkdir()
    subprocess.run([BUILD / "mote", "image", "build", "-t", "mine", tmp_path / "tree"], check=True,
                   stdout=subprocess.DEVNULL, env={**os.environ, **data})
    assert complete("mote", "run", "m", **data) == ["mine"]
    assert complete("mote", "exec", "", **data) == []


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("ps",), ("ps", "--json"),
                                       ("kernel", "--help")])
def test_output_that_does_not_arrive_is_told(tmp_path, arguments):
    """A full disk, and a standard output that the caller has closed."""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    for script, reason in (('"$@" > /dev/full', "No space left on device"),
                           ('"$@" >&-', "Bad file descriptor")):
        result = subprocess.run(["sh", "-c", script, "sh", MOTE, *arguments], env=environment,
                                capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
        assert (result.returncode, result.stderr) == (1, f"mote: standard output: {reason}\n")

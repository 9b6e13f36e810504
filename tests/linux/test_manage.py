# SPDX-License-Identifier: Apache-2.0
"""What is done to running microVMs: exec, cp, ps, kill, logs, stats; and what crashes leave behind."""
import contextlib
import fcntl
import hashlib
import io
import json
import os
import pathlib
import select
import signal
import subprocess
import tarfile
import time

import pytest

from support import MOTE, TIME_LIMIT, processes, run_mote, wait_until


@pytest.fixture(scope="module", autouse=True)
def runtime(tmp_path_factory):
    """A runtime directory of the module's own."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield folder / "mote" / "vms"


@pytest.fixture(scope="module")
def one(runtime):
    """A microVM that several tests share."""
    assert start("--name", "one", "--memory", "300M") == "one"
    yield "one"
    assert run_mote("kill", "one").returncode == 0
    assert run_mote("rm", "one").returncode == 0
    wait_until(lambda: not processes("mote-vmm"), "the last mote-vmm to go")
    assert not list(runtime.iterdir())


def start(*arguments):
    result = run_mote("run", "--detach", *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout.decode().strip()


def listed(*options):
    result = run_mote("ps", "--json", *options)
    assert result.returncode == 0, result.stderr
    return {vm["name"]: vm for vm in json.loads(result.stdout)}


def others(*options):
    """Of what is listed, all but the one that is shared."""
    return {name: vm for name, vm in listed(*options).items() if name != "one"}


def other_vmms():
    """VMMs besides that of the one that is shared, which is its jailer's child."""
    shared = {int(child) for name, vm in listed().items() if name == "one" for child in pathlib.Path(
        f"/proc/{vm['vmm_pid']}/task/{vm['vmm_pid']}/children").read_text().split()}
    return set(processes("mote-vmm")) - shared


def left_overs(runtime):
    """Of microVMs that no list knows: their folders, jails and cgroups."""
    known = {vm["id"] for vm in listed("--all").values()}
    jails = runtime.parent / "jail" / "mote-vmm"
    return {str(path) for path in [*runtime.iterdir(), *jails.glob("*"),
                                   *pathlib.Path("/sys/fs/cgroup").glob("mote-vmm/*/"),
                                   *pathlib.Path("/sys/fs/cgroup").glob("*/mote-vmm/*/")]
            if path.name not in known}


@contextlib.contextmanager
def detached(*arguments):
    name = start(*arguments)
    try:
        yield name
    finally:
        run_mote("kill", "--force", name)
        run_mote("rm", name)


def sh(name, script, **kwargs):
    result = run_mote("exec", name, "--", "sh", "-c", script, **kwargs)
    assert result.returncode == 0, result.stderr
    return result.stdout.decode()


def test_exec_has_input_output_and_status(one):
    result = run_mote("exec", "-e", "A=b c", "-u", "nobody", "-w", "/tmp", one, "sh", "-c",
                      'cat; echo "$A $(id -un) $PWD" >&2; exit 9', stdin=b"through")
    assert (result.returncode, result.stdout, result.stderr) == (9, b"through", b"b c nobody /tmp\n")


@pytest.mark.parametrize("arguments, status, text", [
    (["one", "--", "/no/such"], 127, b"mote: /no/such: No such file or directory\n"),
    (["one", "/etc/passwd"], 126, b"mote: /etc/passwd: Permission denied\n"),
    (["--timeout", "200ms", "one", "sleep", "100"], 124,
     b"mote: the command was killed as its time was over\n"),
    (["nosuch", "true"], 125, b"mote: microVM nosuch: there is none of this name\n"),
    (["one"], 2, b"mote exec: NAME COMMAND: both are expected; see mote exec --help\n"),
])
def test_exec_that_fails(one, arguments, status, text):
    result = run_mote("exec", *arguments)
    assert (result.returncode, result.stderr) == (status, text)


def test_exec_tells_what_it_took(one, tmp_path):
    result = run_mote("exec", "--json-result", one, "sh", "-c", "cat; exit 3", stdin=b"abc")
    value = json.loads(result.stderr)
    assert (result.returncode, value["exit_status"], value["code"]) == (3, 3, 3)
    assert value["stdin_bytes"] == value["stdout_bytes"] == 3 and value["memory_peak_bytes"] > 0
    path = tmp_path / "result"
    assert run_mote("exec", f"--json-result={path}", "nosuch", "true").returncode == 125
    value = json.loads(path.read_text())
    assert value["exit_status"] == 125 and "there is none" in value["error"]


def test_exec_on_a_terminal_that_is_none(one):
    """The program has one, with the usual size."""
    result = run_mote("exec", "--tty", "--interactive", one, "sh", "-c", "stty size; exit 4")
    assert (result.returncode, result.stdout) == (4, b"24 80\r\n")


def test_exec_in_the_background(one):
    assert run_mote("exec", "-d", one, "sleep", "1234").returncode == 0
    assert "sleep 1234" in sh(one, "ps -o args")
    assert run_mote("exec", "-d", one, "nosuch").returncode == 127
    sh(one, "kill $(ps -o pid,args | awk '/sleep 1234/ && !/awk/ { print $1 }')")


def test_names_ids_and_their_beginnings(one):
    vm = listed()[one]
    for name in (one, "on", vm["id"], vm["id"][:8]):
        assert run_mote("exec", name, "true").returncode == 0
    with detached("--name", "onion") as other:
        result = run_mote("exec", "on", "true")
        assert result.returncode == 125
        assert result.stderr == b"mote: microVM on: the names of several begin so\n"
        # A whole name is not the beginning of another one.
        assert sh("one", "hostname") == "one\n" and sh(other, "hostname") == "onion\n"


def test_memory_does_not_go_on_in_swap(one):
    if not pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("version 1 of cgroups limits swap on request of the kernel's command line only")
    place = pathlib.Path("/sys/fs/cgroup/mote-vmm") / listed()[one]["id"]
    assert (place / "memory.max").read_text() == f"{(300 + 256) << 20}\n"
    assert (place / "memory.swap.max").read_text() == "0\n"


def test_inspect_says_what_it_is(one):
    vm = json.loads(run_mote("inspect", one).stdout)[0]
    assert [vm] == json.loads(run_mote("inspect", "--json", one).stdout)
    assert vm["name"] == one and vm["memory_mib"] == 300 and vm["running"]
    assert vm["state"] == "running" and vm["image"] == "(busybox)"
    answer = run_mote("api", "--socket", vm["api"], "GET", "/")
    assert json.loads(answer.stdout)["state"] == "Running"


def test_stats_of_host_and_guest(one):
    stats = json.loads(run_mote("stats", "--json", one).stdout)[0]
    assert stats["host_cpu_us"] > 0 and stats["host_memory_bytes"] > 10 << 20
    assert 200 << 20 < stats["guest"]["memory_total_bytes"] < 300 << 20
    assert stats["guest"]["processes"] > 1
    assert run_mote("stats").stdout.decode().splitlines()[1].startswith(one)


def make_tree(folder):
    """Names, links, modes and sizes of all kinds."""
    tree = folder / "tree"
    (tree / "sub" / ("d" * 200)).mkdir(parents=True)
    (tree / "empty").write_bytes(b"")
    (tree / "block").write_bytes(os.urandom(512))
    (tree / "odd").write_bytes(os.urandom(70001))
    (tree / "with space\nand line").write_text("odd name")
    (tree / ("n" * 255)).write_text("long name")
    (tree / "sub" / ("d" * 200) / ("f" * 200)).write_text("long path")
    (tree / "naïve").write_text("not ASCII")
    (tree / "link").symlink_to("odd")
    (tree / "dangling").symlink_to("/no/such/" + "x" * 150)
    os.link(tree / "odd", tree / "hard")
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o750)
    for name in ("odd", "sub", "."):
        os.utime(tree / name, (1234567890, 1234567890))
    return tree


def contents(tree):
    found = {}
    for path in sorted(tree.rglob("*")):
        name, st = str(path.relative_to(tree)), path.lstat()
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = ("directory", st.st_mode & 0o777, int(st.st_mtime))
        else:
            found[name] = (hashlib.sha256(path.read_bytes()).hexdigest(), st.st_mode & 0o777,
                           int(st.st_mtime))
    return found


def test_tree_goes_in_and_comes_back(one, tmp_path):
    tree = make_tree(tmp_path)
    assert run_mote("cp", tree, f"{one}:/tmp/first").returncode == 0
    assert run_mote("cp", f"{one}:/tmp/first", tmp_path / "back").returncode == 0
    assert contents(tmp_path / "back") == contents(tree)
    # Into a directory that is there, on both sides.
    assert run_mote("cp", tree, f"{one}:/tmp/first").returncode == 0
    assert sh(one, "cat '/tmp/first/tree/naïve'; stat -c %a:%u /tmp/first/tree/run") == \
        "not ASCII750:0\n"
    (tmp_path / "there").mkdir()
    assert run_mote("cp", f"{one}:/tmp/first/tree/sub/", tmp_path / "there").returncode == 0
    assert contents(tmp_path / "there" / "sub") == contents(tree / "sub")


def test_single_files_and_owners(one, tmp_path):
    (tmp_path / "file").write_text("text")
    assert run_mote("cp", "-u", "nobody", tmp_path / "file", f"{one}:/tmp/a/b/c").returncode == 0
    assert sh(one, "cat /tmp/a/b/c; stat -c ' %U' /tmp/a/b/c") == "text nobody\n"
    assert run_mote("cp", f"{one}:/tmp/a/b/c", tmp_path / "out").returncode == 0
    assert (tmp_path / "out").read_text() == "text"
    os.chown(tmp_path / "file", 12, 34)
    assert run_mote("cp", "--archive", tmp_path / "file", f"{one}:/tmp/owned").returncode == 0
    assert sh(one, "stat -c %u:%g /tmp/owned") == "12:34\n"


def test_links_are_copied_as_links_unless_followed(one, tmp_path):
    sh(one, "mkdir -p /tmp/links/real; echo 1 > /tmp/links/real/file; ln -s real /tmp/links/link")
    assert run_mote("cp", f"{one}:/tmp/links/link", tmp_path / "as").returncode == 0
    assert os.readlink(tmp_path / "as") == "real"
    assert run_mote("cp", "-L", f"{one}:/tmp/links/link", tmp_path).returncode == 0
    assert (tmp_path / "link" / "file").read_text() == "1\n"
    (tmp_path / "here").symlink_to("link")
    assert run_mote("cp", tmp_path / "here", f"{one}:/tmp/links/").returncode == 0
    assert run_mote("cp", "-L", tmp_path / "here", f"{one}:/tmp/links/real/").returncode == 0
    assert sh(one, "readlink /tmp/links/here; cat /tmp/links/real/here/file") == "link\n1\n"


def test_contents_of_a_directory(one, tmp_path):
    """As docker's: DIRECTORY/. is what is in it, into a directory that is made if need be."""
    (tmp_path / "d" / "sub").mkdir(parents=True)
    (tmp_path / "d" / "file").write_text("text")
    for place in ("new", "new", "there"):
        sh(one, "mkdir -p /tmp/contents/there")
        assert run_mote("cp", f"{tmp_path}/d/.", f"{one}:/tmp/contents/{place}").returncode == 0
        assert sh(one, f"cd /tmp/contents/{place}; find . | sort") == ".\n./file\n./sub\n"
    (tmp_path / "here").mkdir()
    for place in ("back", "back", "here"):
        assert run_mote("cp", f"{one}:/tmp/contents/new/.", tmp_path / place).returncode == 0
        assert sorted(path.name for path in (tmp_path / place).iterdir()) == ["file", "sub"]
    result = run_mote("cp", f"{one}:/tmp/contents/new/.", tmp_path / "d" / "file")
    assert (result.returncode, result.stderr) == (
        1, f"mote: {tmp_path}/d/file: Not a directory\n".encode())


def test_directories_and_files_do_not_take_each_others_place(one, tmp_path):
    sh(one, "mkdir -p /tmp/kinds/d /tmp/kinds/into/f; echo old > /tmp/kinds/f; echo 1 > /tmp/kinds/d/x")
    (tmp_path / "f").write_text("precious")
    (tmp_path / "link").symlink_to("f")
    (tmp_path / "d").mkdir()
    (tmp_path / "into" / "d").mkdir(parents=True)
    for source, target, reason in (
            (f"{one}:/tmp/kinds/d", tmp_path / "f", "Not a directory"),
            (f"{one}:/tmp/kinds/d", tmp_path / "link", "Not a directory"),
            (tmp_path / "d", f"{one}:/tmp/kinds/f", "Not a directory"),
            (tmp_path / "f", f"{one}:/tmp/kinds/into", "Is a directory")):
        result = run_mote("cp", source, target)
        assert result.returncode == 1 and reason in result.stderr.decode(), (source, target)
        assert result.stderr.count(b"\n") == 1
    assert (tmp_path / "f").read_text() == "precious" and os.readlink(tmp_path / "link") == "f"
    assert sh(one, "cat /tmp/kinds/f; ls -d /tmp/kinds/into/f/") == "old\n/tmp/kinds/into/f/\n"


def test_files_that_do_not_know_their_size(one, tmp_path):
    for path in ("/proc/cpuinfo", "/proc/cmdline", "/sys/kernel/mm/transparent_hugepage/enabled"):
        assert run_mote("cp", f"{one}:{path}", tmp_path / "file").returncode == 0
        assert (tmp_path / "file").read_text() == sh(one, f"cat {path}")


def test_sparse_files_remain_so(one, tmp_path):
    with open(tmp_path / "sparse", "wb") as file:
        file.write(b"begin")
        file.truncate(100 << 20)
    assert run_mote("cp", tmp_path / "sparse", f"{one}:/tmp/sparse").returncode == 0
    assert int(sh(one, "du -k /tmp/sparse").split()[0]) < 1000
    assert run_mote("cp", f"{one}:/tmp/sparse", tmp_path / "back").returncode == 0
    st = (tmp_path / "back").stat()
    assert st.st_size == 100 << 20 and st.st_blocks * 512 < 1 << 20
    sh(one, "rm /tmp/sparse")


def test_paused_is_said(one):
    path = json.loads(run_mote("inspect", one).stdout)[0]["api"]
    resume = ("api", "--socket", path, "PATCH", "/vm", '{"state": "Resumed"}')
    assert run_mote(*resume[:-1], '{"state": "Paused"}').returncode == 0
    try:
        sentence = f"microVM one: it is paused (mote api --socket {path} PATCH /vm " \
                   "'{\"state\": \"Resumed\"}' lets it go on)"
        for command, status in ((("exec", one, "--", "true"), 125), (("cp", f"{one}:/etc/passwd", "-"), 1)):
            result = run_mote(*command)
            assert (result.returncode, result.stderr.decode()) == (status, f"mote: {sentence}\n")
        assert listed()["one"]["state"] == "paused"
        assert run_mote("stats", one).stdout.splitlines()[1].endswith(b"  paused")
    finally:
        assert run_mote(*resume).returncode == 0
    assert listed()["one"]["state"] == "running" and sh(one, "echo on") == "on\n"


def test_copies_are_counted(one, tmp_path):
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_bytes(bytes(1000))
    for arguments in ((tree, f"{one}:/tmp/counted"), (f"{one}:/tmp/counted", tmp_path / "back")):
        counts = json.loads(run_mote("cp", "--json", *arguments).stdout)
        assert counts == {"files": 3, "bytes": 1000}


def test_tar_streams(one):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("p" * 120 + "/é")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"12345"))
    assert run_mote("cp", "-", f"{one}:/tmp/pax/", stdin=archive.getvalue()).returncode == 0
    assert sh(one, "cat /tmp/pax/p*/é") == "12345"
    result = run_mote("cp", f"{one}:/tmp/pax", "-")
    with tarfile.open(fileobj=io.BytesIO(result.stdout)) as tar:
        assert tar.extractfile("pax/" + "p" * 120 + "/é").read() == b"12345"


@pytest.mark.parametrize("source, target, sentence", [
    ("/no/such", "one:/tmp", "/no/such: No such file or directory"),
    ("one:/no/such", "/tmp/x", "/no/such: No such file or directory"),
    ("one:relative", "/tmp/x", "get: path: one that begins with / is expected"),
    ("/etc/hostname", "one:relative", "put: path: one that begins with / is expected"),
    ("one:/etc/passwd", "/no/such/folder/x", "/no/such/folder/x: No such file or directory"),
    ("/etc/hostname", "nosuch:/tmp", "microVM nosuch: there is none of this name"),
])
def test_copies_that_fail(one, source, target, sentence):
    result = run_mote("cp", source, target)
    assert result.returncode == 1
    assert result.stderr.decode() == f"mote: {sentence}\n"


def test_stream_that_leads_out_of_the_destination(one, tmp_path):
    """Names, links and hard links; nothing outside is touched."""
    sh(one, "echo secret > /tmp/secret; mkdir -p /tmp/in")
    for members in ([("../secret", None)], [("a/../../secret", None)],
                    [("out", "/tmp"), ("out/secret", None)],
                    [("out", ".."), ("out/secret", None)]):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, link in members:
                info = tarfile.TarInfo(name)
                if link:
                    info.type, info.linkname = tarfile.SYMTYPE, link
                info.size = 0 if link else 4
                tar.addfile(info, None if link else io.BytesIO(b"evil"))
        run_mote("cp", "-", f"{one}:/tmp/in/", stdin=archive.getvalue())
        assert sh(one, "cat /tmp/secret; rm -rf /tmp/in/*") == "secret\n"


def test_full_disk_in_the_guest(one, tmp_path):
    sh(one, "mkdir /tmp/small; mount -t tmpfs -o size=1m small /tmp/small")
    (tmp_path / "big").write_bytes(b"x" * (3 << 20))
    result = run_mote("cp", tmp_path / "big", f"{one}:/tmp/small/")
    assert (result.returncode, result.stderr) == (1, b"mote: big: No space left on device\n")
    sh(one, "umount /tmp/small")


def test_logs_of_console_and_command():
    with detached("--", "sh", "-c", "echo out; echo err >&2; echo console > /dev/console; exit 4") as name:
        log = run_mote("logs", "--follow", name)
        assert log.returncode == 0
        assert sorted(log.stdout.decode().split()) == ["console", "err", "out"]
        wait_until(lambda: name in listed("--all") and not listed("--all")[name]["running"], "its end")
        assert listed("--all")[name]["exit_status"] == 4 and name not in listed()
        assert run_mote("logs", name).stdout == log.stdout
        lines = run_mote("logs", "--json", "--follow", name).stdout.splitlines()
        assert sorted(json.loads(line)["line"] for line in lines) == ["console", "err", "out"]
        result = run_mote("exec", name, "true")
        assert result.stderr == f"mote: microVM {name}: it has ended\n".encode()


def test_rm_with_detach_leaves_nothing(runtime):
    name = start("--rm", "--", "true")
    wait_until(lambda: name not in listed("--all"), "it to be forgotten")


def test_detached_holds_nothing_of_its_callers(tmp_path):
    """No lock, and no end of a pipe."""
    with open(tmp_path / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        reader, writer = os.pipe()
        name = run_mote("run", "--detach", pass_fds=[lock.fileno(), writer]).stdout.decode().strip()
        os.close(writer)
    try:
        assert name
        # At once: what would be held would be for as long as the VM runs.
        assert select.select([reader], [], [], 0)[0]
        with open(tmp_path / "lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(reader)
        run_mote("kill", "--force", name)
        run_mote("rm", name)


def test_detached_that_cannot_start_is_told():
    result = run_mote("run", "--detach", "--kernel", "/etc/passwd", "--", "true")
    assert result.returncode == 125
    assert result.stderr == b"mote: kernel image /etc/passwd: not an ELF or bzImage file\n"
    assert not others("--all")


def test_kill_gives_programs_their_time():
    with detached("--", "sh", "-c", "trap 'echo bye; exit 0' TERM; echo ready; "
                  "while :; do sleep 0.1; done") as name:
        wait_until(lambda: b"ready" in run_mote("logs", name).stdout, "it to be ready")
        result = run_mote("kill", "--json", name)
        assert [vm["forced"] for vm in json.loads(result.stdout)] == [False]
        # A shell may tell of its `sleep`, which got the signal, too.
        assert b"bye\n" in run_mote("logs", name).stdout
        assert not others()


def test_kill_waits_for_volumes(tmp_path):
    with detached("-v", f"{tmp_path}:/work", "--", "sh", "-c", "trap 'echo bye > /work/said; exit 0' TERM; "
                  "echo ready; while :; do sleep 0.1; done") as name:
        wait_until(lambda: b"ready" in run_mote("logs", name).stdout, "it to be ready")
        result = run_mote("kill", "--json", name)
        assert [vm["forced"] for vm in json.loads(result.stdout)] == [False]
        assert (tmp_path / "said").read_text() == "bye\n"
        assert listed("--all")[name]["exit_status"] == 0
    with detached("-v", f"{tmp_path}:/work", "--", "sh", "-c", "trap '' TERM; echo ready; "
                  "while :; do sleep 1; done") as name:
        wait_until(lambda: b"ready" in run_mote("logs", name).stdout, "it to be ready")
        result = run_mote("kill", "--grace", "500ms", name)
        assert result.stderr == \
            f"mote: {name}: its command did not end, so its volumes do not come back\n".encode()
        assert not others()


def test_kill_gives_the_stop_signal():
    with detached("--stop-signal", "SIGUSR1", "--label", "a=b", "--", "sh", "-c",
                  "trap 'echo usr1; exit 5' USR1; trap 'echo hup' HUP; trap 'echo term; exit 6' TERM; "
                  "echo ready; while :; do sleep 0.1; done") as name:
        wait_until(lambda: b"ready" in run_mote("logs", name).stdout, "it to be ready")
        # Any number of them does not end it.
        for count in range(1, 4):
            assert run_mote("kill", "--signal", "HUP", name).returncode == 0
            wait_until(lambda n=count: run_mote("logs", name).stdout.count(b"hup") == n, "its word")
        assert json.loads(run_mote("inspect", name).stdout)[0]["labels"] == {"a": "b"}
        assert run_mote("kill", name).returncode == 0
        assert b"usr1\n" in run_mote("logs", name).stdout
        assert listed("--all")[name]["exit_status"] == 5


def test_stop_timeout():
    with detached("--stop-timeout", "1s", "--", "sh", "-c",
                  "trap '' TERM; echo ready; while :; do sleep 1; done") as name:
        wait_until(lambda: b"ready" in run_mote("logs", name).stdout, "it to be ready")
        begin = time.monotonic()
        assert run_mote("kill", name).returncode == 0
        assert time.monotonic() - begin > 0.9
        assert not others()


def test_interrupted_before_a_detached_one_is_ready(tmp_path):
    (tmp_path / "much").write_bytes(bytes(100 << 20))
    with subprocess.Popen([MOTE, "run", "--detach", "-v", f"{tmp_path}:/work"], stdout=subprocess.PIPE) as mote:
        wait_until(lambda: others("--all"), "its supervisor to be there")
        mote.send_signal(signal.SIGINT)
        assert mote.wait(TIME_LIMIT) == -signal.SIGINT
    wait_until(lambda: not others("--all") and not other_vmms(), "nothing to be left")


def test_copies_keep_no_ends_of_pipes(one):
    """One that nobody reads is still there when another program's input ends."""
    sh(one, "head -c 8000000 /dev/urandom > /tmp/much")
    with subprocess.Popen([MOTE, "exec", one, "--", "sh", "-c", "cat > /tmp/took; echo end"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        wait_until(lambda: "took" in sh(one, "ls /tmp"), "it to run")
        with subprocess.Popen([MOTE, "cp", f"{one}:/tmp/much", "-"], stdout=subprocess.PIPE) as copy:
            copy.stdout.read(1000)
            cat.stdin.close()
            assert cat.stdout.read() == b"end\n"
            copy.stdout.read()
    sh(one, "rm /tmp/much /tmp/took")


def test_kill_by_force():
    with detached("--", "sh", "-c", "trap '' TERM; while :; do sleep 1; done") as name:
        begin = time.monotonic()
        assert run_mote("kill", "--force", name).returncode == 0
        assert time.monotonic() - begin < 5
        assert not others() and not other_vmms()
        assert run_mote("kill", name).returncode == 1


def test_kill_when_the_time_for_ending_is_over():
    with detached("--", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done") as name:
        wait_until(lambda: b"ready" in run_mote("logs", name).stdout, "it to be ready")
        begin = time.monotonic()
        assert run_mote("kill", "--grace", "1s", name).returncode == 0
        assert 0.9 < time.monotonic() - begin < 4
        assert not others()
    assert run_mote("kill", "--grace", "2m", name).returncode == 2


def test_volume_goes_in_and_comes_back(tmp_path):
    folder = tmp_path / "odd: name"
    (folder / "deep").mkdir(parents=True)
    (folder / "in\nput").write_text("data")
    result = run_mote("run", "--volume", f"{folder}:/work", "--user", "nobody", "--workdir", "/work",
                      "--", "sh", "-c", "cat in*; cat in* | tr a-z A-Z > deep/out; rm in*; exit 3")
    assert (result.returncode, result.stdout, result.stderr) == (3, b"data", b"")
    assert (folder / "deep" / "out").read_text() == "DATA"
    assert (folder / "in\nput").exists()
    run_mote("run", "-v", f"{folder}:/work:ro", "--", "sh", "-c", "echo x > /work/new")
    assert not (folder / "new").exists()


def test_volume_takes_what_became_of_it(tmp_path):
    """Files in place of directories, and the other way round, and all the rest beside them."""
    folder = tmp_path / "folder"
    (folder / "d" / "deep").mkdir(parents=True)
    (folder / "d" / "deep" / "x").write_text("old")
    (folder / "f").write_text("old")
    (folder / "l").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "victim").write_text("safe")
    (folder / "d" / "way").symlink_to("../../outside")
    result = run_mote("run", "-v", f"{folder}:/work", "--workdir", "/work", "--", "sh", "-c",
                      "rm -r d f l; echo new > d; mkdir f; echo in > f/x; ln -s f l; echo z > zz")
    assert (result.returncode, result.stderr) == (0, b"")
    assert (folder / "d").read_text() == "new\n" and (folder / "f" / "x").read_text() == "in\n"
    assert os.readlink(folder / "l") == "f" and (folder / "zz").exists()
    assert (tmp_path / "outside" / "victim").read_text() == "safe"


@pytest.mark.parametrize("place", ["/etc", "/tmp/", "/new/", "/var//run/.", "/bin"])
def test_volume_hides_what_the_image_has(tmp_path, place):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "busybox").write_bytes(b"data")
    os.utime(folder / "busybox", ns=(1, 1234567890_123456789))
    if place == "/bin":
        # Where the shell is, too: there is nothing left to run.
        assert run_mote("run", "-v", f"{folder}:{place}", "--", "sh").returncode == 127
        return
    before = (folder / "busybox").stat()
    result = run_mote("run", "-v", f"{folder}:{place}", "--", "sh", "-c", f"cd {place} && ls && echo > new")
    assert (result.returncode, result.stdout) == (0, b"busybox\n"), result.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["busybox", "new"]
    after = (folder / "busybox").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_guest_cannot_write_beside_a_volume(tmp_path):
    (tmp_path / "volume").mkdir()
    (tmp_path / "victim").mkdir()
    result = run_mote("run", "-v", f"{tmp_path / 'volume'}:/work", "--", "sh", "-c",
                      "ln -s ../victim /work/x; mknod /work/null c 1 3; chmod 4755 /bin/busybox; "
                      "cp -p /bin/busybox /work/suid")
    assert result.returncode == 0
    assert result.stderr == b"mote: 1 devices and fifos of /work were left out\n"
    assert not (tmp_path / "volume" / "null").exists()
    assert not list((tmp_path / "victim").iterdir())
    assert all(not path.lstat().st_mode & 0o6000 for path in (tmp_path / "volume").iterdir())


def test_volumes_that_cannot_be():
    for value, status in (("/no/such:/x", 125), ("/etc/passwd:/x", 125), ("/tmp", 2), ("/tmp:x", 2),
                          ("/tmp:/", 125), ("/tmp:/./", 125)):
        assert run_mote("run", "--volume", value, "--", "true").returncode == status


def start_and_kill(arguments, *, until=None, **kwargs):
    """Kills mote with SIGKILL when `until` holds, or at once."""
    with subprocess.Popen([MOTE, *map(str, arguments)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **kwargs) as process:
        if until:
            wait_until(until, "the right moment")
        process.send_signal(signal.SIGKILL)
        process.wait(TIME_LIMIT)


def test_killed_in_the_middle_of_run(runtime):
    """At several moments; afterwards ps is right and nothing is left."""
    for moment in range(6):
        seen = []
        start_and_kill(["run", "--name", "doomed", "--", "sleep", "1000"], until=(
            (lambda: seen.append(1) or len(seen) > moment) if moment < 5 else
            (lambda: listed().get("doomed", {}).get("state") == "running")))
        wait_until(lambda: not other_vmms(), "the VMM to die with mote")
        assert not others("--all")
        # The jailer may still be at it.
        wait_until(lambda: not left_overs(runtime), "the jail to be removed")


@pytest.mark.parametrize("victims", [["pid"], ["vmm_pid", "pid"], ["pid", "vmm_pid"]])
def test_killed_supervisor(runtime, victims):
    """Alone, or its jailer too, so that nobody is left to clean up."""
    name = start("--", "sleep", "1000")
    vm = listed()[name]
    for victim in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(vm[victim], signal.SIGKILL)
    wait_until(lambda: not other_vmms(), "the VMM to die with its supervisor")
    assert run_mote("exec", name, "true").returncode == 125
    assert not others("--all")
    wait_until(lambda: not left_overs(runtime), "the jail to be removed")


def test_killed_vmm_is_told(runtime):
    with detached("--", "sleep", "1000") as name:
        os.kill(listed()[name]["vmm_pid"], signal.SIGKILL)
        wait_until(lambda: name not in listed(), "its end to be noticed")
        vm = listed("--all")[name]
        assert vm["exit_status"] == 125 and vm["error"] == "mote-vmm was killed by signal KILL"
        # It was the jailer, and with it whoever removes the jail.
        assert not left_overs(runtime) and not (
            runtime.parent / "jail" / "mote-vmm" / vm["id"]).exists()


def test_killed_in_the_middle_of_other_commands(one, tmp_path):
    """The microVM goes on, and what they have started in it ends."""
    with open(tmp_path / "big", "wb") as big:
        big.truncate(1 << 30)
    start_and_kill(["exec", one, "sleep", "4321"], until=lambda: "sleep 4321" in sh(one, "ps -o args"))
    wait_until(lambda: "sleep 4321" not in sh(one, "ps -o args"), "the program to be killed")
    start_and_kill(["cp", tmp_path / "big", f"{one}:/tmp/cut"],
                   until=lambda: ".mote-" in sh(one, "ls -A /tmp"))
    wait_until(lambda: ".mote-" not in sh(one, "ls -A /tmp"), "the unfinished file to be removed")
    assert "cut" not in sh(one, "ls -A /tmp")
    for command in (["ps"], ["stats"], ["inspect", one], ["logs", "-f", one], ["kill", "nosuch"]):
        start_and_kill(command)
    assert not others("--all")
    assert sh(one, "echo good") == "good\n"

"""`rdev run` and the verbs around it, as a person uses them, with the real agent and supervisor."""

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import termios
import time

import pytest
from tests.support.command import DEADLINE

pytestmark = pytest.mark.shared_agent


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_the_jobs_exit_code_is_ours(rdev, code):
    assert rdev.run("run", "--", "sh", "-c", f"exit {code}").returncode == code


def test_death_by_a_signal_is_128_and_its_number(rdev):
    done = rdev.run("run", "--", "sh", "-c", "kill -9 $$")
    assert done.returncode == 137
    assert "was killed by SIGKILL" in done.stderr


def test_a_timeout_is_124(rdev):
    done = rdev.run("run", "--timeout", "0.5", "--grace", "0.5", "--", "sleep", "60")
    assert done.returncode == 124
    assert "timeout" in done.stderr


def test_a_command_that_does_not_exist_is_127(rdev):
    done = rdev.run("run", "--", "no-such-command")
    assert done.returncode == 127
    assert "no-such-command" in done.stderr


def test_a_command_that_cannot_be_executed_is_126(rdev):
    rdev.write("data.bin", "not a program")
    done = rdev.run("run", "--", "./data.bin")
    assert done.returncode == 126


def test_stdout_and_stderr_come_apart(rdev):
    done = rdev.run("run", "--quiet", "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_a_script_gets_its_arguments_untouched(rdev):
    rdev.write("train.py", "import sys; print(sys.argv[1:])")
    done = rdev.run("run", "train.py", "--lr", "3", "-H", "x", "--", "-v")
    assert done.stdout == "['--lr', '3', '-H', 'x', '--', '-v']\n"


def test_a_module_runs_as_python_m_does(rdev):
    rdev.write("pkg/__init__.py", "")
    rdev.write("pkg/train.py", "import sys; print(__name__, sys.argv[1:])")
    assert rdev.run("run", "-m", "pkg.train", "--fast").stdout == "__main__ ['--fast']\n"


def test_a_script_imports_its_neighbours_and_runs_where_the_person_stands(rdev):
    rdev.write("exp/helper.py", "value = 41")
    rdev.write(
        "exp/train.py", "import helper, os; print(helper.value, os.path.basename(os.getcwd()))"
    )
    assert rdev.run("run", "train.py", cwd=rdev.cwd / "exp").stdout == "41 exp\n"


def test_an_edit_is_what_runs_next(rdev):
    for number in (1, 2, 3):
        rdev.write("train.py", f"import helper; print({number}, helper.value)")
        rdev.write("helper.py", f"value = {number}")
        assert rdev.run("run", "train.py").stdout == f"{number} {number}\n"


def test_the_receipt_says_what_was_sent(rdev):
    rdev.write("train.py", "pass")
    rdev.write(".env", "TOKEN=1")
    done = rdev.run("run", "train.py")
    assert "synced " in done.stderr
    assert "snapshot " in done.stderr
    assert ".env" in done.stderr


def test_variables_from_flags_and_a_file(rdev):
    rdev.write("vars", "# comment\nexport A=1\nB=2\n")
    script = "import os; print(os.environ['A'], os.environ['B'], os.environ['C'])"
    rdev.write("train.py", script)
    done = rdev.run("run", "--env-file", "vars", "-e", "B=3", "-e", "C", "train.py", env={"C": "4"})
    assert done.stdout == "1 3 4\n"


def test_output_that_is_not_utf8_survives(rdev):
    done = rdev.run("run", "--quiet", "--", "printf", r"\377\376\000x\r\n", text=False)
    assert done.stdout == b"\xff\xfe\x00x\r\n"


def test_a_line_of_a_mebibyte_survives(rdev):
    rdev.write("train.py", "print('x' * (1 << 20))")
    assert rdev.run("run", "train.py").stdout == "x" * (1 << 20) + "\n"


WAITS = """
import os, time
print("begun", flush=True)
while not os.path.exists("go"):
    time.sleep(0.01)
print("done")
"""


def test_detached_then_wait_logs_and_ps(rdev):
    rdev.write("train.py", WAITS)
    started = rdev.run("run", "-d", "--name", "night", "train.py")
    assert started.returncode == 0
    name, job_id = started.stdout.split()
    assert name == "night"
    assert [job["name"] for job in rdev.json("ps")] == ["night"]
    (folder,) = (rdev.home / ".rdev" / "workspaces").iterdir()
    (folder / "go").touch()
    assert rdev.run("wait", "night").returncode == 0
    assert rdev.run("logs", job_id[:6]).stdout == "begun\ndone\n"
    assert rdev.run("logs", "-n", "1").stdout == "done\n"
    assert rdev.json("ps") == []
    (job,) = rdev.json("ps", "-a")
    assert (job["state"], job["exit_code"], job["id"]) == ("succeeded", 0, job_id)
    assert "SUCCEEDED" in rdev.run("ps", "-a").stdout


def test_json_logs_say_where_each_byte_belongs(rdev):
    rdev.run("run", "--", "sh", "-c", r"printf 'a\377'; echo b >&2", text=False)
    items = [json.loads(line) for line in rdev.run("logs", "--json").stdout.splitlines()]
    streams = {item["stream"] for item in items}
    assert streams == {"stdout", "stderr"}
    assert {item.get("base64") or item["text"] for item in items} == {"Yf8=", "b\n"}


def test_attach_shows_what_was_missed_and_passes_the_code_on(rdev):
    rdev.write(
        "train.py", "import time, sys; print('early', flush=True); time.sleep(1); sys.exit(3)"
    )
    rdev.run("run", "-d", "train.py")
    done = rdev.run("attach")
    assert (done.stdout, done.returncode) == ("early\n", 3)


def test_stop_ends_the_whole_tree_and_is_idempotent(rdev):
    rdev.run(
        "run", "-d", "--grace", "0.5", "--", "sh", "-c", "trap '' TERM; sleep 60 & wait; sleep 60"
    )
    begun = time.monotonic()
    done = rdev.run("stop")
    assert (done.returncode, "was stopped" in done.stdout) == (0, True)
    assert time.monotonic() - begun < 20
    assert rdev.run("stop").returncode == 0
    assert rdev.jobs(ended=True)[0]["state"] == "cancelled"


def test_wait_with_a_limit_leaves_the_job_alone(rdev):
    rdev.run("run", "-d", "--", "sleep", "30")
    assert rdev.run("wait", "--timeout", "0.3").returncode == 124
    rdev.await_state("running")


def test_a_job_keeps_the_content_it_was_started_from(rdev):
    rdev.write("train.py", "print('first')")
    rdev.run("run", "--name", "one", "train.py")
    (pins,) = rdev.home.glob(".rdev/hosts/*/pins")
    (job,) = rdev.jobs(ended=True)
    assert (pins / job["id"]).read_text().strip() == job["snapshot"]
    rdev.run("rm", "one")
    assert not list(pins.iterdir())


def test_a_snapshot_that_a_new_agent_has_not_seen_is_synced_again(rdev):
    rdev.write("train.py", "print('ran')")
    assert rdev.run("run", "train.py").stdout == "ran\n"
    rdev.kill_agent()
    assert rdev.run("run", "train.py").stdout == "ran\n"


def test_exec_runs_beside_a_job(rdev):
    rdev.run("run", "-d", "--name", "main", "-e", "A=1", "--", "sleep", "30")
    done = rdev.run("exec", "main", "--", "sh", "-c", "echo $A; pwd; exit 5")
    assert done.returncode == 5
    (job,) = rdev.jobs(ended=True)
    assert done.stdout.splitlines() == ["1", job["directory"]], "an exec leaves no job behind"
    assert rdev.run("exec", "local", "--", "pwd").stdout.strip() == str(rdev.home)


def test_rm_forgets_ended_jobs_only(rdev):
    rdev.run("run", "--name", "one", "--", "true")
    rdev.run("run", "-d", "--name", "two", "--", "sleep", "30")
    refused = rdev.run("rm", "two")
    assert refused.returncode == 1
    assert "error: unable to" in refused.stderr
    assert rdev.run("rm", "one").returncode == 0
    assert rdev.run("logs", "one").returncode == 1
    assert [job["name"] for job in rdev.jobs(ended=True)] == ["two"]


def test_ctrl_c_without_a_terminal_goes_to_the_job(rdev):
    code = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (print('saved', flush=True), sys.exit(9)))
print('ready', flush=True)
time.sleep(60)
"""
    rdev.write("train.py", code)
    with rdev.started("run", "--quiet", "train.py") as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"saved\n"
        assert process.wait(DEADLINE) == 9


def test_a_second_ctrl_c_stops_a_job_that_ignores_the_first(rdev):
    code = """
import pathlib, signal, time
signal.signal(signal.SIGINT, lambda *_: pathlib.Path("interrupted").touch())
print("ready", flush=True)
time.sleep(60)
"""
    rdev.write("train.py", code)
    with rdev.started("run", "--quiet", "train.py") as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert _comes_back(lambda: list(rdev.home.glob(".rdev/workspaces/*/interrupted")))
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 143


def test_a_closed_terminal_leaves_the_job_running(rdev):
    with rdev.started("run", "--quiet", "--", "sh", "-c", "echo ready; sleep 30") as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGHUP)
        assert process.wait(DEADLINE) == 129
        assert b"rdev attach" in process.stderr.read()
    rdev.await_state("running")


@pytest.mark.parametrize(
    ("verb", "number", "code"),
    [
        ("attach", signal.SIGINT, 0),
        ("run", signal.SIGTERM, 143),
        ("attach", signal.SIGHUP, 129),
        ("logs", signal.SIGINT, 130),
    ],
)
def test_a_pipe_that_nobody_reads_keeps_nobody_from_leaving(rdev, verb, number, code):
    flood = ["--", "sh", "-c", "while :; do yes | head -c 100000; sleep 0.1; done"]
    words = {"run": ["--quiet", *flood], "attach": ["it"], "logs": ["-f", "it"]}[verb]
    if verb != "run":
        assert rdev.run("run", "-d", "--name", "it", *flood).returncode == 0
    with rdev.started(verb, *words) as process:
        assert process.stdout.read(1)
        assert _comes_back(lambda: _is_full(process.stdout))
        process.send_signal(number)
        assert process.wait(10) == code
        assert verb == "logs" or b"detached" in process.stderr.read()


def _is_full(pipe) -> bool:
    return bool(select.select([pipe], [], [], 0)[0]) and (
        int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder) > 50_000
    )


def test_a_closed_terminal_does_not_end_what_ignores_it(rdev):
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    words = ["run", "--quiet", "--", "sh", "-c", "echo ready; read line; echo $line"]
    with rdev.started(*words, stdin=subprocess.PIPE, preexec_fn=ignore) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGINT)
        process.stdin.write(b"on\n")
        process.stdin.close()
        assert process.stdout.read() == b"on\n"
        assert process.wait(DEADLINE) == 0


@pytest.mark.parametrize("verb", ["run", "attach"])
def test_a_laptop_that_shuts_down_leaves_the_job_running(rdev, verb):
    command = ["--", "sh", "-c", "echo ready; sleep 30"]
    if verb == "attach":
        rdev.run("run", "-d", *command)
    words = ["attach"] if verb == "attach" else ["run", "--quiet", *command]
    with rdev.started(*words) as process:
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.wait(DEADLINE) == 143
    rdev.await_state("running")


def test_killing_the_client_leaves_the_job_running(rdev):
    with rdev.started("run", "--quiet", "--", "sh", "-c", "echo ready; sleep 30") as process:
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        process.wait()
    rdev.await_state("running")


def test_a_reader_that_leaves_does_not_harm_the_job(rdev):
    rdev.run("run", "--", "sh", "-c", "seq 100000")
    with rdev.started("logs") as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(DEADLINE) == 141
        process.stdout = None
    assert rdev.jobs(ended=True)[0]["state"] == "succeeded"


LINES = 50_000


def test_kill_9_of_the_agent_loses_no_line_of_a_run(rdev):
    code = f"""
import time
for number in range({LINES}):
    print(number)
    if number % 500 == 0:
        time.sleep(0.01)
"""
    rdev.write("train.py", code)
    with rdev.started("run", "--quiet", "train.py") as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if len(lines) in (5_000, 20_000):
                rdev.kill_agent()
        assert process.wait(DEADLINE) == 0, process.stderr.read()
    assert [int(line) for line in lines] == list(range(LINES))


def test_no_listener_and_no_open_file_while_agent_and_jobs_run(rdev):
    rdev.write("train.py", "import time; print('x', flush=True); time.sleep(30)")
    rdev.run("run", "-d", "train.py")
    assert _comes_back(lambda: rdev.jobs()[0]["streams"][0]["size"] > 0)
    home = rdev.home / ".rdev"
    for path in (home, *home.rglob("*")):
        if not path.is_symlink() and "workspaces" not in path.parts:
            assert path.lstat().st_mode & 0o077 == 0, path
    ours = {str(pid) for pid in _processes_of(str(home))}
    assert ours
    assert not _tcp_listeners(ours)


def _processes_of(home: str) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    if home.encode() in file.read():
                        found.append(int(entry))
            except OSError:
                continue
    return [pid for pid in found if pid != os.getpid()]


def _tcp_listeners(pids: set[str]) -> list[str]:
    listening = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table) as file:
            for line in list(file)[1:]:
                fields = line.split()
                if fields[3] == "0A":
                    listening.add(f"socket:[{fields[9]}]")
    held = []
    for pid in pids:
        try:
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
                if target in listening:
                    held.append(f"{pid}: {target}")
        except OSError:
            continue
    return held


def _comes_back(condition) -> bool:
    """True as soon as the condition holds."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True

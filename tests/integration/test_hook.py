"""The dormant hook in every Python process of a job: it is not noticed, and it is always there."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.support.hooked import SessionPipe, hooked_job
from tests.support.interpreters import interpreters

from rdev.agent.debug.manager import DebugManager
from rdev.client.debug.session import Breakpoint, Stopped, debugging
from rdev.hook import PLANT
from rdev.protocol.errors import JobConflict

PYTHONS = interpreters()
HOOKED = {version: path for version, path in PYTHONS.items() if version != "3.10"}
OLD = sorted((Path.home() / ".pyenv" / "versions").glob("[23].[0-9].*/bin/python"))


def planted(source: str, folder: Path, *options: str, python=sys.executable, path=()):
    """Runs a script under the plant, with nobody at the job's socket."""
    script = folder / "script.py"
    script.write_text(textwrap.dedent(source))
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([PLANT, *map(str, path)]),
        "RDEV_JOB_SOCKET": str(folder / "nobody.sock"),
        "RDEV_HOOK_DEBUG": "1",
    }
    command = [python, *options, str(script)]
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("version", PYTHONS)
def test_a_script_prints_what_it_prints_without_a_hook(tmp_path, version):
    source = """\
        import sys
        print(sys.argv[1:], __name__, sys.gettrace(), sys.getprofile())
        print([name for name in sys.modules if "debugpy" in name or "pydevd" in name])
        print([entry for entry in sys.path if "plant" in entry], "rdev" in sys.modules)
        # `breakpoint()` waits for a debugger, where there can be one.
        print((sys.breakpointhook is sys.__breakpointhook__) == (sys.version_info < (3, 11)))
    """
    done = planted(source, tmp_path, "-W", "error", python=PYTHONS[version])
    assert done.stderr == ""
    assert done.stdout == "[] __main__ None None\n[]\n[] False\nTrue\n"


def imported(folder: Path) -> set[str]:
    source = "import sys; print(*sys.modules)"
    environment = {"PYTHONPATH": PLANT, "RDEV_JOB_SOCKET": str(folder / "nobody.sock")}
    plain, hooked = (
        subprocess.run(
            # Without the environment's packages: their .pth files import what they like.
            [os.path.realpath(sys.executable), "-c", source],
            env=variables,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for variables in ({}, environment)
    )
    return set(hooked) - set(plain)


def test_the_dormant_hook_imports_nothing_dear(tmp_path):
    more = imported(tmp_path)
    assert {"rdev.hook.arm", "rdev.wire.dial"} <= more
    assert "rdev.hook.session" not in more
    dear = {"asyncio", "contextlib", "ctypes", "dataclasses", "enum", "importlib.util", "inspect"}
    assert not more & (dear | {"json", "logging", "re", "socket", "struct", "typing"})


@pytest.mark.parametrize("python", OLD, ids=lambda path: path.parents[1].name)
def test_a_python_that_is_not_supported_notices_nothing(tmp_path, python):
    done = planted("print('here')", tmp_path, python=str(python))
    assert (done.returncode, done.stdout, done.stderr) == (0, "here\n", "")


def test_the_users_own_sitecustomize_still_runs(tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import sys\nsys.customized = __file__\n")
    source = "import sys, sitecustomize; print(sys.customized == sitecustomize.__file__)"
    done = planted(source, tmp_path, path=[site])
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_broken_sitecustomize_of_the_users_breaks_as_it_does_without_us(tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("raise ValueError('mine')\n")
    done = planted("print('here')", tmp_path, path=[site])
    assert done.stdout == "here\n"
    assert "ValueError: mine" in done.stderr


@pytest.mark.parametrize("version", PYTHONS)
def test_a_regular_package_named_rdev_keeps_its_name_and_does_not_hide_ours(tmp_path, version):
    package = tmp_path / "rdev"
    package.mkdir()
    (package / "__init__.py").write_text("print('executed')\nMINE = 1\n")
    source = """\
        print("started")
        import rdev
        print(rdev.MINE)
        import rdev.wire.clock as clock
        from rdev.loop import Loop
        print(rdev.__path__[0] in clock.__file__)
        print(Loop.__name__)
    """
    done = planted(source, tmp_path, python=PYTHONS[version])
    assert done.stderr == ""
    # It is executed when the program asks for it, and not before.
    assert done.stdout == "started\nexecuted\n1\nFalse\nLoop\n"


# The session is imported at the first command, when the name may mean the user's package.
SHADOWING = """\
import os, sys, time
print("rdev" in sys.modules)
if os.path.exists("ask"):
    import rdev
while not os.path.exists("stop"):
    time.sleep(0.005)
print("rdev" in sys.modules, breakpoint.__name__)
"""


@pytest.mark.parametrize("is_asked_for", [True, False])
async def test_a_session_is_made_late_whatever_rdev_means_by_then(tmp_path, is_asked_for):
    package = tmp_path / "rdev"
    package.mkdir()
    (package / "__init__.py").write_text("print('executed')\n")
    if is_asked_for:
        (tmp_path / "ask").touch()
    async with hooked_job(tmp_path, SHADOWING) as job:
        assert (await job.command("0", "hook", 0, "status"))["attached"] is False
        assert (await job.command("0", "hook", 0, "stack"))["threads"][0]["main"]
        executed = "executed\n" if is_asked_for else ""
        assert await job.end() == f"False\n{executed}{is_asked_for} breakpoint\n"


def test_nothing_that_is_imported_late_looks_up_the_name_rdev():
    for path in Path(PLANT).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rdev"):
                assert (node.module or "").count(".") == 2, (path.name, node.lineno)
            if isinstance(node, ast.Import):
                assert not any(name.name.startswith("rdev") for name in node.names), path.name


@pytest.mark.parametrize("version", PYTHONS)
def test_the_loop_is_importable_where_rdev_is_not_installed(tmp_path, version):
    source = """\
        import sys
        from rdev.loop import Loop
        from rdev.wire.clock import active_monotonic
        import rdev
        try:
            import rdev.client
        except ModuleNotFoundError:
            print("only what a job needs")
    """
    python = PYTHONS[version]
    if python == sys.executable:
        python = os.path.realpath(python)  # beside the environment that rdev is installed in
    done = planted(source, tmp_path, python=python)
    assert (done.stdout, done.stderr) == ("only what a job needs\n", "")


FORKING = """\
import os
import time
import warnings

warnings.simplefilter("error")
deadline = time.monotonic() + 20
child = os.fork()
if child == 0:
    while not os.path.exists("stop") and time.monotonic() < deadline:
        time.sleep(0.01)
    os._exit(3)
while not os.path.exists("stop") and time.monotonic() < deadline:
    time.sleep(0.01)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize("version", HOOKED)
async def test_a_fork_under_warnings_as_errors_arms_both_sides(tmp_path, version):
    options = ("-W", "error")
    async with hooked_job(tmp_path, FORKING, python=HOOKED[version], options=options) as job:
        await job.until(lambda: len({hello["pid"] for hello in job.hellos}) == 2)
        status = await job.command("0", "hook", 0, "status")
        assert (status["pid"], status["attached"]) == (job.process.pid, False)
        assert await job.end() == "3\n"


# While a debugger is attached the process has its threads, and 3.12 says so at a fork.
FORKING_WHILE_ATTACHED = """\
import os, sys, time, warnings

parent = os.getpid()
warnings.simplefilter("ignore")

def body(x):
    return x + 1

total = 0
while not os.path.exists("stop"):
    total += body(total)
    time.sleep(0.002)
    if os.path.exists("fork"):
        os.remove("fork")
        child = os.fork()
        if child == 0:
            for number in range(1000):
                body(number)
            os._exit(0 if sys.gettrace() is None else 1)
        print(os.waitpid(child, 0)[1], flush=True)
print("done")
"""


@pytest.mark.parametrize("version", HOOKED)
async def test_a_child_forked_under_the_debugger_runs_through_its_breakpoints(tmp_path, version):
    async with (
        hooked_job(tmp_path, FORKING_WHILE_ATTACHED, python=HOOKED[version]) as job,
        DebugManager(job) as manager,
        manager.session("0" * 12, 0) as session,
        debugging(SessionPipe(session)) as client,
    ):
        script = str(tmp_path / "train.py")
        await client.attach(
            [Breakpoint(script, 7, "os.getpid() != parent"), Breakpoint(script, 20)]
        )
        (tmp_path / "fork").touch()
        async with asyncio.timeout(20):
            stop = await client.halted()
        assert isinstance(stop, Stopped)
        assert (await client.evaluate("child > 0", (await client.stack(stop.thread))[0])).value
        await client.resume("continue", stop.thread)
        await client.detach()
        assert await job.end() == "0\ndone\n"


ENDING = """\
import os
import time

while not os.path.exists("stop"):
    time.sleep(0.002)
print("done")
"""


@pytest.mark.parametrize("version", HOOKED)
async def test_a_job_held_on_its_last_line_reports_that_it_went_on(tmp_path, version):
    async with (
        hooked_job(tmp_path, ENDING, python=HOOKED[version]) as job,
        DebugManager(job) as manager,
        manager.session("0" * 12, 0) as session,
        debugging(SessionPipe(session)) as client,
    ):
        await client.attach([Breakpoint(str(tmp_path / "train.py"), 6)])
        (tmp_path / "stop").touch()
        async with asyncio.timeout(20):
            stop = await client.halted()
        assert isinstance(stop, Stopped)
        await client.resume("continue", stop.thread)
        assert await job.end() == "done\n"
        await job.event("debug_detached")
        kinds = [event["kind"] for event in job.events]
        assert kinds == ["debug_attached", "debug_paused", "debug_resumed", "debug_detached"]


CLOCKED = """\
import os
import time
from rdev.wire.clock import active_monotonic

wall, active = time.monotonic(), active_monotonic()
while not os.path.exists("stop"):
    time.sleep(0.002)
    mark = 1
print(time.monotonic() - wall - (active_monotonic() - active))
"""


async def test_the_active_clock_stands_still_during_a_stop(tmp_path):
    async with hooked_job(tmp_path, CLOCKED) as job, DebugManager(job) as manager:
        async with manager.session("0" * 12, 0) as session, debugging(SessionPipe(session)) as c:
            await c.attach([Breakpoint(str(tmp_path / "train.py"), 8)])
            async with asyncio.timeout(20):
                await c.halted()
            await job.event("debug_paused")
            await asyncio.sleep(0.5)  # the length of the stop is what is measured
            await c.detach()
        resumed = await job.event("debug_resumed")
        held = float(await job.end())
        assert 0.5 <= held < 1.5
        assert abs(held - resumed["seconds"]) < 0.2


async def test_the_dormant_hook_refuses_what_it_does_not_know_and_lives_on(tmp_path):
    async with hooked_job(tmp_path, CLOCKED) as job:
        with pytest.raises(Exception, match="does not know the command 'dance'"):
            await job.command("0", "hook", 0, "dance")
        order = {"socket": str(tmp_path / "no.sock"), "debugpy": str(tmp_path)}
        with pytest.raises(Exception, match="there is no debugpy in"):
            await job.command(
                "0", "hook", 0, "attach", {**order, "server_token": "a", "client_token": "b"}
            )
        assert (await job.command("0", "hook", 0, "status"))["attached"] is False
        await job.end()


# Its frame is where the expression is evaluated; it ends in the midst of that.
ENDS = """\
import threading, time
import torch

def train():
    while all(thread.name != "rdev-evaluate" for thread in threading.enumerate()):
        time.sleep(0.01)
    time.sleep(0.1)

train()
"""

# In torch's C++ most of the time, which gives the interpreter's lock away and takes it back.
BUSY = "[(torch.ones(500, 500) @ torch.ones(500, 500)).sum().item() for _ in range({count})]"


@pytest.mark.parametrize(
    "count",
    [150, pytest.param(10**9, marks=pytest.mark.slow)],
    ids=["a second", "for ever"],
)
async def test_a_program_that_ends_while_a_thread_of_ours_is_in_torch_ends_well(tmp_path, count):
    pytest.importorskip("torch")
    async with hooked_job(tmp_path, ENDS, environment={"OMP_NUM_THREADS": "1"}) as job:
        await job.until(lambda: job.hello)
        expression = {"expression": BUSY.format(count=count), "function": "train"}

        async def evaluate() -> None:
            while True:
                with contextlib.suppress(JobConflict):  # it is not in `train` yet
                    await job.command("0", "hook", 0, "evaluate", expression)
                await asyncio.sleep(0.05)

        asked = asyncio.create_task(evaluate())
        async with asyncio.timeout(30):
            output, _ = await job.process.communicate()
        asked.cancel()
        assert (job.process.returncode, output) == (0, b"")

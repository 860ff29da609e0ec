"""The agent put together: managers below, services above, one unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import grpc

import rdev.hook
from rdev.agent.control.manager import ControlManager
from rdev.agent.debug.manager import DebugManager
from rdev.agent.debug.strangers import Strangers
from rdev.agent.environment.manager import EnvironmentManager
from rdev.agent.identity import identify
from rdev.agent.idle import Calls, until_idle
from rdev.agent.interceptor import ErrorInterceptor
from rdev.agent.jobs.manager import JobManager
from rdev.agent.jobs.resolve import Surroundings, scrubbed
from rdev.agent.jobs.retention import Keep
from rdev.agent.lifecycle import be_guarded
from rdev.agent.login import Login
from rdev.agent.logs.inotify import Inotify
from rdev.agent.machine.checks import Machine, examine
from rdev.agent.machine.slurm import is_login_node
from rdev.agent.services.agent import AgentService
from rdev.agent.services.control import ControlService
from rdev.agent.services.debug import DebugService
from rdev.agent.services.environment import EnvironmentService
from rdev.agent.services.event import EventService
from rdev.agent.services.job import JobService
from rdev.agent.services.log import LogService
from rdev.agent.services.workspace import WorkspaceService
from rdev.agent.site import Site, restricted
from rdev.agent.workspace.manager import WorkspaceManager
from rdev.protocol.convert import LOGIN_NODE, LOGIN_UNKNOWN
from rdev.protocol.transport import SERVER_OPTIONS
from rdev.v1 import (
    agent_pb2_grpc,
    control_pb2_grpc,
    debug_pb2_grpc,
    environment_pb2_grpc,
    event_pb2_grpc,
    job_pb2_grpc,
    workspace_pb2_grpc,
)
from rdev.wire.guard import forget_agent
from rdev.wire.home import Home, check_private
from rdev.wire.unix import short_socket_path

_log = logging.getLogger(__name__)

# Calls under way get this long when the agent ends. Streams would never end by themselves; clients
# open them again, at the next agent if this one is being replaced, so nobody is kept waiting.
_GOODBYE = 0.1

# Nobody waits for an agent to notice that its home is gone; idle it should cost next to nothing.
_LOOK_FOR_HOME = 10.0

# Old jobs are looked for this often, beside once at the start; a job more or less does not matter.
_RETIRE = 3600.0


@dataclass(frozen=True, slots=True)
class Mandate:
    """What an agent serves, and by which rules.

    Attributes:
        home: The state folder.
        login: What jobs get.
        site: What the owner of the machine allows.
        umask: What the agent was started with.
        options: Of `rdev-agent serve`, for the agent after this one.
    """

    home: Home
    login: Login
    site: Site
    umask: int
    options: tuple[str, ...] = ()


async def serve(mandate: Mandate, *, on_ready: Callable[[], None]) -> None:
    """Serves until SIGTERM, SIGINT or a StopAgent call, or nobody needs it; jobs go on afterwards.

    Args:
        mandate: What to serve; the caller holds the home's lock.
        on_ready: Called once calls are answered.
    """
    home = mandate.home
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    # The terminal we were started from may go away; that is no reason to stop.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # Before live jobs hear of this agent: their supervisors look who it is.
    await asyncio.to_thread(be_guarded, home, umask=mandate.umask, options=mandate.options)
    calls = Calls()
    async with _composed(mandate, stopping, calls) as (server, jobs):
        await _listen(server, home)
        _log.info("agent serves %s", home.socket)
        on_ready()
        async with asyncio.TaskGroup() as group:
            beside = (
                _stop_without_home(home, stopping),
                _stop_when_idle(mandate.site.idle_exit, calls, jobs, stopping),
                _retire(jobs),
            )
            tasks = [group.create_task(work) for work in beside]
            await stopping.wait()
            for task in tasks:
                task.cancel()
        # An end that is meant; after this no supervisor starts an agent again.
        await asyncio.to_thread(forget_agent, home.live, os.getpid())
        await server.stop(_GOODBYE)
    _log.info("agent stopped")


@contextlib.asynccontextmanager
async def _composed(
    mandate: Mandate, stopping: asyncio.Event, calls: Calls
) -> AsyncIterator[tuple[grpc.aio.Server, JobManager]]:
    home, login, site = mandate.home, mandate.login, mandate.site
    environment = restricted(login.environment, site.gpus)
    async with contextlib.AsyncExitStack() as stack:
        workspaces = await stack.enter_async_context(
            WorkspaceManager(home.root, machine=home.host, most=site.store)
        )
        inotify = await stack.enter_async_context(Inotify())
        environments = EnvironmentManager(
            home,
            login=lambda: scrubbed(environment),
            workspaces=workspaces.folder,
        )
        jobs = await stack.enter_async_context(
            JobManager(
                home.jobs,
                workspaces.folder,
                surroundings=Surroundings(
                    environment,
                    login.umask,
                    _plant_folder() if site.hook else None,
                    limits=login.limits,
                    nice=login.nice,
                    cpus=login.cpus,
                    log_most=site.log,
                ),
                descriptors=login.descriptors,
                snapshots=workspaces,
                environments=environments,
                ledger=home.ledger,
                most=site.jobs,
            )
        )
        debug = await stack.enter_async_context(DebugManager(jobs))
        strangers = await stack.enter_async_context(
            Strangers(home.strangers, jobs, is_allowed=site.hook)
        )
        visits = await stack.enter_async_context(DebugManager(strangers))
        traits = {LOGIN_UNKNOWN} if login.fault else set()
        if await is_login_node(environment):
            traits.add(LOGIN_NODE)
        server = grpc.aio.server(interceptors=[ErrorInterceptor(calls)], options=SERVER_OPTIONS)
        agent_pb2_grpc.add_AgentServiceServicer_to_server(
            AgentService(
                identify(home, traits=traits),
                stopping,
                check=lambda skew: examine(
                    Machine(
                        home,
                        environment,
                        skew,
                        environments.seen,
                        login_fault=login.fault,
                        is_login_node=LOGIN_NODE in traits,
                    )
                ),
            ),
            server,
        )
        workspace_pb2_grpc.add_WorkspaceServiceServicer_to_server(
            WorkspaceService(workspaces), server
        )
        job_pb2_grpc.add_JobServiceServicer_to_server(JobService(jobs), server)
        environment_pb2_grpc.add_EnvironmentServiceServicer_to_server(
            EnvironmentService(environments), server
        )
        LogService(jobs, inotify).add_to(server)
        event_pb2_grpc.add_EventServiceServicer_to_server(EventService(jobs, inotify), server)
        debug_pb2_grpc.add_DebugServiceServicer_to_server(
            DebugService(debug, strangers, visits), server
        )
        control_pb2_grpc.add_ControlServiceServicer_to_server(
            ControlService(ControlManager(jobs, inotify)), server
        )
        yield server, jobs


async def _stop_when_idle(
    seconds: float | None, calls: Calls, jobs: JobManager, stopping: asyncio.Event
) -> None:
    if seconds is None:
        return
    await until_idle(calls, has_jobs=jobs.has_live, seconds=seconds)
    _log.info("nobody has needed this agent for %.0f s", seconds)
    stopping.set()


async def _retire(jobs: JobManager) -> None:
    while True:
        try:
            removed = await jobs.retire(Keep())
            if removed:
                _log.info("removed old jobs with their logs: %s", ", ".join(removed))
        except Exception:  # noqa: BLE001  # old logs are no reason for an agent to end
            _log.exception("unable to remove old jobs")
        await asyncio.sleep(_RETIRE)


async def _stop_without_home(home: Home, stopping: asyncio.Event) -> None:
    # Whoever removes the home, or puts another in its place, wants no agent that serves a socket
    # which nobody can reach any more.
    mine = await asyncio.to_thread(os.stat, home.socket)
    while True:
        await asyncio.sleep(_LOOK_FOR_HOME)
        try:
            found = await asyncio.to_thread(os.stat, home.socket)
        except (FileNotFoundError, NotADirectoryError):
            break
        except OSError:  # a network home may be away for a while
            continue
        if (found.st_dev, found.st_ino) != (mine.st_dev, mine.st_ino):
            break
    _log.warning("the home %s was removed", home.root)
    stopping.set()


def _plant_folder() -> str:
    # What lies here is put first on the PYTHONPATH of jobs; see rdev.hook.
    return os.path.join(os.path.dirname(rdev.hook.__file__), "plant")


async def _listen(server: grpc.aio.Server, home: Home) -> None:
    with short_socket_path(home.socket) as path:
        server.add_insecure_port(f"unix:{path}")
        await server.start()
    check_private(home.socket)

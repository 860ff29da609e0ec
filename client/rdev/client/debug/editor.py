"""An editor's debug session: it speaks DAP to us, we attach when it asks, and then translate.

expecting --initialize--> greeted --attach--> opening --the job's adapter answers--> joined --> over
   '------- disconnect, end of stream -----------'--- failure: a response that says why ---------^

`initialize` is answered before there is a job, since the job may be named by the `attach`; the
job's adapter hears it when it is there.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from rdev.client.debug.translation import Translator, failed, important
from rdev.protocol.dap import DapError, Framer, Message, encode, sequence
from rdev.protocol.errors import RdevError

# Requests read ahead of their turn; an editor that sends more waits.
_READ_AHEAD = 64

# What debugpy says of itself, apart from ending the job; a contract test compares.
CAPABILITIES: Mapping[str, Any] = {
    "supportsCompletionsRequest": True,
    "supportsConditionalBreakpoints": True,
    "supportsConfigurationDoneRequest": True,
    "supportsDebuggerProperties": True,
    "supportsDelayedStackTraceLoading": True,
    "supportsEvaluateForHovers": True,
    "supportsExceptionInfoRequest": True,
    "supportsExceptionOptions": True,
    "supportsFunctionBreakpoints": True,
    "supportsHitConditionalBreakpoints": True,
    "supportsLogPoints": True,
    "supportsModulesRequest": True,
    "supportsSetExpression": True,
    "supportsSetVariable": True,
    "supportsValueFormattingOptions": True,
    "supportsTerminateDebuggee": True,  # no name of the protocol; the next one is
    "supportTerminateDebuggee": False,
    "supportsTerminateRequest": False,
    "supportsGotoTargetsRequest": True,
    "supportsClipboardContext": True,
    "exceptionBreakpointFilters": [
        {
            "filter": "raised",
            "label": "Raised Exceptions",
            "default": False,
            "description": "Break whenever any exception is raised.",
        },
        {
            "filter": "uncaught",
            "label": "Uncaught Exceptions",
            "default": True,
            "description": "Break when the process is exiting due to unhandled exception.",
        },
        {
            "filter": "userUnhandled",
            "label": "User Uncaught Exceptions",
            "default": False,
            "description": "Break when exception escapes into library code.",
        },
    ],
    "supportsStepInTargetsRequest": True,
}


class Stream(Protocol):
    """An editor's bytes. `receive` returns b"" at the end; both raise OSError when it breaks."""

    async def receive(self) -> bytes:
        """The next bytes."""
        ...

    async def send(self, data: bytes) -> None:
        """Sends all of `data`."""
        ...


class Pipe(Protocol):
    """The job's adapter; see `rdev.client.debug.session.Pipe`."""

    async def receive(self) -> bytes:
        """The next bytes; b"" at the end."""
        ...

    async def send(self, data: bytes) -> None:
        """Sends all of `data`."""
        ...


@dataclass(frozen=True, slots=True)
class Joint:
    """What an editor is joined with: the job's adapter, and what translates between them."""

    pipe: Pipe
    translator: Translator


# Attaches to the job that the arguments of an `attach` name; what is to be said meanwhile is told.
Opening = Callable[[Message, Callable[[str], None]], AbstractAsyncContextManager[Joint]]


class EditorSession:
    """Serves one editor from its first byte to the end of its session.

    Args:
        stream: The editor.
        opening: Attaches to a job.
    """

    def __init__(self, stream: Stream, opening: Opening) -> None:
        self._stream = stream
        self._opening = opening
        self._numbers = itertools.count(1)
        self._asking: dict[int, int] = {}
        self._inbox: asyncio.Queue[Message | None] = asyncio.Queue(_READ_AHEAD)
        self._outbox: asyncio.Queue[Message | None] = asyncio.Queue()
        self._initialize: Message = {}
        self._joined = False
        self._is_answered = False
        self._has_ended = False

    async def run(self) -> None:
        """Serves; cancelled, or left by the editor, it detaches and returns."""
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(self._write())
            working = group.create_task(self._work())
            reading = group.create_task(self._read(working))
            await asyncio.wait({working})
            reading.cancel()
            self._outbox.put_nowait(None)
            await asyncio.wait({writing})

    # Bytes.

    async def _read(self, working: asyncio.Task[None]) -> None:
        framer = Framer()
        try:
            while data := await self._stream.receive():
                for message in framer.feed(data):
                    if self._is_leaving(message) and not self._joined and self._initialize:
                        self._say(_answer(message))
                        working.cancel()  # it is attaching, which may take its time
                        return
                    await self._inbox.put(message)
        except (DapError, OSError):
            pass  # an editor that speaks something else is as good as gone
        await self._inbox.put(None)
        if not self._joined:
            working.cancel()

    @staticmethod
    def _is_leaving(message: Message) -> bool:
        return message.get("command") in ("disconnect", "terminate")

    async def _write(self) -> None:
        with suppress(OSError):  # whoever reads finds out
            while (message := await self._outbox.get()) is not None:
                await self._stream.send(encode(message))

    def _say(self, message: Message) -> None:
        number = next(self._numbers)
        if message.get("type") == "request":
            self._asking[number] = sequence(message, "seq")
        if message.get("event") == "terminated":
            self._has_ended = True
        self._outbox.put_nowait({**message, "seq": number})

    def _tell(self, text: str) -> None:
        self._say(important(text))

    # The session.

    async def _work(self) -> None:
        attach = await self._until_attach()
        if attach is None:
            return
        try:
            arguments = attach.get("arguments")
            asked = arguments if isinstance(arguments, dict) else {}
            async with self._opening(asked, self._tell) as joint:
                self._joined = True
                await self._join(joint, attach)
        except RdevError as error:
            self._fail(attach, error)
        if self._is_answered and not self._has_ended:
            self._say({"type": "event", "event": "terminated", "body": {}})

    async def _until_attach(self) -> Message | None:
        """Answers what can be answered without a job; None if the editor leaves."""
        while (message := await self._inbox.get()) is not None:
            match message.get("command"):
                case "initialize":
                    self._initialize = message
                    self._say({**_answer(message), "body": dict(CAPABILITIES)})
                case "attach":
                    return message
                case "launch":
                    cause = "rdev attaches to jobs, which `rdev run` starts"
                    self._say(failed(_answer(message), cause, 'use "request": "attach"'))
                case "disconnect" | "terminate":
                    self._say(_answer(message))
                    return None
                case _ if message.get("type") == "request":
                    self._say(failed(_answer(message), "no job is attached yet"))
        return None

    def _fail(self, attach: Message, error: RdevError) -> None:
        if self._is_answered:
            self._tell(error.message)
            return
        self._say(failed(_answer(attach), error.message, error.hint))
        self._say({"type": "event", "event": "terminated", "body": {}})

    async def _join(self, joint: Joint, attach: Message) -> None:
        failures: list[RdevError] = []

        async def guarded(work: Callable[[], Any]) -> None:
            try:
                await work()
            except RdevError as error:  # a group would wrap it
                failures.append(error)

        async with asyncio.TaskGroup() as group:
            back = group.create_task(guarded(lambda: self._back(joint, attach)))
            forth = group.create_task(guarded(lambda: self._forth(joint, attach)))
            await asyncio.wait({back, forth}, return_when=asyncio.FIRST_COMPLETED)
            back.cancel()
            forth.cancel()
        if failures:
            raise failures[0]

    async def _forth(self, joint: Joint, attach: Message) -> None:
        if self._initialize:
            await self._pass_on(joint, self._initialize)
        message: Message | None = attach
        while message is not None:
            await self._pass_on(joint, message)
            message = await self._inbox.get()

    async def _pass_on(self, joint: Joint, message: Message) -> None:
        if message.get("type") == "response":
            asked = self._asking.pop(sequence(message, "request_seq"), -1)
            message = {**message, "request_seq": asked}
        routed = await joint.translator.from_editor(message)
        for answer in routed.to_editor:
            self._say(answer)
        for request in routed.to_adapter:
            await joint.pipe.send(encode(request))

    async def _back(self, joint: Joint, attach: Message) -> None:
        framer = Framer()
        try:
            while data := await joint.pipe.receive():
                for message in framer.feed(data):
                    await self._pass_back(joint, message, attach)
        except DapError as error:
            self._tell(f"the job's debugger said something else than DAP: {error}")

    async def _pass_back(self, joint: Joint, message: Message, attach: Message) -> None:
        if message.get("type") == "response":
            answered = sequence(message, "request_seq")
            if answered == sequence(self._initialize, "seq"):
                self._compare(message.get("body"))
                return
            self._is_answered |= answered == sequence(attach, "seq")
        for wanted in await joint.translator.from_adapter(message):
            self._say(wanted)

    def _compare(self, body: object) -> None:
        if isinstance(body, dict) and body != CAPABILITIES:
            event = {"type": "event", "event": "capabilities", "body": {"capabilities": body}}
            self._say(event)


def _answer(request: Message) -> Message:
    return {
        "type": "response",
        "request_seq": sequence(request, "seq"),
        "command": str(request.get("command")),
        "success": True,
    }

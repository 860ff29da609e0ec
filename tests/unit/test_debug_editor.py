"""An editor's session before, while and after it is joined with a job's adapter."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from rdev.client.debug.editor import CAPABILITIES, EditorSession, Joint
from rdev.client.debug.places import Sources
from rdev.client.debug.texts import Texts
from rdev.client.debug.translation import Translator
from rdev.protocol.dap import Framer, encode
from rdev.protocol.errors import DebuggerBusy


class End:
    """One end of a byte stream; what is sent to it is read at the other."""

    def __init__(self) -> None:
        self.peer: End
        self._arrived: asyncio.Queue[bytes] = asyncio.Queue()
        self._framer, self._messages = Framer(), []
        self._seq = 0

    async def receive(self) -> bytes:
        return await self._arrived.get()

    async def send(self, data: bytes) -> None:
        self.peer._arrived.put_nowait(data)

    def hang_up(self) -> None:
        self.peer._arrived.put_nowait(b"")

    async def message(self) -> dict:
        async with asyncio.timeout(20):
            while not self._messages:
                data = await self.receive()
                assert data, "it hung up"
                self._messages += self._framer.feed(data)
        return self._messages.pop(0)

    async def say(self, **message) -> int:
        self._seq += 1
        await self.send(encode({"seq": self._seq, **message}))
        return self._seq

    async def ask(self, command: str, **arguments) -> int:
        return await self.say(type="request", command=command, arguments=arguments)

    async def answer(self, request: dict, **body) -> None:
        head = {"type": "response", "request_seq": request["seq"], "command": request["command"]}
        await self.say(**head, success=True, body=body)


def ends() -> tuple[End, End]:
    one, other = End(), End()
    one.peer, other.peer = other, one
    return one, other


@asynccontextmanager
async def session(*, refusal: Exception | None = None, gate: asyncio.Event | None = None):
    """An editor, the job's adapter, and the session that joins them."""
    editor, ours = ends()
    adapter, pipe = ends()
    left = asyncio.Event()

    @asynccontextmanager
    async def opening(arguments, tell):
        tell(f"attaching to {arguments.get('job')}")
        try:
            if gate is not None:
                await gate.wait()
            if refusal is not None:
                raise refusal
            yield Joint(pipe, Translator(Texts(Sources("", "/host/ws"), nothing), "run-7"))
        finally:
            left.set()

    async with asyncio.TaskGroup() as group:
        running = group.create_task(EditorSession(ours, opening).run())
        yield editor, adapter, left, running
        async with asyncio.timeout(20):
            await running


async def nothing(_path: str) -> None:
    """No file is in the snapshot."""


async def greet(editor: End) -> None:
    await editor.ask("initialize", adapterID="x")
    answer = await editor.message()
    assert answer["success"]
    assert answer["body"]["supportsConfigurationDoneRequest"]


async def attached(editor: End, adapter: End) -> dict:
    """Brings a session to where both sides talk; the adapter's `attach`."""
    await greet(editor)
    await editor.ask("attach", job="train")
    notice = await editor.message()
    assert notice["body"] == {"category": "important", "output": "attaching to train\n"}
    initialize = await adapter.message()
    assert initialize["command"] == "initialize"
    await adapter.answer(initialize, **CAPABILITIES)
    attach = await adapter.message()
    assert attach["command"] == "attach"
    return attach


async def test_a_session_from_the_greeting_to_the_end(tmp_path):
    async with session() as (editor, adapter, left, _):
        attach = await attached(editor, adapter)
        await adapter.say(type="event", event="initialized")
        assert (await editor.message())["event"] == "initialized"
        await adapter.answer(attach)
        assert (await editor.message())["command"] == "attach"
        await adapter.say(type="request", command="runInTerminal", arguments={})
        asked = await editor.message()
        await editor.say(type="response", request_seq=asked["seq"], command="x", success=True)
        answered = await adapter.message()
        assert answered["request_seq"] == adapter._seq, "numbers of the adapter's own"
        await editor.ask("disconnect")
        await adapter.answer(await adapter.message())
        adapter.hang_up()
        assert (await editor.message())["command"] == "disconnect"
        assert (await editor.message())["event"] == "terminated"
    assert left.is_set()


async def test_what_the_adapter_can_do_besides_is_told():
    async with session() as (editor, adapter, _, _):
        await greet(editor)
        await editor.ask("attach")
        await editor.message()
        await adapter.answer(await adapter.message(), supportsTerminateRequest=True)
        event = await editor.message()
        assert event["event"] == "capabilities"
        assert event["body"]["capabilities"] == {"supportsTerminateRequest": True}
        editor.hang_up()


async def test_a_refusal_is_the_answer_to_attach_and_ends_the_session():
    refusal = DebuggerBusy("debug rank 0", "ann@laptop is attached")
    async with session(refusal=refusal) as (editor, _, left, _):
        await greet(editor)
        number = await editor.ask("attach")
        await editor.message()
        refused = await editor.message()
        assert (refused["request_seq"], refused["success"]) == (number, False)
        assert "ann@laptop is attached" in refused["message"]
        assert refused["body"]["error"]["showUser"] is True
        assert (await editor.message())["event"] == "terminated"
    assert left.is_set()


@pytest.mark.parametrize("word", ["disconnect", None])
async def test_an_editor_that_leaves_while_an_attach_takes_its_time_is_let_go(word):
    async with session(gate=asyncio.Event()) as (editor, _, left, _):
        await greet(editor)
        await editor.ask("attach")
        await editor.message()
        if word is None:
            editor.hang_up()
        else:
            await editor.ask(word)
            assert (await editor.message())["success"]
    assert left.is_set()


async def test_a_stream_that_is_no_dap_ends_the_session():
    async with session() as (editor, *_):
        await editor.send(b"GET / HTTP/1.1\r\n\r\n")


async def test_a_job_that_ends_is_said_once():
    async with session() as (editor, adapter, *_):
        attach = await attached(editor, adapter)
        await adapter.answer(attach)
        await editor.message()
        await adapter.say(type="event", event="terminated", body={})
        adapter.hang_up()
        assert (await editor.message())["event"] == "terminated"
    assert editor._arrived.empty()

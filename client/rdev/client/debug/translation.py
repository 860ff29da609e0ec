"""A debug session's messages between an editor and the job: files and lines of both sides.

    editor --from_editor--> adapter        editor <--from_adapter-- adapter

The editor sees its own files, and their lines as they are here; see `rdev.client.debug.documents`.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rdev.client.debug.coordinates import AS_DEBUGPY, Coordinates
from rdev.client.debug.documents import Document, Documents
from rdev.client.debug.logpoints import prepared
from rdev.client.debug.mapping import Kinship
from rdev.client.debug.texts import Texts
from rdev.protocol.dap import Message, sequence

# Options of an attach that would make debugpy map paths beside us, or for another system.
_MAPPING_OPTIONS = ("localRoot", "remoteRoot", "clientOS")

# What debugpy adds to an exception's name, and to the frame that it stands in.
_REMARKS = re.compile(r"\s*\(note: full exception trace.*?\)|[ ]\(Current frame\)")

# A frame in the text of a traceback.
_TRACED = re.compile(r'(?m)^(\s*File ")([^"\n]+)(", line )(\d+)')


@dataclass(slots=True)
class Routed:
    """What one message of the editor leads to."""

    to_adapter: list[Message] = field(default_factory=list)
    to_editor: list[Message] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request under way, as far as its response needs to know."""

    command: str
    document: Document | None = None
    places: tuple[Message | int, ...] = ()


class Translator:
    """Translates one session.

    Args:
        texts: The files of both sides.
        job: The job's name, for people.
        libraries_are_here: The host is this machine, so its libraries can be opened here.
    """

    def __init__(self, texts: Texts, job: str, *, libraries_are_here: bool = False) -> None:
        self._texts = texts
        self._job = job
        self._documents = Documents(texts, job, libraries_are_here=libraries_are_here)
        self._asked: dict[int, _Asked] = {}
        self._placed: dict[str, dict[str, list[Message]]] = {}
        self._owners: dict[int, Document] = {}

    @property
    def _coordinates(self) -> Coordinates:
        return self._documents.coordinates

    def _notices(self) -> list[Message]:
        return [important(notice) for notice in self._documents.take_notices()]

    # From the editor.

    async def from_editor(self, message: Message) -> Routed:
        """What becomes of a message of the editor."""
        if message.get("type") != "request":
            return Routed([message])
        arguments = _table(message.get("arguments"))
        handler = self._requests().get(str(message.get("command")), self._plain)
        routed = await handler(message, arguments)
        routed.to_editor += self._notices()
        return routed

    def _requests(self) -> dict[str, Callable[[Message, Message], Awaitable[Routed]]]:
        return {
            "initialize": self._initialize,
            "attach": self._attach,
            "setBreakpoints": self._set_breakpoints,
            "breakpointLocations": self._at_place,
            "gotoTargets": self._at_place,
            "source": self._source,
        }

    async def _initialize(self, message: Message, arguments: Message) -> Routed:
        self._documents.coordinates = Coordinates.of(arguments)
        return self._pass(message, {**arguments, **AS_DEBUGPY})

    async def _attach(self, message: Message, arguments: Message) -> Routed:
        kept = {key: value for key, value in arguments.items() if key not in _MAPPING_OPTIONS}
        options = kept.get("debugOptions")
        if isinstance(options, list):
            kept["debugOptions"] = [name for name in options if name != "WindowsClient"]
        root = self._texts.sources.remote
        # The workspace to itself, since we have mapped it: whatever is not mapped gets a
        # `sourceReference` of debugpy's, by which its text can be read from the host.
        same = {"localRoot": root, "remoteRoot": root}
        return self._pass(message, {**kept, "pathMappings": [same, *self._foreign(arguments)]})

    def _foreign(self, arguments: Message) -> list[Message]:
        """Mappings of the editor's own that concern neither side of the workspace."""
        sources = self._texts.sources
        kept = []
        for mapping in arguments.get("pathMappings") or ():
            if not isinstance(mapping, dict):
                continue
            local, remote = str(mapping.get("localRoot", "")), str(mapping.get("remoteRoot", ""))
            is_apart = not _overlap(local, sources.local) and not _overlap(remote, sources.remote)
            if os.path.isabs(local) and os.path.isabs(remote) and is_apart:
                kept.append({"localRoot": local, "remoteRoot": remote})
                self._documents.see(local)
        return kept

    async def _set_breakpoints(self, message: Message, arguments: Message) -> Routed:
        document = await self._documents.meant(_table(arguments.get("source")))
        asked = [self._coordinates.numbers_in(item) for item in _wanted(arguments)]
        if document is None:
            refused = [_refused(item, "this file is not in the job's workspace") for item in asked]
            return self._answer(message, {"breakpoints": self._numbered(refused)})
        places = [_place(document, item, self._job) for item in asked]
        wanted = [place for place in places if "verified" not in place]
        documents = self._placed.setdefault(document.path, {})
        documents[document.key] = wanted
        others = [item for key, items in documents.items() if key != document.key for item in items]
        order = itertools.count()
        slots = tuple(item if "verified" in item else next(order) for item in places)
        asking = {
            **{key: value for key, value in arguments.items() if key != "lines"},
            "source": {"name": os.path.basename(document.path), "path": document.path},
            "breakpoints": [*wanted, *others],
        }
        return self._pass(message, asking, _Asked("setBreakpoints", document, slots))

    async def _at_place(self, message: Message, arguments: Message) -> Routed:
        document = await self._documents.meant(_table(arguments.get("source")))
        item = self._coordinates.numbers_in(arguments)
        command = str(message.get("command"))
        if document is None:
            return self._answer(message, {"targets": [], "breakpoints": []})
        for name in ("line", "endLine"):
            if isinstance(item.get(name), int):
                found = document.to_job(item[name])
                if not found.is_there:  # rather nowhere than at the nearest line
                    return self._answer(message, {"targets": [], "breakpoints": []})
                item[name] = found.line
        source = {"name": os.path.basename(document.path), "path": document.path}
        return self._pass(message, {**item, "source": source}, _Asked(command, document))

    async def _source(self, message: Message, arguments: Message) -> Routed:
        source = _table(arguments.get("source"))
        reference = arguments.get("sourceReference") or source.get("sourceReference") or 0
        path = self._documents.referred(reference)
        if path is None and not reference:
            document = await self._documents.meant(source)
            path = document.path if document else None
        if path is None:
            return self._pass(message, arguments)
        content = await self._texts.content(path)
        if content is None:
            return self._refuse(message, f"nobody knows the text of {path}")
        text = content.decode(errors="replace")
        return self._answer(message, {"content": text, "mimeType": "text/x-python"})

    async def _plain(self, message: Message, arguments: Message) -> Routed:
        moved = self._coordinates.numbers_in(arguments)
        if "source" in moved and isinstance(moved["source"], dict):
            document = await self._documents.meant(moved["source"])
            if document is not None:
                moved["source"] = {**moved["source"], "path": document.path}
        return self._pass(message, moved)

    def _pass(self, message: Message, arguments: Message, asked: _Asked | None = None) -> Routed:
        number = sequence(message, "seq")
        self._asked[number] = asked or _Asked(str(message.get("command")))
        if "arguments" not in message and not arguments:
            return Routed([message])
        return Routed([{**message, "arguments": arguments}])

    def _answer(self, message: Message, body: Message) -> Routed:
        return Routed(to_editor=[_response(message, success=True, body=body)])

    def _refuse(self, message: Message, cause: str) -> Routed:
        return Routed(to_editor=[_response(message, success=False, cause=cause)])

    # From the adapter.

    async def from_adapter(self, message: Message) -> list[Message]:
        """What the editor gets for a message of the adapter."""
        body = message.get("body")
        if message.get("type") == "response":
            asked = self._asked.pop(sequence(message, "request_seq"), None)
            if asked is not None and isinstance(body, dict) and message.get("success"):
                message = {**message, "body": await self._response(asked, body)}
        elif message.get("type") == "event" and isinstance(body, dict):
            message = {**message, "body": await self._event(str(message.get("event")), body)}
        return [*self._notices(), message]

    async def _response(self, asked: _Asked, body: Message) -> Message:
        match asked.command:
            case "setBreakpoints" if asked.document is not None:
                return {**body, "breakpoints": self._breakpoints(asked, asked.document, body)}
            case "stackTrace" | "scopes":
                key = "stackFrames" if asked.command == "stackTrace" else "scopes"
                return {**body, key: [await self._located(item) for item in _tables(body, key)]}
            case "loadedSources":
                sources = [
                    await self._documents.shown(source) for source in _tables(body, "sources")
                ]
                return {**body, "sources": [source for source, _ in sources]}
            case "modules":
                modules = [await self._module(module) for module in _tables(body, "modules")]
                return {**body, "modules": modules}
            case "variables":
                return {**body, "variables": [_on_a_line(v) for v in _tables(body, "variables")]}
            case "gotoTargets" | "breakpointLocations" if asked.document is not None:
                return self._offered(asked.document, body)
            case "exceptionInfo":
                return await self._exception(body)
            case "stepInTargets":
                return {**body, "targets": self._numbered(_tables(body, "targets"))}
            case "locations":
                return await self._located(body)
        return body

    async def _event(self, name: str, body: Message) -> Message:
        match name:
            case "stopped" if isinstance(body.get("text"), str):
                return {**body, "text": _REMARKS.sub("", body["text"])}
            case "stopped" if body.get("reason") == "pause":
                # debugpy would have the editor keep its focus, so it would not show the place.
                return {"description": "Paused", **body, "preserveFocusHint": False}
            case "breakpoint":
                return {**body, "breakpoint": await self._changed(_table(body.get("breakpoint")))}
            case "output":
                return await self._located(body) if "source" in body else body
            case "loadedSource":
                return {
                    **body,
                    "source": (await self._documents.shown(_table(body.get("source"))))[0],
                }
            case "module":
                return {**body, "module": await self._module(_table(body.get("module")))}
        return body

    def _breakpoints(self, asked: _Asked, document: Document, body: Message) -> list[Message]:
        got = _tables(body, "breakpoints")
        answers = []
        for place in asked.places:
            if isinstance(place, int):
                item = got[place] if place < len(got) else {"verified": False}
                if isinstance(item.get("id"), int):
                    self._owners[item["id"]] = document
                answers.append(self._moved(document, item))
            else:
                answers += self._numbered([{**place, "source": document.source}])
        return answers

    def _moved(self, document: Document, item: Message) -> Message:
        """A place of the job's in that document."""
        moved = dict(item)
        for name in ("line", "endLine"):
            if isinstance(moved.get(name), int):
                moved[name] = document.to_editor(moved[name])
        if "source" in moved:
            moved["source"] = document.source
        return self._coordinates.numbers_out(moved)

    def _offered(self, document: Document, body: Message) -> Message:
        """Places in a document where something can be done: targets of a jump, or breakpoints."""
        offered = dict(body)
        for key in ("targets", "breakpoints"):
            if key in body:
                offered[key] = [self._named(document, item) for item in _tables(body, key)]
        return offered

    def _named(self, document: Document, item: Message) -> Message:
        moved = self._moved(document, item)
        if "label" in moved and isinstance(item.get("line"), int):
            # debugpy's is the host's path and line.
            name = os.path.basename(document.path)
            moved["label"] = f"{name}:{document.to_editor(item['line'])}"
        return moved

    async def _changed(self, item: Message) -> Message:
        document = self._owners.get(item.get("id", -1))
        if document is None:
            return await self._located(item)
        # The editor may have saved since.
        fresh = await self._documents.meant(document.source)
        return self._moved(fresh or document, item)

    async def _located(self, item: Message) -> Message:
        """An object with a source and lines, as the editor knows them."""
        if not isinstance(item.get("source"), dict):
            return self._coordinates.numbers_out(item)
        line = item["line"] if isinstance(item.get("line"), int) else 0
        source, pairing = await self._documents.shown(item["source"], line)
        moved = {**item, "source": source}
        for name in ("line", "endLine"):
            if pairing is not None and isinstance(item.get(name), int) and item[name] > 0:
                moved[name] = pairing.to_editor(item[name]).line
        return self._coordinates.numbers_out(moved)

    async def _module(self, module: Message) -> Message:
        if not module.get("path"):
            return module
        source, _ = await self._documents.shown({"path": module["path"]})
        return {**module, "path": source["path"]}

    async def _exception(self, body: Message) -> Message:
        details = _table(body.get("details"))
        if details.get("source"):
            source, _ = await self._documents.shown({"path": details["source"]})
            details["source"] = source["path"]
        if isinstance(details.get("stackTrace"), str):
            details["stackTrace"] = await self._traced(details["stackTrace"])
        told = {**body, "details": details} if details else dict(body)
        if "exceptionId" in told:
            told["exceptionId"] = _REMARKS.sub("", str(told["exceptionId"]))
        return told

    async def _traced(self, text: str) -> str:
        """A traceback with the editor's files and lines, which it makes links of."""
        parts, end = [], 0
        for frame in _TRACED.finditer(text):
            line = int(frame[4])
            source, pairing = await self._documents.shown({"path": frame[2]}, line)
            if pairing is not None:
                path = self._coordinates.path_in(source["path"])
                moved = pairing.to_editor(line).line
                parts += [text[end : frame.start()], frame[1], path, frame[3], str(moved)]
                end = frame.end()
        return _REMARKS.sub("", "".join([*parts, text[end:]]))

    def _numbered(self, items: list[Message]) -> list[Message]:
        return [self._coordinates.numbers_out(item) for item in items]


def important(text: str) -> Message:
    """An event that shows a line to the person, in whatever editor."""
    body = {"category": "important", "output": f"{text}\n"}
    return {"seq": 0, "type": "event", "event": "output", "body": body}


def _place(document: Document, item: Message, job: str) -> Message:
    """A breakpoint in the job's lines, or the refusal of one that cannot be there."""
    line = item.get("line")
    if not isinstance(line, int):
        return _refused(item, "it names no line")
    found = document.to_job(line)
    if not found.is_there:
        return _refused(item, f"job {job} does not have this line: it was written after its start")
    moved = {**item, "line": found.line}
    if isinstance(item.get("logMessage"), str):
        try:
            moved["logMessage"] = prepared(item["logMessage"])
        except ValueError as error:
            return _refused(item, str(error))
    if found.kinship is Kinship.EDITED:
        moved.pop("column", None)
    return moved


def _refused(item: Message, cause: str) -> Message:
    return {"verified": False, "line": item.get("line", 0), "message": cause}


def _on_a_line(variable: Message) -> Message:
    """Lists of variables show the first line only, which of a model is `Sequential(`."""
    value = variable.get("value")
    if not isinstance(value, str) or "\n" not in value:
        return variable
    return {**variable, "value": " ".join(value.split())}


def _wanted(arguments: Message) -> list[Message]:
    if isinstance(arguments.get("breakpoints"), list):
        return _tables(arguments, "breakpoints")
    # As clients did before there were conditions.
    return [{"line": line} for line in arguments.get("lines") or () if isinstance(line, int)]


def _overlap(one: str, other: str) -> bool:
    one, other = one.rstrip("/") + "/", other.rstrip("/") + "/"
    return one.startswith(other) or other.startswith(one)


def _response(request: Message, *, success: bool, cause: str = "", body: Any = None) -> Message:  # noqa: ANN401 - JSON
    answer: Message = {
        "seq": 0,
        "type": "response",
        "request_seq": sequence(request, "seq"),
        "command": str(request.get("command")),
        "success": success,
    }
    if body is not None:
        answer["body"] = body
    return answer if success else failed(answer, cause)


def failed(answer: Message, cause: str, hint: str = "") -> Message:
    """A response that says why not, in every form that editors look for."""
    text = f"{cause} ({hint})" if hint else cause
    error = {"id": 1, "format": text.replace("{", "(").replace("}", ")"), "showUser": True}
    return {**answer, "success": False, "message": text, "body": {"error": error}}


def _table(value: object) -> Message:
    return dict(value) if isinstance(value, dict) else {}


def _tables(body: Mapping[str, Any], key: str) -> list[Message]:
    return [item for item in body.get(key) or () if isinstance(item, dict)]

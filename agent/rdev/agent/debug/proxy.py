"""What the agent changes in the protocol between a client and the adapter, message by message.

    client --from_client--> adapter        client <--from_adapter-- adapter
       ^---- refusal ---'

- The process to attach to is chosen by the agent, so the client's own idea of where it is goes.
- Nothing that a client sends ends the job, unless it was opened so: `terminate` becomes a
  disconnect, and a disconnect never terminates the debuggee. `restart` and `launch` are refused.
- The job's output has a stream of its own: redirecting it would leave a wrapper around sys.stdout.
- debugpy's telemetry and its talk of sockets concern nobody.
"""

from __future__ import annotations

import enum

from rdev.protocol.dap import TOO_LATE, Message, sequence

# Where a client says that the process is; the adapter would try to go there.
_PLACES = ("connect", "listen", "host", "port", "processId", "subProcessId", "restart")

_DROPPED_EVENTS = frozenset({"debugpySockets", "debugpyWaitingForServer", "debugpyAttach"})

# Requests that are nobody's here, with the answer.
_REFUSED = {
    "restart": "the job is not started again: the debugger only visits it",
    "launch": "the job runs already: attach to it",
}

# What pydevd answers once it is leaving, in which it forgets first who may ask.
_LOGGED_OUT = "Client not authenticated."

# Requests after whose success the process runs.
_RESUMING = frozenset({"continue", "next", "stepIn", "stepOut", "reverseContinue", "stepBack"})


class Motion(enum.Enum):
    """What a message of the adapter says of the process."""

    STOPPED = "stopped"
    """A thread was stopped."""
    CONTINUED = "continued"
    """It runs again."""
    ENDED = "ended"
    """The session with it is over."""


class Proxy:
    """Rewrites one session's messages.

    Args:
        pid: The process that is attached to.
        allow_kill: `terminate` is to end the job.

    Attributes:
        allow_kill: See above.
    """

    def __init__(self, pid: int, *, allow_kill: bool = False) -> None:
        self._pid = pid
        self.allow_kill = allow_kill
        self._terminates: set[int] = set()

    def refusal(self, message: Message) -> Message | None:
        """The answer to a request of the client that the adapter is not to see."""
        command = message.get("command")
        if message.get("type") != "request" or command not in _REFUSED:
            return None
        answered = {"type": "response", "request_seq": sequence(message, "seq"), "seq": 0}
        cause = _REFUSED[str(command)]
        body = {"error": {"id": 1, "format": cause, "showUser": True}}
        return {**answered, "command": command, "success": False, "message": cause, "body": body}

    def kills(self, message: Message) -> bool:
        """Whether a message of the client asks, and may ask, for the end of the job."""
        is_terminate = message.get("type") == "request" and message.get("command") == "terminate"
        return is_terminate and self.allow_kill

    def from_client(self, message: Message) -> Message:
        """A message of the client as the adapter is to see it."""
        if message.get("type") != "request":
            return message
        match message.get("command"):
            case "attach":
                return {**message, "arguments": self._attach(_arguments(message))}
            case "terminate":
                self._terminates.add(sequence(message, "seq"))
                return {**message, "command": "disconnect", "arguments": _harmless({})}
            case "disconnect":
                return {**message, "arguments": _harmless(_arguments(message))}
        return message

    def from_adapter(self, message: Message) -> Message | None:
        """A message of the adapter as the client is to see it; None if it is not."""
        if message.get("type") == "event":
            return None if _is_noise(message) else message
        if message.get("type") != "response":
            return message
        if message.get("message") == _LOGGED_OUT:
            return {**message, "message": TOO_LATE}
        if sequence(message, "request_seq") in self._terminates:
            return {**message, "command": "terminate"}
        if message.get("command") == "initialize" and isinstance(message.get("body"), dict):
            # What would make a client offer to end the job.
            can = {"supportsTerminateRequest": self.allow_kill, "supportTerminateDebuggee": False}
            return {**message, "body": {**message["body"], **can}}
        return message

    def _attach(self, arguments: Message) -> Message:
        kept = {key: value for key, value in arguments.items() if key not in _PLACES}
        options = kept.get("debugOptions")
        if isinstance(options, list):
            kept["debugOptions"] = [name for name in options if name != "RedirectOutput"]
        return {**kept, "redirectOutput": False, "subProcessId": self._pid}


def motion(message: Message) -> Motion | None:
    """What a message of the adapter says of the process, if anything."""
    if message.get("type") == "event":
        match message.get("event"):
            case "stopped":
                return Motion.STOPPED
            case "continued":
                return Motion.CONTINUED
            case "terminated":
                return Motion.ENDED
        return None
    resumes = message.get("command") in _RESUMING and message.get("success") is True
    return Motion.CONTINUED if message.get("type") == "response" and resumes else None


def important(text: str) -> Message:
    """A line for the person, as an event that every client shows."""
    body = {"category": "important", "output": f"{text}\n"}
    return {"type": "event", "seq": 0, "event": "output", "body": body}


def terminated() -> Message:
    """The event that ends a client's session."""
    return {"type": "event", "seq": 0, "event": "terminated", "body": {}}


def _arguments(message: Message) -> Message:
    arguments = message.get("arguments")
    return arguments if isinstance(arguments, dict) else {}


def _harmless(arguments: Message) -> Message:
    kept = {key: value for key, value in arguments.items() if key != "restart"}
    return {**kept, "terminateDebuggee": False, "suspendDebuggee": False}


def _is_noise(message: Message) -> bool:
    if str(message.get("event")) in _DROPPED_EVENTS:
        return True
    body = message.get("body")
    telemetry = isinstance(body, dict) and body.get("category") == "telemetry"
    return message.get("event") == "output" and telemetry

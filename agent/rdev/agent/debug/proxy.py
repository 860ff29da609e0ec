"""What the agent changes in the protocol between a client and the adapter, message by message.

    client --from_client--> adapter        client <--from_adapter-- adapter

- The process to attach to is chosen by the agent, so the client's own idea of where it is goes.
- Nothing that a client sends ends the job: `terminate` becomes a disconnect, and a disconnect never
  terminates the debuggee.
- The job's output has a stream of its own: redirecting it would leave a wrapper around sys.stdout.
- debugpy's telemetry and its talk of sockets concern nobody.
"""

from __future__ import annotations

from rdev.protocol.dap import Message, sequence

# Where a client says that the process is; the adapter would try to go there.
_PLACES = ("connect", "listen", "host", "port", "processId", "subProcessId", "restart")

_DROPPED_EVENTS = frozenset({"debugpySockets", "debugpyWaitingForServer"})

# Capabilities that would make a client offer to end the job.
_REFUSED_CAPABILITIES = ("supportsTerminateRequest", "supportTerminateDebuggee")


class Proxy:
    """Rewrites one session's messages.

    Args:
        pid: The process that is attached to.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._terminates: set[int] = set()

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
        if sequence(message, "request_seq") in self._terminates:
            return {**message, "command": "terminate"}
        if message.get("command") == "initialize" and isinstance(message.get("body"), dict):
            body = {**message["body"], **dict.fromkeys(_REFUSED_CAPABILITIES, False)}
            return {**message, "body": body}
        return message

    def _attach(self, arguments: Message) -> Message:
        kept = {key: value for key, value in arguments.items() if key not in _PLACES}
        options = kept.get("debugOptions")
        if isinstance(options, list):
            kept["debugOptions"] = [name for name in options if name != "RedirectOutput"]
        return {**kept, "redirectOutput": False, "subProcessId": self._pid}


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

"""What the agent changes in a debug session's messages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rdev.agent.debug.proxy import Motion, Proxy, motion


def request(command, arguments=None, seq=7):
    return {"seq": seq, "type": "request", "command": command, "arguments": arguments or {}}


def test_an_attach_goes_to_the_jobs_process_whatever_the_client_says():
    asked = {
        "connect": {"host": "127.0.0.1", "port": 5678},
        "processId": 1,
        "listen": {"port": 1},
        "justMyCode": True,
        "pathMappings": [{"localRoot": "/a", "remoteRoot": "/b"}],
        "redirectOutput": True,
        "debugOptions": ["RedirectOutput", "Django"],
    }
    arguments = Proxy(42).from_client(request("attach", asked))["arguments"]
    assert arguments == {
        "subProcessId": 42,
        "justMyCode": True,
        "pathMappings": [{"localRoot": "/a", "remoteRoot": "/b"}],
        "redirectOutput": False,
        "debugOptions": ["Django"],
    }


def test_terminate_becomes_a_disconnect_and_is_answered_as_terminate():
    proxy = Proxy(42)
    sent = proxy.from_client(request("terminate", {"restart": True}, seq=9))
    assert (sent["command"], sent["seq"]) == ("disconnect", 9)
    assert sent["arguments"]["terminateDebuggee"] is False
    answer = {"type": "response", "command": "disconnect", "request_seq": 9, "success": True}
    assert proxy.from_adapter(answer)["command"] == "terminate"


def test_a_disconnect_never_terminates_the_job():
    sent = Proxy(42).from_client(request("disconnect", {"terminateDebuggee": True, "restart": 1}))
    assert sent["arguments"] == {"terminateDebuggee": False, "suspendDebuggee": False}


def test_clients_are_not_offered_to_end_the_job():
    body = {"supportsTerminateRequest": True, "supportsConditionalBreakpoints": True}
    answer = {"type": "response", "command": "initialize", "request_seq": 1, "body": body}
    seen = Proxy(42).from_adapter(answer)["body"]
    assert seen["supportsTerminateRequest"] is False
    assert seen["supportsConditionalBreakpoints"] is True


def test_telemetry_and_talk_of_sockets_are_dropped_and_the_jobs_output_is_not():
    proxy = Proxy(42)
    for event, body in [
        ("debugpySockets", {"sockets": []}),
        ("debugpyWaitingForServer", {"host": "unix"}),
        ("output", {"category": "telemetry", "output": "debugpy"}),
    ]:
        assert proxy.from_adapter({"type": "event", "event": event, "body": body}) is None
    output = {"type": "event", "event": "output", "body": {"category": "stdout", "output": "x"}}
    assert proxy.from_adapter(output) == output


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["type", "command", "event", "seq", "request_seq", "arguments", "body", "x"])
words = st.sampled_from(["request", "response", "event", "attach", "terminate", "initialize"])


@given(st.dictionaries(keys, words | json_values))
def test_no_message_however_odd_breaks_the_session(message):
    proxy = Proxy(42)
    proxy.from_client(message)
    proxy.from_adapter(message)


def test_terminate_ends_the_job_only_where_that_was_chosen():
    asked = request("terminate")
    assert not Proxy(42).kills(asked)
    assert Proxy(42, allow_kill=True).kills(asked)
    assert not Proxy(42, allow_kill=True).kills(request("disconnect", {"terminateDebuggee": True}))
    body = {"supportsTerminateRequest": True, "supportTerminateDebuggee": True}
    answer = {"type": "response", "command": "initialize", "request_seq": 1, "body": body}
    seen = Proxy(42, allow_kill=True).from_adapter(answer)["body"]
    assert seen == {"supportsTerminateRequest": True, "supportTerminateDebuggee": False}


def test_a_job_is_neither_started_nor_restarted_by_its_debugger():
    for command in ("restart", "launch"):
        refused = Proxy(42).refusal(request(command, seq=5))
        assert (refused["success"], refused["request_seq"]) == (False, 5)
        assert refused["command"] == command
    assert Proxy(42).refusal(request("evaluate")) is None


def test_setting_a_variable_and_evaluating_pass_as_they_are():
    for command in ("setVariable", "setExpression", "evaluate", "goto"):
        asked = request(command, {"name": "x", "value": "1"})
        assert Proxy(42).from_client(asked) == asked


def test_what_a_message_says_of_the_process():
    def response(command, success):
        return {"type": "response", "command": command, "success": success}

    assert motion({"type": "event", "event": "stopped"}) is Motion.STOPPED
    assert motion({"type": "event", "event": "continued"}) is Motion.CONTINUED
    assert motion({"type": "event", "event": "terminated"}) is Motion.ENDED
    # debugpy announces no step, it only answers.
    assert motion(response("next", success=True)) is Motion.CONTINUED
    assert motion(response("next", success=False)) is None
    assert motion(response("evaluate", success=True)) is None


def test_what_is_asked_while_the_debugger_leaves_is_too_late():
    refused = {"type": "response", "request_seq": 3, "command": "next", "success": False}
    answer = Proxy(7).from_adapter({**refused, "message": "Client not authenticated."})
    assert answer == {**refused, "message": "too late: the stop is over"}

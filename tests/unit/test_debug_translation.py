"""What passes between an editor and a job: paths, lines and sources of both sides."""

from __future__ import annotations

import pytest

from rdev.client.debug.places import Sources
from rdev.client.debug.texts import Texts
from rdev.client.debug.translation import Translator

JOB = "import os\n\ndef train():\n    for step in steps:\n        loss = f(step)\n"
HOST = "/host/ws"


@pytest.fixture
def files(tmp_path):
    """A workspace that is one edit of three lines ahead of its job."""
    root = tmp_path.resolve()
    (root / "train.py").write_text("# a\n# b\n# c\n" + JOB)
    return root


def translator(root, snapshot=None, **options):
    known = {"train.py": JOB.encode()} if snapshot is None else snapshot

    async def fetch(path: str) -> bytes | None:
        return known.get(path)

    return Translator(Texts(Sources(str(root), HOST), fetch), "run-7", **options)


def request(command, seq=1, **arguments):
    return {"seq": seq, "type": "request", "command": command, "arguments": arguments}


def response(body, command="", seq=1):
    return {
        "seq": 9,
        "type": "response",
        "request_seq": seq,
        "command": command,
        "success": True,
        "body": body,
    }


async def asked(translation, message):
    """What the adapter gets for a request, and nothing comes back yet."""
    routed = await translation.from_editor(message)
    [sent] = routed.to_adapter
    return sent["arguments"]


def outputs(messages):
    return [m["body"]["output"] for m in messages if m.get("event") == "output"]


async def test_a_breakpoint_below_an_edit_is_set_and_answered_where_each_side_has_it(files):
    translation = translator(files)
    path = str(files / "train.py")
    routed = await translation.from_editor(
        request(
            "setBreakpoints", source={"path": path}, breakpoints=[{"line": 8, "condition": "x"}]
        )
    )
    assert outputs(routed.to_editor) == ["train.py: your editor is 1 edit ahead of job run-7\n"]
    [sent] = routed.to_adapter
    assert sent["arguments"]["source"]["path"] == f"{HOST}/train.py"
    assert sent["arguments"]["breakpoints"] == [{"line": 5, "condition": "x"}]
    got = {"verified": True, "id": 3, "line": 5, "source": {"path": f"{HOST}/train.py"}}
    [answer] = await translation.from_adapter(response({"breakpoints": [got]}))
    assert answer["body"]["breakpoints"] == [
        {"verified": True, "id": 3, "line": 8, "source": {"path": path}}
    ]
    event = {"seq": 1, "type": "event", "event": "breakpoint"}
    [changed] = await translation.from_adapter(
        {**event, "body": {"reason": "changed", "breakpoint": {**got, "line": 4}}}
    )
    assert changed["body"]["breakpoint"]["line"] == 7
    assert changed["body"]["breakpoint"]["source"] == {"path": path}


async def test_the_warning_comes_once(files):
    translation = translator(files)
    path = str(files / "train.py")
    for number in (1, 2):
        routed = await translation.from_editor(
            request("setBreakpoints", source={"path": path}, breakpoints=[])
        )
        assert len(routed.to_editor) == (1 if number == 1 else 0)


async def test_a_line_that_the_job_lacks_is_refused_and_says_so_and_the_others_are_set(files):
    translation = translator(files)
    places = [{"line": 8}, {"line": 2}, {"line": 7}]
    message = request(
        "setBreakpoints", source={"path": str(files / "train.py")}, breakpoints=places
    )
    sent = (await translation.from_editor(message)).to_adapter[0]["arguments"]
    assert sent["breakpoints"] == [{"line": 5}, {"line": 4}]
    got = [{"verified": True, "line": 5, "id": 1}, {"verified": True, "line": 4, "id": 2}]
    [answer] = await translation.from_adapter(response({"breakpoints": got}))
    first, second, third = answer["body"]["breakpoints"]
    assert (first["line"], third["line"], third["id"]) == (8, 7, 2)
    assert not second["verified"]
    assert second["line"] == 2
    assert second["message"] == (
        "job run-7 does not have this line: it was written after its start"
    )


async def test_a_stack_is_shown_with_the_files_and_lines_of_the_editor(files):
    translation = translator(files)
    await asked(translation, request("stackTrace", threadId=1))
    frames = [
        {"id": 1, "line": 5, "column": 1, "source": {"path": f"{HOST}/train.py"}},
        {"id": 2, "line": 3, "column": 1, "source": {"path": "/usr/x.py", "sourceReference": 4}},
        {"id": 3, "line": 0, "column": 0},
    ]
    *notices, answer = await translation.from_adapter(response({"stackFrames": frames}))
    assert len(outputs(notices)) == 1
    ours, library, empty = answer["body"]["stackFrames"]
    assert ours["source"]["path"] == str(files / "train.py")
    assert (ours["line"], ours["source"]["sourceReference"]) == (8, 0)
    assert library == frames[1]
    assert empty == frames[2]


async def test_a_line_that_is_not_here_any_more_is_shown_as_the_job_has_it(files):
    (files / "train.py").write_text(JOB.replace("    for step in steps:\n", ""))
    translation = translator(files)
    await asked(translation, request("stackTrace", threadId=1))
    frame = {"id": 1, "line": 4, "source": {"path": f"{HOST}/train.py"}}
    *_, answer = await translation.from_adapter(response({"stackFrames": [frame]}))
    [shown] = answer["body"]["stackFrames"]
    assert shown["line"] == 4
    assert shown["source"]["name"] == "train.py (job run-7)"
    reference = shown["source"]["sourceReference"]
    assert reference < 1 << 31
    routed = await translation.from_editor(
        request("source", seq=2, sourceReference=reference, source=shown["source"])
    )
    assert not routed.to_adapter
    assert routed.to_editor[0]["body"]["content"] == JOB


async def test_a_breakpoint_in_the_jobs_own_text_joins_those_of_the_editors_file(files):
    (files / "train.py").write_text(JOB.replace("    for step in steps:\n", ""))
    translation = translator(files)
    path = {"path": str(files / "train.py")}
    assert (
        await asked(translation, request("setBreakpoints", source=path, breakpoints=[{"line": 3}]))
    )["breakpoints"] == [{"line": 3}]
    await asked(translation, request("stackTrace", seq=2, threadId=1))
    frame = {"id": 1, "line": 4, "source": {"path": f"{HOST}/train.py"}}
    *_, answer = await translation.from_adapter(response({"stackFrames": [frame]}, seq=2))
    document = answer["body"]["stackFrames"][0]["source"]
    message = request("setBreakpoints", seq=3, source=document, breakpoints=[{"line": 4}])
    assert (await asked(translation, message))["breakpoints"] == [{"line": 4}, {"line": 3}]
    got = [{"verified": True, "line": 4, "id": 7}, {"verified": True, "line": 3, "id": 8}]
    [answer] = await translation.from_adapter(response({"breakpoints": got}, seq=3))
    [only] = answer["body"]["breakpoints"]
    assert (only["line"], only["id"]) == (4, 7)


async def test_a_file_that_is_gone_here_is_read_from_the_snapshot(files):
    (files / "train.py").unlink()
    translation = translator(files)
    await asked(translation, request("stackTrace", threadId=1))
    frame = {"id": 1, "line": 5, "source": {"path": f"{HOST}/train.py"}}
    [answer] = await translation.from_adapter(response({"stackFrames": [frame]}))
    source = answer["body"]["stackFrames"][0]["source"]
    routed = await translation.from_editor(
        request("source", seq=2, sourceReference=source["sourceReference"])
    )
    assert routed.to_editor[0]["body"]["content"] == JOB


async def test_another_file_of_the_same_name_is_not_taken_for_the_jobs(files):
    (files / "train.py").write_text("something = 'else'\n" * 40)
    translation = translator(files)
    await asked(translation, request("stackTrace", threadId=1))
    frame = {"id": 1, "line": 5, "source": {"path": f"{HOST}/train.py"}}
    notice, answer = await translation.from_adapter(response({"stackFrames": [frame]}))
    assert "another file than that of job run-7" in notice["body"]["output"]
    assert answer["body"]["stackFrames"][0]["source"]["sourceReference"]


async def test_a_file_of_another_project_never_reaches_the_job(files, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "x.py"
    other.write_text("x\n")
    translation = translator(files)
    message = request("setBreakpoints", source={"path": str(other)}, breakpoints=[{"line": 1}])
    routed = await translation.from_editor(message)
    assert not routed.to_adapter
    [refused] = routed.to_editor[0]["body"]["breakpoints"]
    assert (refused["verified"], refused["line"]) == (False, 1)


async def test_a_client_that_counts_from_zero_and_names_files_by_uri_gets_the_same(files):
    (files / "a b.py").write_text("# a\n" + JOB)
    translation = translator(files, {"a b.py": JOB.encode()})
    sent = await asked(
        translation,
        request("initialize", linesStartAt1=False, columnsStartAt1=False, pathFormat="uri"),
    )
    assert (sent["linesStartAt1"], sent["columnsStartAt1"], sent["pathFormat"]) == (
        True,
        True,
        "path",
    )
    uri = (files / "a b.py").as_uri()
    sent = (
        await translation.from_editor(
            request(
                "setBreakpoints",
                seq=2,
                source={"path": uri},
                breakpoints=[{"line": 5, "column": 3}],
            )
        )
    ).to_adapter[0]["arguments"]
    assert sent["source"]["path"] == f"{HOST}/a b.py"
    assert sent["breakpoints"] == [{"line": 5, "column": 4}]
    [answer] = await translation.from_adapter(
        response({"breakpoints": [{"verified": True, "line": 5}]}, seq=2)
    )
    assert answer["body"]["breakpoints"] == [{"verified": True, "line": 5}]
    await asked(translation, request("stackTrace", seq=3, threadId=1))
    frame = {"id": 1, "line": 5, "column": 1, "source": {"path": f"{HOST}/a b.py"}}
    [answer] = await translation.from_adapter(response({"stackFrames": [frame]}, seq=3))
    [shown] = answer["body"]["stackFrames"]
    assert (shown["line"], shown["column"], shown["source"]["path"]) == (5, 0, uri)


async def test_mappings_of_an_old_configuration_do_no_harm_and_foreign_ones_are_kept(files):
    translation = translator(files)
    old = {"localRoot": str(files), "remoteRoot": "/host/elsewhere"}
    same = {"localRoot": str(files / "pkg"), "remoteRoot": HOST}
    relative = {"localRoot": "/opt/lib", "remoteRoot": "."}
    foreign = {"localRoot": "/home/me/lib", "remoteRoot": "/opt/lib"}
    sent = await asked(
        translation,
        request(
            "attach",
            pathMappings=[old, same, relative, foreign],
            localRoot=str(files),
            remoteRoot=".",
            clientOS="windows",
            debugOptions=["RedirectOutput", "WindowsClient"],
            justMyCode=True,
        ),
    )
    assert sent["pathMappings"] == [{"localRoot": HOST, "remoteRoot": HOST}, foreign]
    assert sent["debugOptions"] == ["RedirectOutput"]
    assert sent["justMyCode"] is True
    assert not {"localRoot", "remoteRoot", "clientOS"} & set(sent)


async def test_an_editor_that_knows_the_folder_by_a_link_gets_its_files_by_that_link(files):
    link = files.parent / "link"
    link.symlink_to(files)
    translation = translator(files)
    path = str(link / "train.py")
    await asked(translation, request("gotoTargets", source={"path": path}, line=8))
    [answer] = await translation.from_adapter(response({"targets": [{"id": 1, "line": 5}]}))
    assert answer["body"]["targets"] == [{"id": 1, "line": 8}]
    await asked(translation, request("stackTrace", seq=2, threadId=1))
    frame = {"id": 1, "line": 5, "source": {"path": f"{HOST}/train.py"}}
    [answer] = await translation.from_adapter(response({"stackFrames": [frame]}, seq=2))
    assert answer["body"]["stackFrames"][0]["source"]["path"] == path


async def test_a_host_whose_home_is_a_link_is_known_by_either_name(files):
    translation = translator(files)
    await asked(translation, request("stackTrace", threadId=1))
    frame = {"id": 1, "line": 5, "source": {"path": "/data/host/ws/train.py"}}
    *_, answer = await translation.from_adapter(response({"stackFrames": [frame]}))
    assert answer["body"]["stackFrames"][0]["source"]["path"] == str(files / "train.py")


async def test_a_save_during_the_session_moves_what_is_shown(files):
    translation = translator(files)
    (files / "train.py").write_text(JOB)
    frame = {"id": 1, "line": 5, "source": {"path": f"{HOST}/train.py"}}
    for prefix, line in (("", 5), ("# a\n# b\n", 7)):
        (files / "train.py").write_text(prefix + JOB)
        await asked(translation, request("stackTrace", threadId=1))
        *_, answer = await translation.from_adapter(response({"stackFrames": [frame]}))
        assert answer["body"]["stackFrames"][0]["line"] == line


async def test_a_pause_shows_where_it_stopped(files):
    translation = translator(files)
    stop = {"reason": "pause", "threadId": 1, "preserveFocusHint": True, "allThreadsStopped": True}
    event = {"seq": 1, "type": "event", "event": "stopped", "body": stop}
    [shown] = await translation.from_adapter(event)
    assert shown["body"] == {**stop, "preserveFocusHint": False, "description": "Paused"}
    [other] = await translation.from_adapter({**event, "body": {**stop, "reason": "breakpoint"}})
    assert other["body"]["preserveFocusHint"] is True


async def test_a_value_of_several_lines_is_shown_on_one(files):
    translation = translator(files)
    await asked(translation, request("variables", variablesReference=5))
    model = {"name": "model", "value": "Sequential(\n  (0): ReLU()\n)", "variablesReference": 6}
    text = {"name": "text", "value": "'a  b'", "variablesReference": 0}
    [answer] = await translation.from_adapter(response({"variables": [model, text]}))
    assert answer["body"]["variables"] == [{**model, "value": "Sequential( (0): ReLU() )"}, text]


async def test_a_traceback_names_the_editors_files_and_lines(files):
    translation = translator(files)
    await asked(translation, request("exceptionInfo", threadId=1))
    text = (
        f'  File "{HOST}/train.py", line 5, in train\n    loss = f(step)\n'
        '  File "/usr/lib/python3.11/x.py", line 9, in f\nValueError: it\n'
    )
    details = {"source": f"{HOST}/train.py", "stackTrace": text}
    *_, answer = await translation.from_adapter(response({"details": details}))
    path = str(files / "train.py")
    moved = text.replace(f'"{HOST}/train.py", line 5', f'"{path}", line 8')
    assert answer["body"]["details"] == {"source": path, "stackTrace": moved}


async def test_an_exception_is_named_without_remarks_of_debugpys(files):
    translation = translator(files)
    name = "ValueError       (note: full exception trace is shown but execution is paused at: <module>)"
    stop = {"reason": "exception", "text": name, "threadId": 1}
    event = {"seq": 1, "type": "event", "event": "stopped", "body": stop}
    [shown] = await translation.from_adapter(event)
    assert shown["body"]["text"] == "ValueError"
    await asked(translation, request("exceptionInfo", threadId=1))
    trace = '  File "/x.py", line 1, in <module> (Current frame)\n    f()\nValueError: it\n'
    body = {"exceptionId": name, "details": {"stackTrace": trace}}
    [answer] = await translation.from_adapter(response(body))
    assert answer["body"] == {
        "exceptionId": "ValueError",
        "details": {"stackTrace": trace.replace(" (Current frame)", "")},
    }


async def test_a_jump_goes_to_the_line_that_is_meant_or_nowhere(files):
    translation = translator(files)
    path = {"path": str(files / "train.py")}
    assert (await asked(translation, request("gotoTargets", source=path, line=8)))["line"] == 5
    target = {"id": 0, "label": f"{HOST}/train.py:5", "line": 5}
    *_, answer = await translation.from_adapter(response({"targets": [target]}))
    assert answer["body"]["targets"] == [{"id": 0, "label": "train.py:8", "line": 8}]
    routed = await translation.from_editor(request("gotoTargets", seq=2, source=path, line=2))
    assert not routed.to_adapter, "the job does not have this line"
    assert routed.to_editor[0]["body"]["targets"] == []


async def test_a_logpoint_that_cannot_be_read_is_refused_with_the_reason(files):
    translation = translator(files)
    places = [
        {"line": 8, "logMessage": "{loss:.3f} of 100%"},
        {"line": 7, "logMessage": "{loss +}"},
        {"line": 6, "logMessage": "{loss"},
    ]
    message = request(
        "setBreakpoints", source={"path": str(files / "train.py")}, breakpoints=places
    )
    sent = await asked(translation, message)
    assert sent["breakpoints"] == [{"line": 5, "logMessage": '{f"""{loss:.3f}"""} of 100%%'}]
    [answer] = await translation.from_adapter(response({"breakpoints": [{"verified": True}]}))
    _, unreadable, unclosed = answer["body"]["breakpoints"]
    assert unreadable["message"] == "`loss +` in the message is no expression"
    assert unclosed["message"] == "a brace in the message is not closed"

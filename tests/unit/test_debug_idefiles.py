"""What is written into the files of VS Code and PyCharm, and taken out of them again."""

from __future__ import annotations

import json
import os
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdev.client.debug import idefiles, launchjson
from rdev.client.debug.jsonc import JsoncError, parse
from rdev.protocol.errors import ConfigError

STAMP = "2026-01-02T03:04:05+00:00"
ONE = {"train": 5678}
RANKS = {"train rank 0": 5678, "train rank 1": 5679}

THEIRS = """\
{
  // Use IntelliSense to learn about possible attributes.
  "version": "0.2.0",
  "configurations": [
    {
      "name": "Python: Current File", // mine
      "type": "debugpy",
      "request": "launch",
      "program": "${file}", /* a "string" with // in it */
    },
  ],
}
"""


def plain(text: str) -> dict:
    """JSON with comments as JSON, by other means than the product's."""
    kept = re.sub(
        r'("(?:[^"\\]|\\.)*")|//[^\n]*|/\*.*?\*/', lambda m: m[1] or "", text, flags=re.DOTALL
    )
    while (fewer := re.sub(r",(\s*[\]}])", r"\1", kept)) != kept:
        kept = fewer
    return json.loads(kept.lstrip("\ufeff"))


FILES = [
    THEIRS,
    THEIRS.replace("\n", "\r\n"),
    "\ufeff" + THEIRS,
    '{"configurations": []}',
    '{\n\t"version": "0.2.0",\n\t"configurations": [\n\t]\n}\n',
    '{ "version": "0.2.0" }',
    "{}\n",
    '{"compounds": [{"name": "both", "configurations": ["a", "b"]}], "configurations": [{"name": "a"}, {"name": "b"}]}',
    '{"configurations": [ // nothing yet\n]}',
]


@pytest.mark.parametrize("text", FILES)
@pytest.mark.parametrize("ports", [ONE, RANKS])
def test_entries_go_in_beside_what_is_there_and_come_out_without_a_trace(text, ports):
    merged = launchjson.merged(text, ports, stamp=STAMP)
    before, after = plain(text), plain(merged)
    names = [f"rdev: {name}" for name in ports]
    theirs = before.get("configurations", [])
    assert [c["name"] for c in after["configurations"]] == names + [c["name"] for c in theirs]
    assert after["configurations"][len(ports) :] == theirs
    compounds = before.get("compounds", [])
    ours = [c for c in after.get("compounds", []) if c not in compounds]
    assert [c["configurations"] for c in ours] == ([names] if len(ports) > 1 else [])
    left = launchjson.without(merged)
    if text == '{\n\t"version": "0.2.0",\n\t"configurations": [\n\t]\n}\n':
        assert plain(left) == before  # an empty list is written as one
    elif "configurations" in before:
        assert left == text
    else:
        assert plain(left) == before


@pytest.mark.parametrize("text", [None, *FILES])
def test_writing_twice_is_writing_once_and_a_new_port_replaces_the_old(text):
    once = launchjson.merged(text, RANKS, stamp=STAMP)
    assert launchjson.merged(once, RANKS, stamp=STAMP) == once
    again = launchjson.merged(once, {"train": 1}, stamp="later")
    assert again == launchjson.merged(text, {"train": 1}, stamp="later")
    assert again.count("rdev: train") == 1
    assert "written by rdev, later" in again


def test_a_file_of_ours_alone_is_nothing_afterwards():
    text = launchjson.merged(None, RANKS, stamp=STAMP)
    assert plain(text)["configurations"][0]["connect"] == {"host": "127.0.0.1", "port": 5678}
    assert plain(text)["configurations"][0]["type"] == "debugpy"
    assert launchjson.without(text) is None


@pytest.mark.parametrize(
    "text", ["", "{", '{"a" 1}', "[1,,2]", '{"a": "\n"}', "{} x", '{"configurations": {}}', "[]"]
)
def test_a_file_that_is_none_is_left_alone(text, tmp_path):
    folder = tmp_path / ".vscode"
    folder.mkdir()
    (folder / "launch.json").write_text(text)
    with pytest.raises(ConfigError, match="it is left as it is"):
        idefiles.write(str(tmp_path), ONE)
    assert (folder / "launch.json").read_text() == text
    assert os.listdir(folder) == ["launch.json"]


def test_the_folders_we_made_go_with_our_files(tmp_path):
    (tmp_path / ".idea").mkdir()
    written = idefiles.write(str(tmp_path), RANKS)
    assert written == [
        ".vscode/launch.json",
        ".run/rdev train rank 0.run.xml",
        ".run/rdev train rank 1.run.xml",
    ]
    tree = ET.parse(tmp_path / written[1])
    configuration = tree.find("configuration")
    assert configuration.get("type") == "PythonDapAttachConfiguration"
    assert configuration.find("option").attrib == {
        "name": "remoteAddress",
        "value": "127.0.0.1:5678",
    }
    assert idefiles.write(str(tmp_path), ONE) == [written[0], ".run/rdev train.run.xml"]
    assert os.listdir(tmp_path / ".run") == ["rdev train.run.xml"]
    assert sorted(idefiles.remove(str(tmp_path))) == sorted(
        [".vscode/launch.json", ".run/rdev train.run.xml"]
    )
    assert sorted(os.listdir(tmp_path)) == [".idea"]
    assert idefiles.remove(str(tmp_path)) == []


def test_what_a_person_keeps_there_stays(tmp_path):
    (tmp_path / ".idea").mkdir()
    (tmp_path / ".run").mkdir()
    own = tmp_path / ".run" / "rdev mine.run.xml"
    own.write_text("<component/>")
    launch = tmp_path / ".vscode" / "launch.json"
    launch.parent.mkdir()
    launch.write_bytes(THEIRS.encode())
    launch.chmod(0o640)
    idefiles.write(str(tmp_path), ONE)
    assert launch.stat().st_mode & 0o777 == 0o640
    idefiles.remove(str(tmp_path))
    assert launch.read_bytes() == THEIRS.encode()
    assert own.read_text() == "<component/>"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_all_json_is_understood(value):
    for text in (json.dumps(value), json.dumps(value, indent=2, ensure_ascii=False)):
        node = parse(text)
        assert (node.start, node.end) == (0, len(text))
        if not node.kind:
            assert node.value == value


@given(st.text(alphabet='{}[]",:/*\n\\ a1', max_size=40))
def test_no_text_however_odd_breaks_it(text):
    try:
        node = parse(text)
    except JsoncError:
        return
    assert text[node.start : node.end].strip()

"""JSON without the module `json`: it reads and writes what that does, on every interpreter."""

from __future__ import annotations

import json
import math
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.interpreters import ROOT, interpreters

from rdev.wire import jsons

PYTHONS = interpreters()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
MESSAGES = st.dictionaries(st.text(), VALUES, max_size=4)


@given(MESSAGES)
def test_what_is_written_is_what_json_writes(message):
    written = json.dumps(message, separators=(",", ":"), ensure_ascii=True)
    assert jsons.dump(message) == written
    assert jsons.load(written.encode()) == message


@given(MESSAGES, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_what_json_writes_in_any_style_is_read(message, indent, is_ascii):
    text = f" {json.dumps(message, indent=indent, ensure_ascii=is_ascii)} \r\n"
    assert jsons.load(text.encode("utf-8", "surrogatepass")) == message


@given(
    st.text(max_size=20) | st.sampled_from(["{}{}", '{"a":}', "[1,]", "nul", "01", '"', "\ufeff{}"])
)
def test_what_json_refuses_is_refused(text):
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            jsons.load(text.encode("utf-8", "surrogatepass"))
    else:
        found = jsons.load(text.encode("utf-8", "surrogatepass"))
        assert found == expected or math.isnan(found)


def test_what_has_no_json_is_refused_and_the_next_message_is_written():
    with pytest.raises(TypeError, match="set is not JSON serializable"):
        jsons.dump({"a": {1}})
    circle: dict[str, object] = {}
    circle["circle"] = circle
    for _ in range(2):
        with pytest.raises(ValueError, match="Circular"):
            jsons.dump(circle)
    assert jsons.dump({"nan": math.nan, "far": -math.inf}) == '{"nan":NaN,"far":-Infinity}'


@pytest.mark.parametrize("version", PYTHONS)
def test_every_interpreter_has_that_c_code(version):
    source = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'agent')!r})\n"
        "from rdev.wire import jsons\n"
        "assert 'json' not in sys.modules\n"
        "print(jsons.load(jsons.dump({'a': [1.5, None, True, '\u00e9']}).encode()))\n"
    )
    done = subprocess.run(
        [PYTHONS[version], "-I", "-c", source], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("{'a': [1.5, None, True, 'é']}\n", "")

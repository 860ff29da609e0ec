"""Messages of logpoints: evaluated by debugpy's own rules, they say what an f-string would."""

from __future__ import annotations

import pytest

from rdev.client.debug.logpoints import prepared

NAMES = {"loss": 0.12345, "sizes": {"a": 3}, "step": 7}


def said(message):
    """What debugpy prints: each outermost pair of braces is a value put in by `%s`."""
    text, values, depth = "", [], 0
    for letter in prepared(message):
        depth += (letter == "{") - (letter == "}" and depth > 0)
        if letter == "{" and depth == 1:
            values.append("")
        elif letter == "}" and not depth:
            text += "%s"
        elif depth:
            values[-1] += letter
        else:
            text += letter
    return text % tuple(eval(value, dict(NAMES)) for value in values) if values else text


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("loss {loss:.3f} at {step}", "loss 0.123 at 7"),
        ("{step:>4}|{loss!r}", "   7|0.12345"),
        ("{step=}", "step=7"),
        ("{sizes['a']} {sizes['a']:02d} {dict(b=1)['b']}", "3 03 1"),
        ("{ {1: step}[1] }", "7"),
        ("{'a:b'.upper()} {[1, 2, 3][0:1]}", "A:B [1]"),
        ("{sizes['a'], step} {step  # now}", "(3, 7) 7"),
        ("100% of {step}", "100% of 7"),
        ("100% and no value", "100% and no value"),
        ("{}{step}", "7"),
        ("{{loss}} is {loss:.1f}, {{{step}}}", "{loss} is 0.1, {7}"),
        ("a {{ b", "a { b"),
        ("", ""),
    ],
)
def test_a_message_says_what_was_meant(message, expected):
    assert said(message) == expected


@pytest.mark.parametrize(
    "message", ["{loss +}", "{loss", "{import os}", "{step:{}", "{a b}", "{'}'}"]
)
def test_a_message_that_no_job_can_say_is_an_error(message):
    with pytest.raises(ValueError, match="message"):
        prepared(message)

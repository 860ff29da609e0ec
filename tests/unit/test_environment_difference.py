"""What activation changes, as a value."""

import json
import subprocess

from hypothesis import given
from hypothesis import strategies as st

from rdev.agent.environment.difference import Difference, between, parse

NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{0,6}", fullmatch=True).filter(
    lambda name: name not in {"_", "SHLVL", "PWD", "OLDPWD"}
)
VALUES = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=12)
ENVIRONMENTS = st.dictionaries(NAMES, VALUES, max_size=5)


def test_values_with_line_breaks_and_equal_signs_are_whole():
    assert parse(b"A=one\ntwo\0B=x=y\0C=\0") == {"A": "one\ntwo", "B": "x=y", "C": ""}


def test_what_env_prints_is_read_back_whatever_bytes_are_in_it():
    environment = {"A": "one\ntwo", "B": "\udcff\udcfe", "BASH_FUNC_module%%": "() {  echo\n}"}
    printed = subprocess.run(
        ["/usr/bin/env", "-0"], env=environment, capture_output=True, check=True
    ).stdout
    assert parse(printed) == environment


def test_variables_that_were_set_changed_and_removed():
    difference = between(
        {"KEPT": "1", "CHANGED": "1", "GONE": "1"}, {"KEPT": "1", "CHANGED": "2", "NEW": "a\nb"}
    )
    assert difference.values == {"CHANGED": "2", "NEW": "a\nb"}
    assert difference.removed == {"GONE"}
    assert difference.applied({"GONE": "x", "OTHER": "y"}) == {
        "CHANGED": "2",
        "NEW": "a\nb",
        "OTHER": "y",
    }


def test_a_list_of_folders_that_grew_grows_elsewhere_too():
    difference = between({"PATH": "/usr/bin:/bin"}, {"PATH": "/env/bin:/usr/bin:/bin:/more"})
    assert difference.applied({"PATH": "/mine"})["PATH"] == "/env/bin:/mine:/more"
    assert difference.applied({})["PATH"] == "/env/bin:/more"


def test_a_list_that_only_looks_longer_is_replaced():
    difference = between({"PATH": "/usr"}, {"PATH": "/usr/local"})
    assert difference.applied({"PATH": "/mine"})["PATH"] == "/usr/local"


def test_what_every_shell_sets_is_no_difference():
    assert between({"SHLVL": "1", "PWD": "/a"}, {"SHLVL": "2", "_": "/bin/env"}) == Difference()


@given(ENVIRONMENTS, ENVIRONMENTS)
def test_applied_to_what_it_was_taken_from_it_gives_what_it_was_taken_to(before, after):
    difference = between(before, after)
    assert difference.applied(before) == after
    assert Difference.from_json(json.loads(json.dumps(difference.to_json()))) == difference

"""What ssh's complaints are taken for."""

import pytest

from rdev.client.transport.verdict import judge, judge_way
from rdev.protocol.errors import HostKeyRefused, HostUnreachable, LoginRefused

CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Add correct host key in /home/ann/.ssh/known_hosts to get rid of this message.
Offending ED25519 key in /home/ann/.ssh/known_hosts:7\r
Host key for gpu1 has changed and you have requested strict checking.
Host key verification failed.
"""


@pytest.mark.parametrize(
    ("said", "kind", "words", "reached"),
    [
        (CHANGED, HostKeyRefused, "known_hosts:7", True),
        ("Host key verification failed.\r\n", HostKeyRefused, "not known", True),
        ("ann@h: Permission denied (publickey,password).\r\n", LoginRefused, "publickey,password", True),
        (
            "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures\n",
            LoginRefused, "too many", True,
        ),
        (
            "ssh: Could not resolve hostname gpu9: Name or service not known\r\n",
            HostUnreachable, "no host is called gpu9", False,
        ),
        (
            "ssh: connect to host h port 22: No route to host\r\n",
            HostUnreachable, "no route to host", False,
        ),
        (
            "ssh: connect to host h port 22: Connection timed out\r\n",
            HostUnreachable, "connection timed out", False,
        ),
        (
            "kex_exchange_identification: Connection closed by remote host\r\n",
            HostUnreachable, "closed by remote host", True,
        ),
        ("Timeout, server gpu1 not responding.\r\n", HostUnreachable, "not responding", True),
        (
            "bash: cd: /data: no such folder\nann@h: Permission denied (publickey).\n",
            LoginRefused, "publickey", True,
        ),
        (  # a jump host's words come before those of the connection through it
            "ann@jump: Permission denied (publickey).\nConnection closed by UNKNOWN port 65535\n",
            LoginRefused, "publickey", True,
        ),
    ],
)  # fmt: skip
def test_ssh_is_understood(said, kind, words, reached):
    verdict = judge("gpu1", said)
    assert type(verdict.error) is kind
    assert words in verdict.error.message
    assert "\r" not in verdict.error.message
    assert verdict.reached is reached


@pytest.mark.parametrize(
    "said",
    [
        "",
        "cat: /etc/shadow: Permission denied\n",
        "Traceback (most recent call last):\n",
        "welcome",
    ],
)
def test_what_a_command_says_is_not_taken_for_ssh(said):
    assert judge("gpu1", said) is None


def test_a_jump_host_that_refuses_is_not_taken_for_the_host():
    refusal, closed = "ann@x: Permission denied (publickey).\n", "Connection closed by UNKNOWN\n"
    assert "gpu1: a jump host before it: " in judge_way("gpu1", refusal, closed).error.message
    assert "jump" not in judge_way("gpu1", "", refusal).error.message
    assert "jump" not in judge_way("gpu1", "Permanently added 'jump'\n", refusal).error.message
    assert "jump" not in judge_way("gpu1", "stdio forwarding failed\n", closed).error.message
    assert judge_way("gpu1", "", "") is None


def test_nobody_is_told_to_ignore_a_changed_key():
    hint = judge("gpu1", CHANGED).error.hint
    assert "owner" in hint
    for word in ("StrictHostKeyChecking", "ssh-keygen -R", "ignore"):
        assert word not in hint

"""What a person sees between ssh's questions."""

import os

from rdev.client.transport.openssh import OpenSsh

# In place of the program: questions go to the terminal, and only this comes to us.
SSH = """#!/bin/sh
case " $* " in *" -G "*) echo "hostname gpu1"; exit;; esac
printf "Warning: Permanently added 'gpu1' to the list of known hosts.\\r\\n" >&2
printf "Permission denied, please try again.\\r\\n" >&2
printf "Welcome\\r\\n" >&2
"""


async def test_a_wrong_password_and_all_after_it_are_told_line_by_line(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "ssh").write_text(SSH)
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    runtime = os.open(tmp_path, os.O_PATH)  # its own path is too long for a socket
    monkeypatch.setenv("XDG_RUNTIME_DIR", f"/proc/{os.getpid()}/fd/{runtime}")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    try:
        await OpenSsh("gpu1", asks=lambda: True).login()
    finally:
        os.close(runtime)
    assert capsys.readouterr().err.splitlines() == [
        "Warning: Permanently added 'gpu1' to the list of known hosts.",
        "Permission denied, please try again.",
        "Welcome",
    ]

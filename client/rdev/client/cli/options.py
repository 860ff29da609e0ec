"""Options that several verbs share, so that they are spelled and explained alike."""

from __future__ import annotations

import argparse


def add_host(parser: argparse.ArgumentParser) -> None:
    """-H, --host."""
    parser.add_argument("-H", "--host", metavar="HOST", help="where to act; default: this machine")


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json, for verbs that read."""
    parser.add_argument("--json", action="store_true", help="print JSON, errors too")


def add_job(parser: argparse.ArgumentParser) -> None:
    """JOB, the latest of this workspace by default."""
    parser.add_argument(
        "job",
        nargs="?",
        default="",
        metavar="JOB",
        help="name, id, id prefix or @-N; the latest job of this workspace by default",
    )


def host_of(options: argparse.Namespace, root: str | None = None) -> str:
    """The host that the command line or the configuration names."""
    import os

    from rdev.client import config

    return options.host or config.load(root or os.getcwd()).host

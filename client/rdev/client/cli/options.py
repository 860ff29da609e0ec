"""Options that several verbs share, so that they are spelled and explained alike."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rdev.client.debug.terms import Terms
    from rdev.wire.job import DebugStart, GpuRequest


def add_host(parser: argparse.ArgumentParser) -> None:
    """-H, --host, and --transport."""
    parser.add_argument("-H", "--host", metavar="HOST", help="where to act; default: this machine")
    add_transport(parser)


def add_transport(parser: argparse.ArgumentParser) -> None:
    """--transport, for verbs that reach a host by ssh."""
    parser.add_argument(
        "--transport",
        choices=("openssh", "paramiko"),
        action=_AsVariable,
        help="how ssh is done: by the ssh command, or in process; default: ssh if there is one",
    )


class _AsVariable(argparse.Action):
    """An option that is the same as its variable, for this process and what it starts."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002  # one shape for all actions
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        import os

        os.environ[f"RDEV_{self.dest.upper()}"] = str(values)
        setattr(namespace, self.dest, values)


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


def seconds(word: str) -> float:
    """A time limit as typed, for argparse."""
    value = float(word)
    if not 0 <= value < float("inf"):  # NaN is not either
        raise argparse.ArgumentTypeError(f"{word} is no number of seconds")
    return value


def add_prefix(parser: argparse.ArgumentParser) -> None:
    """--prefix, --no-prefix, for verbs that show output."""
    parser.add_argument(
        "--prefix",
        action=argparse.BooleanOptionalAction,
        help="say of each line which rank wrote it; default: on a terminal, if there are several",
    )


def processes(word: str) -> int:
    """A number of ranks as typed, for argparse; `gpu` is one for each GPU."""
    from rdev.wire.job import ONE_PER_GPU

    return ONE_PER_GPU if word == "gpu" else _count(word, "number of ranks", least=1, most=_MOST)


def retries(word: str) -> int:
    """A number of retries as typed, for argparse."""
    from rdev.client.config import MAX_RETRIES

    return _count(word, "number of retries", least=0, most=MAX_RETRIES)


def since(word: str | None) -> float | None:
    """The moment that --since names; None without one.

    Raises:
        UsageError: It names none.
    """
    import time

    from rdev.client.moments import moment
    from rdev.protocol.errors import UsageError

    if word is None:
        return None
    try:
        return moment(word, now=time.time())
    except ValueError as error:
        hint = "how long ago, a time today, or a moment: `--help` lists them"
        raise UsageError("tell since when", str(error), hint=hint) from error


def line_count(word: str) -> int:
    """A number of lines as typed, for argparse."""
    return _count(word, "number of lines", least=0, most=_MOST_LINES)


def rank(word: str) -> int:
    """A rank as typed, for argparse."""
    return _count(word, "rank", least=0, most=_MOST)


def rank_or_all(word: str) -> int | None:
    """A rank as typed, for argparse; None is `all` of them."""
    return None if word == "all" else rank(word)


def pid(word: str) -> int:
    """A process id as typed, for argparse."""
    return _count(word, "process id", least=1, most=_MOST_IDS)


def attempt(word: str) -> int:
    """An attempt as typed, for argparse; the first is 1."""
    return _count(word, "attempt", least=1, most=_MOST)


def steps(word: str) -> tuple[int, int | None]:
    """Steps as typed, for argparse: `100` is from there on, `100:200` to there."""
    first, colon, last = word.partition(":")
    least = _count(first or "0", "step", least=0, most=_MOST_LINES)
    if not colon or not last:
        return least, None
    return least, _count(last, "step", least=least, most=_MOST_LINES)


def from_step(word: str) -> int:
    """From which step on, as typed, for argparse."""
    name, _, step = word.partition("=")
    if name != "step":
        raise argparse.ArgumentTypeError(f"{word!r} is not `step=N`")
    return _count(step, "step", least=1, most=_MOST_LINES)


def stop_condition(word: str) -> tuple[str, int]:
    """When to stop for a debugger, as typed, for argparse: its name, and a step if it has one."""
    if word in ("exception", "nan"):
        return (word, 0)
    name, _, step = word.partition("=")
    if name == "step":
        return (name, _count(step, "step", least=1, most=_MOST_LINES))
    raise argparse.ArgumentTypeError(f"{word!r} is none of `exception`, `nan` and `step=N`")


def stops_at(conditions: Sequence[tuple[str, int]], *, at_start: bool = False) -> DebugStart:
    """The stops that such options ask for; of two steps the last one counts."""
    from rdev.wire.job import DebugStart

    given = dict(conditions)
    return DebugStart(at_start, "exception" in given, given.get("step", 0), "nan" in given)


def gpu_request(word: str) -> GpuRequest:
    """GPUs as typed, for argparse: a count, `all`, or indices and UUIDs with commas between."""
    from rdev.wire.job import GpuRequest

    if word == "all":
        return GpuRequest()
    if word.isdecimal():
        return GpuRequest(count=_count(word, "number of GPUs", least=1, most=_MOST))
    devices = tuple(filter(None, (device.strip() for device in word.split(","))))
    if not devices or not all(map(_DEVICE.fullmatch, devices)):
        raise argparse.ArgumentTypeError(f"{word!r} is neither a count, nor all, 0,1 or GPU-...")
    if len(set(devices)) < len(devices):
        raise argparse.ArgumentTypeError(f"{word!r} names a GPU twice")
    return GpuRequest(devices=devices)


# An index, or the beginning of a UUID as the driver prints it.
_DEVICE = re.compile(r"[0-9]{1,5}|GPU-[0-9A-Za-z-]*")

# What the wire holds.
_MOST_LINES = 0xFFFFFFFF

# As many as the protocol can name; the kernel has fewer.
_MOST_IDS = 0x7FFFFFFF

# No machine has as many ranks or GPUs; the agent has limits of its own.
_MOST = 1 << 16


def _count(word: str, what: str, *, least: int, most: int) -> int:
    if not (word.isascii() and word.isdecimal()) or not least <= int(word) <= most:
        raise argparse.ArgumentTypeError(f"{word!r} is no {what} from {least} to {most}")
    return int(word)


def add_environment(parser: argparse.ArgumentParser) -> None:
    """--python and --env, for verbs that concern what a job runs in."""
    parser.add_argument("--python", help="interpreter for scripts and modules")
    parser.add_argument(
        "--env",
        metavar="NAME|PATH",
        help="environment of the host to run in: conda's, a virtual one, or its folder",
    )


def add_terms(parser: argparse.ArgumentParser) -> None:
    """--lease, --allow-kill and --unsafe, for verbs that attach a debugger."""
    from rdev.client.debug.terms import duration

    parser.add_argument(
        "--lease",
        type=duration,
        metavar="TIME",
        help="how long a stop may last after your last word, such as 90s, 15m, 1h; default: 15m",
    )
    parser.add_argument(
        "--allow-kill",
        action="store_true",
        help="let an IDE's red button, and `kill` at the prompt, end the job",
    )
    parser.add_argument(
        "--unsafe",
        action="store_true",
        help="attach though a stop may run other ranks into a timeout",
    )
    parser.add_argument(
        "--from",
        dest="from_step",
        type=from_step,
        default=0,
        metavar="step=N",
        help="set breakpoints when step N is about to begin, and attach no sooner; until then it"
        " is as fast as ever",
    )


def terms_of(options: argparse.Namespace) -> Terms:
    """What `add_terms` was told."""
    from rdev.client.debug.terms import Terms

    return Terms(options.lease, options.allow_kill, options.unsafe, from_step=options.from_step)


def add_yes(parser: argparse.ArgumentParser) -> None:
    """--yes, for verbs that may ask."""
    parser.add_argument("--yes", action="store_true", help="say yes to every question")


def add_input(parser: argparse.ArgumentParser) -> None:
    """-i and --no-stdin, for verbs that follow a job."""
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("-i", "--stdin", action="store_true", help="pass our input on to the job")
    choice.add_argument("--no-stdin", action="store_true", help="never pass input on; only watch")


def add_terminal(parser: argparse.ArgumentParser) -> None:
    """-t and -T, for verbs that start a job."""
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("-t", "--tty", action="store_true", help="run it in a terminal")
    choice.add_argument("-T", "--no-tty", action="store_true", help="never in a terminal (default)")


def add_detach_keys(parser: argparse.ArgumentParser) -> None:
    """--detach-keys, for verbs that show a terminal."""
    parser.add_argument(
        "--detach-keys",
        type=_detach_keys,
        default=b"",
        metavar="KEYS",
        help="keys that detach from a terminal besides Enter ~ d, such as ctrl-p,ctrl-q",
    )


def _detach_keys(word: str) -> bytes:
    from rdev.client.keys import detach_keys

    try:
        return detach_keys(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def confirm_of(options: argparse.Namespace) -> Callable[[str], bool] | None:
    """What asks the person a question; None where nobody can answer."""
    import sys

    if options.yes:
        return lambda _question: True
    if not sys.stdin.isatty():
        return None
    return lambda question: input(f"rdev: {question} [y/N] ").strip().lower() in ("y", "yes")


def host_of(options: argparse.Namespace, root: str | None = None) -> str:
    """The host that the command line or the configuration names."""
    import os

    from rdev.client import config

    return options.host or config.load(root or os.getcwd()).host

"""What came of a request to a training, as people read it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rdev.wire.control import Verb
from rdev.wire.job import Job

if TYPE_CHECKING:
    from rdev.client.control import Account, Explanation, Outcome


def lines_of(outcomes: Sequence[Outcome], verb: Verb, args: Mapping[str, Any]) -> list[str]:
    """One line for all ranks that were served after the same step; `state` has several.

    Args:
        outcomes: By rank; those that were refused are left out.
        verb: What was asked.
        args: With what.
    """
    served = [outcome for outcome in outcomes if not outcome.cause]
    by_step: dict[tuple[int, str], list[Outcome]] = {}
    for outcome in served:
        by_step.setdefault((outcome.step, outcome.phase), []).append(outcome)
    lines = []
    for members in by_step.values():
        ranks = _ranks(members) if len(outcomes) > 1 else ""
        lines.append(f"{_deed(members[0], verb, args)}{place(members[0])}{ranks}")
        if verb is Verb.STATE:
            lines += _state(members[0].answer)
    return lines


def place(outcome: Outcome) -> str:
    """After which step, such as ` after step 1203 (epoch 3)`."""
    epoch = f" (epoch {outcome.epoch})" if outcome.epoch else ""
    if outcome.phase:
        return f" in step {outcome.step}, after its phase {outcome.phase}{epoch}"
    return f" after step {outcome.step}{epoch}"


def _deed(outcome: Outcome, verb: Verb, args: Mapping[str, Any]) -> str:  # noqa: C901  # a table
    answer = outcome.answer
    match verb:
        case Verb.PAUSE if args.get("when"):
            unknown = answer.get("unknown")
            yet = f", though nothing is called {unknown!r} yet" if unknown else ""
            return f"pauses once {args['when']}; armed{yet}"
        case Verb.PAUSE:
            return "was paused already," if answer.get("was_paused") else "paused"
        case Verb.RESUME:
            return "goes on" if answer.get("was_paused") else "was not paused,"
        case Verb.STEP if answer.get("over"):
            return "the run is over,"
        case Verb.STEP:
            steps = int(answer.get("steps", 1))
            if answer.get("made") is not None:
                return f"{answer['made']} of {steps} steps made, paused by another request"
            return f"{steps} step{'s' if steps != 1 else ''} made, paused"
        case Verb.STOP:
            return "the run ends"
        case Verb.CHECKPOINT:
            return f"checkpoint {answer.get('path', '')} written"
        case Verb.SET:
            return f"{answer.get('path')}: {answer.get('before')} -> {answer.get('after')}"
        case Verb.RELOAD:
            return _reloaded(answer)
        case Verb.STATE:
            reason = answer.get("paused")
            return f"{reason}," if reason else "runs"


def _reloaded(answer: Mapping[str, Any]) -> str:
    parts = [
        f"{word} {', '.join(map(str, answer[key]))}"
        for key, word in (
            ("changed", "new code of"),
            ("added", "added"),
            ("left", "left as it is:"),
        )
        if answer.get(key)
    ]
    return "; ".join(parts) or "nothing differs"


def _state(answer: Mapping[str, Any]) -> list[str]:
    rows: list[tuple[str, str]] = []
    if answer.get("loss") is not None:
        rows.append(("loss", f"{answer['loss']:.6g}"))
    rows += [(name, f"{value:.6g}") for name, value in (answer.get("metrics") or {}).items()]
    rows += [(name, str(line)) for name, line in (answer.get("objects") or {}).items()]
    width = max((len(name) for name, _ in rows), default=0)
    return [f"  {name:<{width}}  {text}" for name, text in rows]


def _ranks(members: Sequence[Outcome]) -> str:
    numbers = [member.rank for member in members]
    if len(numbers) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f" on ranks {numbers[0]}-{numbers[-1]}"
    return f" on rank{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def explanation(found: Explanation, job: Job) -> str:
    """The verdict, and a line for each rank if there are several."""
    lines = [found.verdict]
    if len(found.ranks) > 1:
        lines += [f"  rank {account.rank}: {_account(account, job)}" for account in found.ranks]
    return "\n".join(lines)


def _account(account: Account, job: Job) -> str:
    step = "" if account.step is None else f"step {account.step}, "
    if not account.file:
        return f"{step}{account.doing}"
    root = job.directory.rstrip("/") + os.sep
    name = account.file.removeprefix(root)
    return f"{step}{account.doing} in {account.function}, {name}:{account.line}"

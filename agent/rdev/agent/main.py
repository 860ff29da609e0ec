"""The `rdev-agent` command: serve, upgrade, status, stop, purge, bridge."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict

from rdev.agent import lifecycle
from rdev.protocol.errors import RdevError, error_as_json
from rdev.supervisor.platform import set_process_name
from rdev.wire.home import Home, answers, this_home


def main() -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args()
    try:
        return int(options.action(this_home(), options))
    except (RdevError, OSError) as error:
        return _fail(lifecycle.known(error), options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rdev-agent", description="The rdev daemon of this machine."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    serve = verbs.add_parser("serve", help="serve this machine until stopped")
    serve.add_argument("--detach", action="store_true", help="go on in the background")
    serve.add_argument("--replace", action="store_true", help="follow an agent that serves")
    serve.add_argument("--json", action="store_true", help="say errors as JSON")
    serve.add_argument(
        "--login", action="store_true", help="jobs get what the login's shell has, not what we have"
    )
    serve.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    serve.add_argument("--site", help=argparse.SUPPRESS)  # for tests
    serve.set_defaults(action=_serve)
    upgrade = verbs.add_parser(
        "upgrade", help="put an agent of this release in the place of the one that serves"
    )
    upgrade.add_argument(
        "--login", action="store_true", help="jobs get what the login's shell has by now"
    )
    upgrade.add_argument("--json", action="store_true", help="say errors as JSON")
    upgrade.set_defaults(action=_upgrade)
    status = verbs.add_parser("status", help="say whether an agent serves")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    status.set_defaults(action=_status)
    purge = verbs.add_parser("purge", help="end the agent and remove all it ever wrote")
    purge.add_argument("--discard-outputs", action="store_true", help="files of jobs go too")
    purge.add_argument("--json", action="store_true", help="print one JSON object, errors too")
    purge.set_defaults(action=_purge)
    stop = verbs.add_parser("stop", help="end the agent; jobs go on")
    stop.add_argument("--json", action="store_true", help="print one JSON object, errors too")
    stop.set_defaults(action=_stop)
    bridge = verbs.add_parser("bridge", help="join stdin and stdout to the agent, for ssh")
    bridge.add_argument("--home", metavar="FOLDER", help="the agent's; default: ~/.rdev")
    bridge.set_defaults(action=_bridge)
    return parser


def _upgrade(home: Home, options: argparse.Namespace) -> int:
    """Follows an agent in all that it was told, unless told otherwise."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--login", action="store_true", default=options.login)
    parser.add_argument("--site")
    known, _ = parser.parse_known_args(lifecycle.options_of(home))
    return _serve(home, argparse.Namespace(detach=True, replace=True, **vars(known)))


def _serve(home: Home, options: argparse.Namespace) -> int:
    if options.detach:
        from rdev.agent import site

        rules = site.load(options.site)
        kept = _kept(options, ("--replace",) if options.replace else ())
        pid = lifecycle.start_detached(home, local_state=rules.local_state, options=kept)
        print(f"agent {pid} serves {home.root}")
        return 0
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    # One that a supervisor has brought back is an orphan of that job's keeper, which counts what
    # the job has used and leaves out what has this name.
    set_process_name("rdev-agent")
    with lifecycle.reporting(options.ready_fd) as on_ready:
        _serve_here(home, options, on_ready)
    return 0


def _serve_here(home: Home, options: argparse.Namespace, on_ready: Callable[[], None]) -> None:
    from rdev.protocol.buffers import keep_buffers
    from rdev.protocol.polling import poll_directly

    poll_directly()
    from rdev.agent import login, site
    from rdev.agent.server import Mandate, serve

    rules = site.load(options.site)
    # Before anything of this process is changed: what it was started with is somebody's login.
    mine = login.own()
    theirs = login.login_of(home, mine, asks_shell=options.login, anew=options.replace)
    lifecycle.take_over_process()
    keep_buffers()
    with lifecycle.locked(home, local_state=rules.local_state, replacing=options.replace):
        if options.login:
            login.write(home.login, theirs)
        mandate = Mandate(home, theirs, rules, umask=mine.umask, options=_kept(options))
        asyncio.run(serve(mandate, on_ready=on_ready))


def _kept(options: argparse.Namespace, more: Sequence[str] = ()) -> tuple[str, ...]:
    """The options that hold for every agent that comes after this one."""
    login = ("--login",) if options.login else ()
    named = ("--site", options.site) if options.site else ()
    return (*login, *named, *more)


def _status(home: Home, options: argparse.Namespace) -> int:
    pid = lifecycle.serving_pid(home)
    mute = None if pid is not None else lifecycle.holder(home)
    if options.json:
        print(json.dumps({"home": home.root, "pid": pid, "serving": pid is not None}))
    elif mute is not None:
        print(f"agent {mute} has {home.root} and does not answer")
    elif pid is None:
        print(f"no agent serves {home.root}")
    else:
        print(f"agent {pid} serves {home.root}")
    return 0 if pid is not None else 1


def _stop(home: Home, options: argparse.Namespace) -> int:
    pid = lifecycle.holder(home) or lifecycle.call_off(home)
    was_mute = pid is not None and not answers(home)
    if pid is not None:
        lifecycle.end(pid)
        lifecycle.call_off_others(home)
    if options.json:
        print(json.dumps({"home": home.root, "pid": pid}))
    elif pid is None:
        print(f"no agent serves {home.root}")
    else:
        mute = ", which did not answer," if was_mute else ""
        print(f"agent {pid}{mute} stopped; its jobs go on")
    return 0


def _purge(home: Home, options: argparse.Namespace) -> int:
    from rdev.agent.leaving import leave

    removed = leave(home, discard=options.discard_outputs)
    if options.json:
        print(json.dumps(asdict(removed)))
        return 0
    for path in removed.paths:
        print(f"removed {path}")
    print(f"{removed.size / 1e6:.1f} MB freed" if removed.paths else "nothing is here")
    if removed.kept:
        print(f"kept {removed.kept}")
    return 0


def _bridge(_home: Home, options: argparse.Namespace) -> int:
    from rdev.agent import bridge  # `python -m rdev.agent.bridge` is the same and starts faster

    return bridge.main(["--home", options.home] if options.home else [])


def _fail(error: RdevError, options: argparse.Namespace) -> int:
    if getattr(options, "json", False):
        print(error_as_json(error), file=sys.stderr)
    else:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
    return error.verb_exit_code


if __name__ == "__main__":
    sys.exit(main())

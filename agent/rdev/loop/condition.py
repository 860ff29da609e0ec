"""Conditions that a run is to pause at: expressions over its state, fast enough for every step.

An expression is compiled once, with its names turned into what reads them from the state, so that
judging it makes no dictionary; a tensor of one element that is only compared is read as a number.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rdev.loop.setting import Refused

if TYPE_CHECKING:
    from rdev.loop.state import State

Condition = Callable[["State"], object]


class Unknown(NameError):
    """Nothing has that name yet; a metric may be logged later."""


def compiled(text: str) -> Condition:
    """The condition that an expression says.

    Raises:
        Refused: It is no expression.
    """
    try:
        tree = ast.parse(text, "<condition>", "eval")
    except (SyntaxError, ValueError) as error:
        # Without the file and the line that `str` adds, which nobody wrote.
        cause = error.msg if isinstance(error, SyntaxError) else str(error)
        raise Refused(f"{text!r} is no expression: {cause}") from error
    names = _Names(tree)
    body = ast.Lambda(_ARGUMENT, names.visit(tree).body)
    code = compile(ast.fix_missing_locations(ast.Expression(body)), "<condition>", "eval")
    known = {"_look": _look, "_number": _number}
    condition: Condition = eval(code, known)  # whoever controls the job may run anything in it
    return condition


_ARGUMENT = ast.arguments(
    posonlyargs=[], args=[ast.arg("_state")], kwonlyargs=[], kw_defaults=[], defaults=[]
)

# What is an attribute of every state, and needs not be looked for.
_OF_STATE = frozenset({"step", "epoch", "phase", "batch", "loss", "metrics"})


class _Names(ast.NodeTransformer):
    """Has an expression read its names from the state, as numbers where it compares them."""

    def __init__(self, tree: ast.AST) -> None:
        nodes = list(ast.walk(tree))
        stored = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        self._bound = stored | {node.arg for node in nodes if isinstance(node, ast.arg)}
        # Who asks a tensor for something of its own, as in `loss.isnan()`, is given the tensor.
        of = [node.value for node in nodes if isinstance(node, (ast.Attribute, ast.Subscript))]
        self._whole = {node.id for node in of if isinstance(node, ast.Name)}

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Reads one name."""
        name, state = node.id, ast.Name("_state", ast.Load())
        if name in self._bound or (hasattr(builtins, name) and name not in _OF_STATE):
            return node
        value: ast.expr = ast.Attribute(state, name, ast.Load())
        if name not in _OF_STATE:
            value = ast.Call(ast.Name("_look", ast.Load()), [state, ast.Constant(name)], [])
        if name in self._whole or name in ("step", "epoch"):
            return value
        return ast.Call(ast.Name("_number", ast.Load()), [value], [])


def _look(state: State, name: str) -> object:
    """A metric, or an object, by name."""
    if name in state.metrics:
        return state.metrics[name]
    if name in state.objects:
        return state.objects[name]
    raise Unknown(f"there is no metric and no object {name!r}", name=name)


def _number(value: Any) -> Any:  # noqa: ANN401  # whatever a name stands for
    """A tensor of one element as a number: comparing those is 20 times as fast."""
    item = getattr(value, "item", None)
    if item is None:
        return value
    try:
        return item()
    except (RuntimeError, ValueError):  # it has several
        return value

"""Python source, as far as a debugger understands it: which lines run, and in which function."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence

# A file that is longer is not parsed for a courtesy.
_LONGEST = 2_000_000

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def fault_of(lines: Sequence[str], line: int) -> str:
    """Why a breakpoint on a line can never be hit, in words; empty if it may be.

    Args:
        lines: The file.
        line: The line, from 1.
    """
    if line > len(lines):
        return f"the file has only {_count(len(lines))}"
    text = lines[line - 1].strip()
    docstrings = _docstring_lines(lines)
    if text and not text.startswith("#") and line not in docstrings:
        return ""
    what = "blank" if not text else "a comment" if text.startswith("#") else "a docstring's"
    following = _next_code(lines, docstrings, line)
    return f"line {line} is {what}" + (f"; line {following} has code" if following else "")


def code_from(lines: Sequence[str], line: int) -> int:
    """A line if it has code, else the next one that has; 0 if none has."""
    return _next_code(lines, _docstring_lines(lines), line - 1)


def function_of(lines: Sequence[str], line: int) -> tuple[int, int, tuple[str, ...]]:
    """The first and last line of the function around a line, and its parameters; else the file."""
    tree = _parsed(lines)
    inner: _Function | None = None
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, _Function) and _first(node) <= line <= (node.end_lineno or 0):
            inner = node if inner is None or node.lineno > inner.lineno else inner
    if inner is None:
        return 1, len(lines), ()
    arguments = inner.args
    known = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    rest = [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    return _first(inner), inner.end_lineno or line, tuple(a.arg for a in (*known, *rest))


def body_of(lines: Sequence[str], name: str) -> int:
    """The first line with code of a function, such as `train` or `Net.forward`; 0 if none is."""
    tree: ast.AST | None = _parsed(lines)
    for part in name.split("."):
        tree = next((n for n in ast.walk(tree) if _is_named(n, part)), None) if tree else None
    if not isinstance(tree, _Function):
        return 0
    docstrings = _docstring_lines(lines)
    codes = (statement.lineno for statement in tree.body if statement.lineno not in docstrings)
    return next(codes, 0)


def _is_named(node: ast.AST, name: str) -> bool:
    return isinstance(node, _Function | ast.ClassDef) and node.name == name


def _first(function: _Function) -> int:
    return min([function.lineno, *(one.lineno for one in function.decorator_list)])


def _parsed(lines: Sequence[str]) -> ast.Module | None:
    text = "\n".join(lines)
    if len(text) > _LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # the job's Python may know more than ours


def _docstring_lines(lines: Sequence[str]) -> set[int]:
    found: set[int] = set()
    tree = _parsed(lines)
    for node in ast.walk(tree) if tree else ():
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            found.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


def _next_code(lines: Sequence[str], docstrings: set[int], line: int) -> int:
    for number in range(line + 1, len(lines) + 1):
        text = lines[number - 1].strip()
        if text and not text.startswith("#") and number not in docstrings:
            return number
    return 0


def _count(number: int) -> str:
    return "1 line" if number == 1 else f"{number} lines"

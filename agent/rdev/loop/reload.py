"""Takes the edited code of a module into a running training, and keeps every object.

Functions and methods get their new code in place (`__code__`), so whoever holds one, a bound method
or a loop that calls a step, runs the new code from its next call on; also one that was made within
another function, such as a step that `main` defines. Nothing at the module's top
level is executed again but imports: what a script does there, it has done. New functions, classes,
methods and constants are added; a constant whose text differs is left as it is and named, for its
value may be the training's by now. All of it is taken, or nothing.
"""

from __future__ import annotations

import ast
import gc
import inspect
import linecache
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

from rdev.loop.setting import Refused

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)


class _Change:
    """What is to be done once everything is known to go."""

    def __init__(self) -> None:
        self.code: list[tuple[types.FunctionType, types.FunctionType]] = []
        self.added: list[tuple[Any, str, Any]] = []
        self.changed: list[str] = []
        self.new: list[str] = []
        self.left: list[str] = []


def reload(name: str) -> dict[str, list[str]]:
    """Takes a module's code as it is on disk.

    Args:
        name: The module's name, or its file; the script's own is `__main__`, or its file.

    Returns:
        `changed`: functions whose code differs. `added`: new names. `left`: constants whose text
        differs from their value, and which keep that. `removed` names stay as they are.

    Raises:
        Refused: There is no such module, its text does not compile, or a function holds other
            variables of an enclosing one than before.
    """
    module = _module(name)
    path = str(module.__file__)
    scratch = _executed(module, path)
    change = _Change()
    for entry in scratch.values():
        _compare(change, module, entry)
    change.code += _inner(change.code)
    for old, new in change.code:
        if old.__code__.co_freevars != new.__code__.co_freevars:
            raise Refused(
                f"{old.__qualname__} uses other variables of an enclosing function than before"
            )
    _apply(change, module)
    linecache.checkcache(path)
    dynamo: Any = sys.modules.get("torch._dynamo")
    if dynamo is not None and change.changed:
        dynamo.reset()  # what was compiled is compiled anew at its next call
    return {"changed": change.changed, "added": change.new, "left": change.left}


def _module(name: str) -> types.ModuleType:
    loaded = {n: m for n, m in list(sys.modules.items()) if _file_of(m) and not _is_ours(n)}
    if name in loaded:
        return loaded[name]
    path = os.path.realpath(name)
    stem = name.removesuffix(".py").replace(os.sep, ".")
    found = [
        module
        for known, module in loaded.items()
        if _file_of(module) == path or known.endswith(f".{stem}") or _is_main(module, known, stem)
    ]
    if len({id(module) for module in found}) == 1:
        return found[0]
    if found:
        raise Refused(f"several modules are called {name!r}; give its file")
    raise Refused(f"no module {name!r} is imported there, as far as a file belongs to it")


def _is_ours(name: str) -> bool:
    return name.startswith("rdev.")


def _is_main(module: types.ModuleType, known: str, stem: str) -> bool:
    if known != "__main__":
        return False
    spec = getattr(module, "__spec__", None)  # of `python -m`, which has a name of its own
    return os.path.basename(_file_of(module)) == f"{stem}.py" or getattr(spec, "name", "") == stem


def _file_of(module: object) -> str:
    path = getattr(module, "__file__", None)
    return os.path.realpath(path) if isinstance(path, str) and path.endswith(".py") else ""


def _executed(module: types.ModuleType, path: str) -> dict[str, tuple[str, Any]]:
    """What the text defines, by name: (kind, value), kinds `definition` and `constant`."""
    try:
        with open(path, "rb") as file:
            text = file.read()
        tree = ast.parse(text, path)
        wanted: list[ast.stmt] = [
            node for node in tree.body if isinstance(node, (*_DEFINITIONS, *_IMPORTS))
        ]
        code = compile(ast.Module(wanted, type_ignores=[]), path, "exec", dont_inherit=True)
    except (OSError, SyntaxError, ValueError) as error:
        raise Refused(f"{os.path.basename(path)}: {error}") from error
    scratch = dict(vars(module))
    try:
        exec(code, scratch)  # it is the text that the job itself runs
    except Exception as error:
        raise Refused(f"its definitions fail: {type(error).__name__}: {error}") from error
    names = [node.name for node in wanted if isinstance(node, _DEFINITIONS)]
    found = {name: ("definition", name, scratch[name]) for name in names}
    for name in scratch.keys() - vars(module).keys() - found.keys() - {"__builtins__"}:
        found[name] = ("import", name, scratch[name])
    for name, value in _constants(tree):
        found[name] = ("constant", name, value)
    return found  # type: ignore[return-value]  # read by `_compare` alone


def _constants(tree: ast.Module) -> Iterator[tuple[str, object]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Name):
                try:
                    yield target.id, ast.literal_eval(node.value)
                except (ValueError, TypeError, SyntaxError):
                    continue  # it is computed, which is not done again


def _compare(change: _Change, module: types.ModuleType, entry: Any) -> None:  # noqa: ANN401
    kind, name, new = entry
    missing = object()
    old = vars(module).get(name, missing)
    if old is missing:
        change.added.append((module, name, new))
        change.new.append(name)
    elif kind == "constant":
        # What can be changed in place has been, as likely as not; that is no edit of the text.
        if type(old) is type(new) and old != new and not isinstance(new, (list, dict, set)):
            change.left.append(name)
    elif kind == "definition":
        _compare_value(change, old, new, name)


def _compare_value(change: _Change, old: Any, new: Any, name: str) -> None:  # noqa: ANN401
    if isinstance(old, type) and isinstance(new, type):
        _compare_class(change, old, new, name)
        return
    for before, after in zip(_functions(old), _functions(new), strict=False):
        change.code.append((before, after))
        if not _same(before.__code__, after.__code__) or _defaults(before) != _defaults(after):
            change.changed.append(name)


def _compare_class(change: _Change, old: type, new: type, name: str) -> None:
    for member, value in list(vars(new).items()):
        here = f"{name}.{member}"
        if member not in vars(old):
            if _functions(value) or not member.startswith("__"):
                change.added.append((old, member, value))
                change.new.append(here)
        elif isinstance(value, type) or _functions(value):
            _compare_value(change, vars(old)[member], value, here)


def _functions(value: Any) -> list[types.FunctionType]:  # noqa: ANN401  # what a name may hold
    """The plain functions of a function, a decorated one, a method of any kind, or a property."""
    if isinstance(value, property):
        return [f for part in (value.fget, value.fset, value.fdel) for f in _functions(part)]
    if isinstance(value, (staticmethod, classmethod)):
        return _functions(value.__func__)
    if value is None or not callable(value):
        return []
    try:
        plain = inspect.unwrap(value)
    except ValueError:
        return []
    return [plain] if isinstance(plain, types.FunctionType) else []


def _inner(
    pairs: list[tuple[types.FunctionType, types.FunctionType]],
) -> list[tuple[types.FunctionType, types.FunctionType]]:
    """Functions made within others, such as a step that `main` defines, and their new code."""
    codes: dict[types.CodeType, types.CodeType] = {}
    for old, new in pairs:
        _pair_codes(codes, old.__code__, new.__code__)
    if not codes:
        return []
    # Whoever made them keeps them wherever he likes: the collector knows all.
    alive = [one for one in gc.get_objects() if type(one) is types.FunctionType]
    return [(one, _with(one, codes[one.__code__])) for one in alive if one.__code__ in codes]


def _pair_codes(
    codes: dict[types.CodeType, types.CodeType], old: types.CodeType, new: types.CodeType
) -> None:
    before, after = _nested(old), _nested(new)
    for name, code in before.items():
        if name in after and code is not after[name]:
            if not _same(code, after[name]):
                codes[code] = after[name]
            _pair_codes(codes, code, after[name])


def _nested(code: types.CodeType) -> dict[str, types.CodeType]:
    """Code within code by name, where a name occurs once; what has none, such as a lambda, not."""
    found = [one for one in code.co_consts if isinstance(one, types.CodeType)]
    names = [one.co_name for one in found]
    return {
        one.co_name: one
        for one in found
        if names.count(one.co_name) == 1 and one.co_name.isidentifier()
    }


def _with(function: types.FunctionType, code: types.CodeType) -> types.FunctionType:
    cells = tuple(types.CellType() for _ in code.co_freevars)
    changed = types.FunctionType(code, {}, code.co_name, function.__defaults__, cells or None)
    changed.__kwdefaults__, changed.__doc__ = function.__kwdefaults__, function.__doc__
    return changed


def _defaults(function: types.FunctionType) -> str:
    # By their words: a default may be a tensor, which has no one truth.
    return repr((function.__defaults__, function.__kwdefaults__))


def _same(old: types.CodeType, new: types.CodeType) -> bool:
    """Whether two do the same, wherever in the file they are."""
    if (old.co_code, _names(old)) != (new.co_code, _names(new)):
        return False
    if len(old.co_consts) != len(new.co_consts):
        return False
    return all(
        _same(a, b)
        if isinstance(a, types.CodeType) and isinstance(b, types.CodeType)
        else (type(a), repr(a)) == (type(b), repr(b))
        for a, b in zip(old.co_consts, new.co_consts, strict=True)
    )


def _names(code: types.CodeType) -> tuple[tuple[str, ...], ...]:
    return code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars


def _apply(change: _Change, module: types.ModuleType) -> None:
    for old, new in change.code:
        old.__code__ = new.__code__
        old.__defaults__, old.__kwdefaults__ = new.__defaults__, new.__kwdefaults__
        old.__doc__ = new.__doc__
    for owner, name, value in change.added:
        setattr(owner, name, _at_home(value, owner, module))


def _at_home(value: Any, owner: Any, module: types.ModuleType) -> Any:  # noqa: ANN401
    """A new function that sees the module's own globals, not those it was tried with."""
    if isinstance(value, (staticmethod, classmethod)):
        return type(value)(_at_home(value.__func__, owner, module))
    if isinstance(value, property):
        parts = (value.fget, value.fset, value.fdel)
        fget, fset, fdel = (part and _at_home(part, owner, module) for part in parts)
        return property(fget, fset, fdel, value.__doc__)
    if isinstance(value, type):
        for member, entry in list(vars(value).items()):
            if value.__module__ == module.__name__ and _functions(entry):
                setattr(value, member, _at_home(entry, value, module))
        return value
    if not isinstance(value, types.FunctionType) or value.__module__ != module.__name__:
        return value
    cells = tuple(
        types.CellType(owner) if name == "__class__" and isinstance(owner, type) else cell
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
    )
    home = types.FunctionType(
        value.__code__, vars(module), value.__name__, value.__defaults__, cells or None
    )
    home.__kwdefaults__, home.__qualname__ = value.__kwdefaults__, value.__qualname__
    home.__dict__.update(vars(value))
    home.__annotations__ = dict(value.__annotations__)
    return home

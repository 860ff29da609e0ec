"""Guards of the layout: what must hold for one distribution to come from three roots."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PORTIONS = sorted(
    path
    for root in ("agent", "client", "protos")
    for path in (ROOT / root / "rdev").iterdir()
    if path.is_dir() and path.name != "__pycache__"
)
# These run where only the standard library can be counted on.
STDLIB_PORTIONS = ("wire", "supervisor", "hook", "loop")


def test_rdev_itself_is_a_namespace_without_an_init():
    for root in ("agent", "client", "protos"):
        assert not (ROOT / root / "rdev" / "__init__.py").exists()


@pytest.mark.parametrize("portion", PORTIONS, ids=lambda path: path.name)
def test_every_portion_is_typed(portion):
    assert (portion / "py.typed").exists()


def test_every_root_is_packaged_and_editable():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert build["packages"] == ["agent/rdev", "client/rdev", "protos/rdev"]
    assert build["dev-mode-dirs"] == ["agent", "client", "protos"]


@pytest.mark.parametrize("portion", STDLIB_PORTIONS)
def test_a_portion_beside_the_users_code_imports_only_the_standard_library(portion):
    code = f"""
import importlib, pkgutil, sys
sys.path[:0] = [{str(ROOT / "agent")!r}]
before = set(sys.modules)
package = importlib.import_module("rdev.{portion}")
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if "sitecustomize" not in module.name and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
new = {{name.split(".")[0] for name in set(sys.modules) - before}}
print(sorted(new - set(sys.stdlib_module_names) - {{"rdev"}}))
print(sorted(n for n in sys.modules if n.startswith("rdev.") and n.split(".")[1] not in ("wire", "{portion}")))
"""
    # -I -S: without site-packages, an import of anything else fails.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]


def test_import_contracts_hold():
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_generated_modules_are_not_tracked():
    tracked = subprocess.run(
        ["git", "ls-files", "*_pb2*"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert tracked.stdout == ""

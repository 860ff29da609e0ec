"""What is done on a machine of a kind, and which wheels it gets."""

from dataclasses import replace

import pytest

from rdev.client.bootstrap.lock import Target, fitting, locked
from rdev.client.bootstrap.plan import make_plan
from rdev.client.bootstrap.probe import Place, Probe, Python
from rdev.protocol.errors import BootstrapFailed, NoPython

GB = 1 << 30
PYTHON = Python(
    "path", "/usr/bin/python3", (3, 11, 2), "cpython", "", 64, "x86_64", "glibc 2.36",
    "/usr/bin/python3.11", has_pip=True,
)  # fmt: skip
PROBE = Probe(
    system="Linux",
    machine="x86_64",
    kernel="6.1.0-28-amd64",
    hostname="gpu1",
    uid=1000,
    login="/home/ann",
    shell="/bin/bash",
    libc="glibc 2.36",
    root=Place("/home/ann/.rdev", GB, "ext4", may_execute=True, is_writable=True),
    spares=(Place("/var/tmp", GB, "ext4", may_execute=True, is_writable=True),),
    dist="",
    releases=(),
    home_id="",
    has_user_manager=False,
    kills_processes=False,
    lingers=False,
    has_gpu=True,
    sbatch="",
    uv="",
    wished="",
    pythons=(PYTHON,),
)
CONDA = replace(PYTHON, source="conda", path="/c/bin/python3", base="/c/bin/python3.12")
OLD = replace(PYTHON, version=(3, 10, 13), base="/usr/bin/python3.10")


def plan(probe, **options):
    return make_plan("gpu1", probe, release="1.0-abc", wheels=locked(), **options)


def place(path, **changes):
    return replace(PROBE.root, path=path, **changes)


def test_the_usual_machine():
    made = plan(PROBE)
    assert (made.dist, made.spare, made.python) == ("/home/ann/.rdev/dist", "", PYTHON)
    assert {"grpcio", "protobuf", "debugpy", "zstandard"} <= {wheel.name for wheel in made.wheels}
    assert made.needed > sum(wheel.unpacked for wheel in made.wheels)


def test_a_release_that_is_there_is_not_put_there_again():
    probe = replace(PROBE, dist="/home/ann/.rdev/dist", releases=("1.0-abc",), pythons=())
    assert plan(probe).is_there
    assert not plan(replace(probe, pythons=(PYTHON,)), again=True).is_there


def test_the_systems_python_is_preferred_to_what_people_make_anew():
    newer = replace(CONDA, version=(3, 13, 0))
    assert plan(replace(PROBE, pythons=(newer, PYTHON))).python == PYTHON
    assert plan(replace(PROBE, pythons=(CONDA, newer))).python == newer


def test_a_wish_is_followed():
    wish = replace(CONDA, source="wish", version=(3, 12, 1))
    assert plan(replace(PROBE, wished=wish.path, pythons=(wish, PYTHON))).python == wish


@pytest.mark.parametrize(
    ("pythons", "words"),
    [
        ((), "no Python at all was found"),
        ((OLD,), "/usr/bin/python3 is Python 3.10.13"),
        ((replace(PYTHON, version=(3, 15, 0)),), "Python 3.15.0"),
        ((replace(PYTHON, implementation="pypy"),), "pypy 3.11.2"),
        ((replace(PYTHON, abi="t"),), "another build"),
        ((replace(PYTHON, bits=32),), "32 bits"),
        ((replace(PYTHON, libc=""),), "without glibc"),
    ],
)
def test_no_python_names_what_was_found_and_the_remedy(pythons, words):
    with pytest.raises(NoPython, match=words) as caught:
        plan(replace(PROBE, pythons=pythons))
    assert "--bootstrap-python PATH" in caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("wish", "words"),
    [((), "/c/bin/python3 does not run there"), ((replace(OLD, source="wish"),), "3.10.13")],
)
def test_a_wish_that_cannot_be_followed_is_not_replaced_by_another_python(wish, words):
    with pytest.raises(NoPython, match=words):
        plan(replace(PROBE, wished="/c/bin/python3", pythons=(*wish, PYTHON)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"system": "Darwin"}, "it runs Darwin"),
        ({"machine": "ppc64le"}, "its architecture is ppc64le"),
        ({"libc": "musl"}, "its C library is musl"),
        ({"kernel": "4.18.0-553.el8.x86_64"}, "its kernel is Linux 4.18"),
        ({"pythons": (replace(PYTHON, libc="glibc 2.12"),)}, "there is no .* with glibc 2.12"),
        ({"root": place("/home/ann/.rdev", is_writable=False)}, "cannot be made or written"),
        ({"root": place("/home/ann/.rdev", free=3_000_000)}, r"has 3 MB free and rdev takes \d\d"),
        ({"root": place("/h", may_execute=False), "spares": ()}, "noexec"),
    ],
)
def test_what_stands_in_the_way_is_one_line(changes, words):
    with pytest.raises(BootstrapFailed, match=words) as caught:
        plan(replace(PROBE, **changes))
    assert "\n" not in caught.value.message
    assert caught.value.hint != BootstrapFailed.default_hint


def test_a_home_that_may_not_execute_keeps_its_state_and_gets_a_release_elsewhere():
    full = place("/scratch", free=1000)
    fixed = place("/local", may_execute=False)
    probe = replace(
        PROBE,
        root=place("/home/ann/.rdev", may_execute=False),
        spares=(full, fixed, *PROBE.spares),
    )
    made = plan(probe)
    assert (made.home, made.dist, made.spare) == ("/home/ann/.rdev", "", "/var/tmp")
    again = plan(replace(probe, dist="/var/tmp/rdev-1000-x"))
    assert (again.dist, again.spare) == ("/var/tmp/rdev-1000-x", "")


@pytest.mark.parametrize("minor", range(11, 15))
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("glibc", [28, 36])
def test_every_served_target_has_a_wheel_of_everything(minor, machine, glibc):
    found, missing = fitting(Target((3, minor), machine, glibc), locked())
    assert not missing
    assert len({wheel.name for wheel in found}) == len(found) == 7
    for wheel in found:
        assert wheel.file.endswith("any.whl") or machine in wheel.file
        assert f"cp3{minor}" in wheel.file or "abi3" in wheel.file or "-none-" in wheel.file


def test_a_debugger_with_fast_parts_goes_only_where_they_load():
    def debugger(machine, glibc):
        found, _ = fitting(Target((3, 12), machine, glibc), locked())
        return next(wheel.file for wheel in found if wheel.name == "debugpy")

    assert "cp312-manylinux" in debugger("x86_64", 36)
    assert debugger("x86_64", 31).endswith("none-any.whl")
    assert debugger("aarch64", 36).endswith("none-any.whl")


def test_the_lock_names_no_index():
    for wheel in locked():
        assert len(wheel.sha256) == 64
        assert "/" not in wheel.file


def test_a_later_release_that_is_there_is_kept_to():
    probe = replace(PROBE, dist="/d", releases=("0.9-a", "1.10-b", "1.0-abc", "1.9-c"))
    assert plan(probe, again=True).release == "1.10-b"
    assert plan(replace(probe, releases=("0.9-a", "1.0-abd"))).release == "1.0-abc"

"""Which trainers are joined, told without importing any library."""

import subprocess
import sys

import pytest

from rdev.loop import Callback, join
from rdev.loop.guests.guest import Guest, Joined


class Trainer:
    """Named as others name theirs, and of nobody's library."""

    def fit(self, steps):
        return ["own", steps]


def test_what_is_of_no_library_is_refused_by_its_name():
    with pytest.raises(TypeError, match=r"unable to join a .*test_joining.*Trainer.*ignite"):
        join(Trainer())


def test_joining_imports_no_library():
    code = """
import sys
from rdev.loop import join
try:
    join(object())
except TypeError:
    pass
foreign = {"torch", "numpy", "ignite", "lightning", "transformers", "keras", "skorch", "fastai"}
print(sorted(foreign & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_name_that_the_state_uses_is_refused_where_it_is_given():
    with pytest.raises(ValueError, match="step"):
        Guest("ignite", (), {"step": object()})


def test_what_copies_a_trainer_gets_the_method_of_its_class():
    import copy
    import pickle

    trainer = Trainer()
    Joined.put(trainer, "fit", lambda fit, steps: ["ours", *fit(steps)])
    assert trainer.fit(3) == ["ours", "own", 3]
    assert copy.deepcopy(trainer).fit(3) == ["own", 3]
    assert b"rdev" not in pickle.dumps(trainer)


def test_a_guest_that_is_copied_begins_anew_and_tells_the_same():
    import copy
    import pickle

    told = Callback()
    guest = Guest("skorch", [told], {"loader": [1]})
    guest.begin(objects={"model": 1})
    try:
        for other in (copy.deepcopy(guest), pickle.loads(pickle.dumps(guest))):
            assert (other.kind, other.is_running, len(other.callbacks)) == ("skorch", False, 1)
            assert other.objects == {"loader": [1]}
        assert copy.deepcopy(guest).callbacks == (told,)
    finally:
        guest.end()
    assert not guest.is_running

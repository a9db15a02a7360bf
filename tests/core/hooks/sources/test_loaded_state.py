"""A digest of what runs: every change of it counts, and nothing that differs from process to process."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import attrs
import pytest
from modelmerger.hooks.sources.loaded_state import state_digest

SOURCE = """
import re
import attrs
from attrs import field, frozen, validators
from modelmerger import Traits, hookimpl

POWER = 2
NAMES = {"a", "b", "c"}
NESTED = {"x": [1, (2.5, None)], "y": {"z"}}
PATTERN = re.compile("x")
traits = Traits(models=(1, None))


@frozen(kw_only=True)
class Options:
    power: float = field(default=2.0, validator=validators.gt(0))

    @property
    def twice(self):
        return self.power * 2

    @staticmethod
    def three():
        return 3


def helped(weight, times=3, *, plus=1):
    return weight * times + plus


@hookimpl
def find_coefficients(weights):
    return [helped(weight) if weight in {"u", "v", "w"} else [weight**POWER for _ in weights] for weight in weights]
"""


def module(source: str = SOURCE) -> ModuleType:
    made = ModuleType("acme_state")
    exec(compile(source, "acme_state.py", "exec"), vars(made))
    return made


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("POWER = 2", "POWER = 9"),
        ('"c"}', '"d"}'),
        ("2.5, None", "2.5, False"),
        ("models=(1, None)", "models=(2, None)"),
        ("default=2.0", "default=3.0"),
        ("return 3", "return 4"),
        ("times=3", "times=4"),
        ("plus=1", "plus=2"),
        ("* times", "+ times"),
        ("weight**POWER for", "weight**POWER * 2 for"),
        ('"w"}', '"q"}'),
        ("def helped", "EXTRA = 1\n\n\ndef helped"),
    ],
)
def test_every_change_counts(old: str, new: str) -> None:
    assert old in SOURCE
    assert state_digest(module(SOURCE.replace(old, new))) != state_digest(module())


def test_where_it_stands_and_what_is_said_of_it_do_not_count() -> None:
    moved = SOURCE.replace("def helped", "# a word\n\n\ndef helped")
    assert state_digest(module(moved)) == state_digest(module())


def test_running_it_and_another_process_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "acme_state.py").write_text(SOURCE)
    code = "import acme_state, sys; from modelmerger.hooks.sources.loaded_state import state_digest as digest\n"
    code += "print(digest(acme_state)); [acme_state.helped(n) for n in range(5000)]; print(digest(acme_state))"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout.split()
        for seed in ("1", "2")
    ]
    assert len({digest for digests in found for digest in digests}) == 1
    assert len(found[0]) == 2


def test_a_class_whose_types_attrs_was_asked_for_is_the_same() -> None:
    made = module()
    before = state_digest(made)
    classes = [value for value in vars(made).values() if isinstance(value, type) and attrs.has(value)]
    assert classes
    for each in classes:
        attrs.resolve_types(each)
    assert state_digest(made) == before

"""The checks of validators, loaders, views, executors and files beside the weights catch what they are for."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import frozen
from modelmerger import ConfigError, hookimpl
from modelmerger.testing import check_loader, describe_checks, parametrize_with_checks
from modelmerger.testing.checks.running import KINDS, run_checks
from safetensors.torch import save_file

from tests.core.testing.broken_plugins import BROKEN, NUMBERS, SOUND, LongAnswers, Sidecar

CASES = [(kind, name, broken) for kind in BROKEN for name, all_ in BROKEN[kind].items() for broken in all_]


@pytest.fixture
def given(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """What the checks of each kind want to know."""
    model = tmp_path / "flat"
    model.mkdir()
    (model / "shapes.json").write_text(json.dumps({name: [len(numbers)] for name, numbers in NUMBERS.items()}))
    (model / "numbers.f32").write_bytes(b"".join(numbers.tobytes() for numbers in NUMBERS.values()))
    tensors = {name: torch.from_numpy(numbers.copy()) for name, numbers in NUMBERS.items()}
    return {
        "loader": {"path": model, "tensors": tensors},
        "view": {"models": [tensors, tensors], "config": {"hidden_size": 6}},
    }


@pytest.mark.parametrize(("kind", "name", "broken"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_each_check_catches_a_plugin_that_breaks_it(kind: Any, name: str, broken: Any, given: Any) -> None:
    subject = KINDS[kind].subject(broken(), **given.get(kind, {}))
    (check,) = [check for check in KINDS[kind].checks if check.name == name]
    assert check.applies(subject)
    with pytest.raises(AssertionError) as failed:
        check.function(subject)
    assert check.promise
    assert str(failed.value)


@pytest.mark.parametrize("kind", BROKEN)
def test_sound_ones_pass_and_no_check_is_without_a_plugin_that_it_catches(kind: Any, given: Any) -> None:
    assert BROKEN[kind].keys() == describe_checks(kind).keys()
    run_checks(kind, SOUND[kind](), {}, **given.get(kind, {}))


@parametrize_with_checks([LongAnswers(), "perplexity", "coherence", "fluency", "dialect_prompts"], kind="validator")
def test_validators(validator: Any, check: Any) -> None:
    check(validator)


@parametrize_with_checks([Sidecar(), "model_card", "model_config", "tokenizer", "licenses"], kind="sidecars")
def test_sidecars(sidecars: Any, check: Any) -> None:
    check(sidecars)


@parametrize_with_checks(["threads"], kind="executor")
def test_executors(executor: Any, check: Any) -> None:
    check(executor)


def test_the_loader_of_directories(tmp_path: Path) -> None:
    tensors = {"w": torch.randn(4, 5), "h": torch.randn(7).half(), "s": torch.tensor(1.0)}
    save_file(tensors, tmp_path / "model.safetensors")
    reason = "it is asked last, and says why nobody opens an empty directory"
    check_loader("directory", path=tmp_path, tensors=tensors, expected_failures={"check_declines_others": reason})


def test_a_plugin_of_another_kind_is_said_to_be() -> None:
    with pytest.raises(AssertionError, match=r"has no hook write_sidecars\. Mark a function of that name"):
        run_checks("sidecars", LongAnswers(), {})


@frozen(kw_only=True)
class _Kept:
    keep: tuple[str, ...] = ()


@frozen(eq=False)
class _Keeping:
    """A plugin whose option is a tuple, which a config writes as a list."""

    Options = _Kept

    @hookimpl
    def write_sidecars(self, options: _Kept) -> dict[str, bytes]:
        assert type(options.keep) is tuple
        return {f"{name}.txt": b"" for name in options.keep}


def test_options_are_read_as_in_a_config() -> None:
    run_checks("sidecars", _Keeping(), {}, options={"keep": ["a", "b"]})
    for options, words in (({"keep": 3}, r"options\.keep: must be a list"), ({"keeep": []}, "did you mean 'keep'")):
        with pytest.raises(ConfigError, match=words):
            run_checks("sidecars", _Keeping(), {}, options=options)
    with pytest.raises(ConfigError, match=r"options\.keep: .*declares no Options"):
        run_checks("sidecars", Sidecar(), {}, options={"keep": []})

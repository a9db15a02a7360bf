"""Models and manifests that nobody measures: each is bad input, said before anything is measured, and no plugin's fault."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from inputs.tiny_models import tied
from inputs.watching import at_once
from modelmerger import MergeConfig, UnmeasurableError, merge
from modelmerger.validation.language_model import CausalLanguageModel

Command = Callable[..., SimpleNamespace]

__all__ = ["tied"]


@pytest.fixture(scope="module")
def published(tied: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("published") / "merged"
    merge(
        MergeConfig(strategy="weighted", models=[{"path": str(tied.a)}, {"path": str(tied.b)}], output_path=str(output))
    )
    return output


@pytest.fixture
def copied(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "copied"))


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


OBSERVED = {"model.layers.0.x": {"plugin report_page: norm 0": 3}}
MANIFESTS: dict[str, Callable[[Any], Any]] = {
    "no config": lambda manifest: manifest.pop("config"),
    "a list for a config": lambda manifest: manifest.update(config=[]),
    "a number of models": lambda manifest: manifest["config"].update(models=5),
    "texts for models": lambda manifest: manifest["config"].update(models=["a", "b"]),
    "a text for a weight": lambda manifest: manifest["config"]["models"][0].update(weight={"a": "b"}),
    "no sources": lambda manifest: manifest.pop("sources"),
    "sources without names": lambda manifest: manifest.update(sources=[{}, 7]),
    "half of what is observed": lambda manifest: manifest.update(observed=OBSERVED),
}


@pytest.mark.parametrize("change", MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_of_another_form_is_refused_before_anything_is_measured(
    copied: Path, command: Command, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]
) -> None:
    rewrite(copied / "modelmerger.json", change)
    monkeypatch.setattr(CausalLanguageModel, "log_likelihoods", None)  # not reached

    result = command("validate", copied)

    assert result.status == 3
    line = result.err.splitlines()[-1]
    assert line.startswith(f"error: {copied}/modelmerger.json: does not say what a merge writes there, so report.html")


@pytest.mark.parametrize("claims", [{"vocab_size": 2**40}, {"num_hidden_layers": 10**7}], ids=str)
def test_a_config_that_claims_too_much_is_refused_as_a_merge_refuses_it(
    copied: Path, command: Command, claims: dict[str, int]
) -> None:
    """B16."""
    rewrite(copied / "config.json", lambda config: config.update(claims))

    with at_once():
        result = command("validate", copied)

    assert result.status == 3
    assert result.err.startswith(f"error: {copied}/config.json: ")
    assert "Is this the right config?" in result.err


def test_a_model_that_fails_as_it_is_run_is_named(copied: Path, command: Command) -> None:
    """The tokenizer gives ids that the embedding has no rows for."""

    def far(tokenizer: Any) -> None:
        tokenizer["model"]["vocab"] = {token: row + 1000 for token, row in tokenizer["model"]["vocab"].items()}
        for token in tokenizer["added_tokens"]:
            token["id"] += 1000

    rewrite(copied / "tokenizer.json", far)

    result = command("validate", copied)

    assert result.status == 3
    assert f"error: {copied}: cannot be handled: validator 'perplexity' from modelmerger " in result.err


@pytest.mark.parametrize("length", [-5, 1, "x", 1e300])
def test_what_is_no_length_is_no_window(length: Any) -> None:
    """A window of one token, or of fewer than none, would never come to an end."""
    config = SimpleNamespace(max_position_embeddings=length)
    model = SimpleNamespace(
        can_generate=lambda: True, config=SimpleNamespace(get_text_config=lambda: config, is_encoder_decoder=False)
    )

    with pytest.raises(UnmeasurableError, match=r"max_position_embeddings: .*, which is no length"):
        _ = CausalLanguageModel("m", model, object(), 1).window


def test_generation_settings_of_a_model_cannot_make_it_run_on(tied: SimpleNamespace) -> None:
    """Neither its length, nor its beams, nor that it has no token that ends a text: the settings of the validation count."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(tied.a)
    expected = CausalLanguageModel("m", model, tied.words, 1).answers(["the cat"], 3, 0, chat_template=False)
    settings: Any = GenerationConfig  # transformers leaves it untyped
    model.generation_config = settings(
        max_new_tokens=10**9, min_new_tokens=10**9, eos_token_id=None, num_beams=9, max_time=1e9, repetition_penalty=9.0
    )
    forward, calls = model.forward, []
    model.forward = lambda *given, **named: (calls.append(1), forward(*given, **named))[1]

    with at_once():
        answers = CausalLanguageModel("m", model, tied.words, 1).answers(["the cat"], 3, 0, chat_template=False)

    assert answers == expected
    assert len(calls) <= 3

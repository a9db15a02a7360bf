"""The plugins that the how-to pages write do what the pages say, in a merge by the config of the page."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from core.plugging import install
from docs.test_docs import ROOT, blocks
from inputs.tiny_models import load
from modelmerger import (
    ConfigError,
    InputError,
    MergeConfig,
    MergeReport,
    ModelMerger,
    PluginError,
    merge,
    parse_document,
    verify,
)
from safetensors.torch import load_file


@pytest.fixture
def merge_page(place: Path, install_plugins: Callable[[Path], None]) -> Callable[[str], MergeReport]:
    """Merges by the config of a page, in the page's directory."""

    def run(name: str) -> MergeReport:
        page = ROOT / f"docs/how-to/{name}.md"
        install_plugins(page)
        (text,) = blocks(page, "yaml")
        return merge(MergeConfig.from_dict(parse_document(text, source=name, format="yaml")))

    return run


def test_the_strategy_weighs_as_it_says(merge_page: Callable[[str], MergeReport], place: Path) -> None:
    report = merge_page("write-a-strategy")

    chat, formal = (load_file(place / "models" / name / "model.safetensors") for name in ("chat", "formal"))
    powers = 0.6**3, 0.4**3 * 2
    for name, merged in load_file(Path(report.output) / "model.safetensors").items():
        exact = (powers[0] * chat[name].double() + powers[1] * formal[name].double()) / sum(powers)
        torch.testing.assert_close(merged.double(), exact, rtol=2**-8, atol=1e-9)


def test_the_composition_has_every_layer_twice(distribution: Callable[..., Path], place: Path) -> None:
    page = ROOT / "docs/how-to/write-a-strategy.md"
    (source,) = [snippet for snippet in blocks(page, "python") if "compose_model" in snippet]
    install(distribution, [("strategy", "doubled", source)])
    report = merge(MergeConfig(strategy="doubled", models=[{"path": "models/chat"}], output_path="doubled"))

    model, said = load(place / report.output)
    assert said == load(place / "models/chat")[1]
    theirs, ours = (load_file(path / "model.safetensors") for path in (place / "models/chat", place / report.output))
    depth = json.loads((place / "models/chat/config.json").read_bytes())["num_hidden_layers"]
    assert len(model.model.layers) == model.config.num_hidden_layers == 2 * depth
    for name, tensor in ours.items():
        parts = name.split(".")
        if parts[1] == "layers":
            parts[2] = str(int(parts[2]) // 2)
        assert torch.equal(tensor, theirs[".".join(parts)])


def test_the_validator_finds_what_it_says(merge_page: Callable[[str], MergeReport]) -> None:
    found = merge_page("write-a-validator").validation

    assert found is not None
    (long,) = [finding for finding in found.findings if finding.metric == "long_answers"]
    tokens_at_most = found.settings["max_new_tokens"]
    assert tokens_at_most >= found.settings["long_from"] == 12
    assert long.value is not None
    assert 0 <= long.value <= 1
    assert long.threshold == 0.9
    assert long.evidence == f"{len(found.samples)} answers, long from 12 tokens on"


def test_the_plugin_obeys_its_section_and_its_options(merge_page: Callable[[str], MergeReport]) -> None:
    output = Path(merge_page("write-a-plugin").output)

    assert json.loads((output / "release.json").read_bytes()) == {"public": True, "approved_by": "Salma"}
    assert not (output / "RELEASE.md").exists()
    assert verify(output)


@pytest.mark.parametrize(
    ("shapes", "numbers", "words"),
    [
        ({"w": [3]}, 8, "has 8 bytes, and its tensors take 12"),
        ({"w": [-1, -2]}, 8, "must hold a shape for each tensor"),
        ([2], 8, "must hold a shape for each tensor"),
    ],
)
def test_the_loader_blames_the_model_and_not_itself(
    tmp_path: Path, install_plugins: Callable[[Path], None], shapes: object, numbers: int, words: str
) -> None:
    install_plugins(ROOT / "docs/how-to/write-a-plugin.md")
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/shapes.json").write_text(json.dumps(shapes))
    (tmp_path / "flat/numbers.f32").write_bytes(bytes(numbers))

    with pytest.raises(InputError, match=words):
        ModelMerger(MergeConfig(strategy="weighted", models=[{"path": str(tmp_path / "flat")}])).load_models()


@pytest.mark.parametrize("prompts", [[], ["?"]])
def test_the_validator_runs_by_default_where_there_are_prompts(
    prompts: list[str], install_plugins: Callable[[Path], None]
) -> None:
    install_plugins(ROOT / "docs/how-to/write-a-validator.md")

    validation = {"test_prompts": prompts, "thresholds": {"long_answers": 0.5}}

    if prompts:
        MergeConfig(strategy="weighted", models=[{"path": "a"}], validation=validation)
    else:
        with pytest.raises(ConfigError, match="no metric is named 'long_answers'"):
            MergeConfig(strategy="weighted", models=[{"path": "a"}], validation=validation)


def test_a_key_that_two_validators_declare_is_refused(
    distribution: Callable[..., Path], install_plugins: Callable[[Path], None]
) -> None:
    install_plugins(ROOT / "docs/how-to/write-a-validator.md")
    source = (
        "from my_package.long_answers import Options\nfrom modelmerger import hookimpl\nmetrics = {'other': 'lower'}\n"
    )
    source += "@hookimpl\ndef validate_model(): return []\n"
    distribution("other", "1.0", "[modelmerger.validators]\nother = other_validator\n", other_validator=source)

    with pytest.raises(PluginError, match="option 'long_from' is declared twice"):
        MergeConfig(strategy="weighted", models=[{"path": "a"}], validation={"metrics": ["long_answers", "other"]})

"""The plugins that the how-to pages write do what the pages say, in a merge by the config of the page."""

import json
import re
import shutil
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
    ModelCompatibilityError,
    ModelMerger,
    PluginError,
    merge,
    parse_document,
    verify,
)
from modelmerger.testing import plan_in_memory
from safetensors.torch import load_file, save_file


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


def test_the_executor_makes_what_threads_make(merge_page: Callable[[str], MergeReport], place: Path) -> None:
    output = Path(merge_page("write-an-executor").output)
    weights = (output / "model.safetensors").read_bytes()
    models = [{"path": "./models/chat"}, {"path": "./models/formal"}]
    report = merge(MergeConfig("slerp", models, output_path=str(place / "threads")))
    assert (Path(report.output) / "model.safetensors").read_bytes() == weights
    assert "executor" not in (output / "modelmerger.json").read_text()


def test_the_plugin_obeys_its_section_and_its_options(merge_page: Callable[[str], MergeReport]) -> None:
    output = Path(merge_page("write-a-plugin").output)

    assert json.loads((output / "release.json").read_bytes()) == {"public": True, "approved_by": "Salma"}
    assert not (output / "RELEASE.md").exists()
    assert verify(output)


def test_the_view_keeps_the_layers_that_it_says(merge_page: Callable[[str], MergeReport], place: Path) -> None:
    output = Path(merge_page("write-a-view").output)

    chat, formal = (load_file(place / "models" / name / "model.safetensors") for name in ("chat", "formal"))
    merged = load_file(output / "model.safetensors")
    for name, value in merged.items():
        source = re.sub(r"(?<=layers\.)\d", lambda number: str([0, 2, 3][int(number[0])]), name)
        exact = 0.6 * chat[source].double() + 0.4 * formal[source].double()
        torch.testing.assert_close(value.double(), exact, rtol=2**-8, atol=1e-9)
    assert {name.split(".")[2] for name in merged if ".layers." in name} == {"0", "1", "2"}
    config = json.loads((output / "config.json").read_bytes())
    assert (config["num_hidden_layers"], config["layer_types"]) == (3, ["full_attention"] * 3)
    assert config["layers_of_sources"] == [0, 2, 3]
    assert verify(output)


@pytest.fixture
def moved(place: Path) -> list[int]:
    """The rows of `models/formal`, which the test gives another order: row i of what it was is this one now."""
    order = torch.randperm(1024, generator=torch.Generator().manual_seed(3)).tolist()
    source, target = (place / "models/formal").resolve(), place / "models/moved"
    shutil.copytree(source, target)
    tensors = load_file(source / "model.safetensors")
    rows = torch.empty_like(tensors["model.embed_tokens.weight"])
    rows[torch.tensor(order)] = tensors["model.embed_tokens.weight"]
    save_file({**tensors, "model.embed_tokens.weight": rows}, target / "model.safetensors", metadata={"format": "pt"})
    tokenizer = json.loads((target / "tokenizer.json").read_bytes())
    tokenizer["model"]["vocab"] = {token: order[row] for token, row in tokenizer["model"]["vocab"].items()}
    for token in tokenizer["added_tokens"]:
        token["id"] = order[token["id"]]
    (target / "tokenizer.json").write_text(json.dumps(tokenizer))
    return order


@pytest.mark.parametrize("slices", [None, 100])
def test_the_view_of_the_vocabulary_matches_rows_by_token(
    moved: list[int], place: Path, install_plugins: Callable[[Path], None], slices: int | None
) -> None:
    """Slices of 100 elements neither begin nor end with a row of 192."""
    models = [{"path": "./models/chat", "weight": 0.6}, {"path": "./models/moved", "weight": 0.4}]
    config = {"strategy": "weighted", "models": models}
    (warning,) = ModelMerger(MergeConfig(**config)).check_compatibility()
    assert "tokens stand for other rows" in str(warning)
    mixed_up = ModelMerger(MergeConfig(**config)).plan().digest

    install_plugins(ROOT / "docs/how-to/write-a-view.md")
    merger = ModelMerger(MergeConfig(**config, output_path="./merged"))
    assert merger.check_compatibility() == []
    assert merger.plan().digest != mixed_up
    if slices is None:
        merge(merger.config)
        merged = load_file(place / "merged/model.safetensors")
        assert (place / "merged/tokenizer.json").read_bytes() == (place / "models/chat/tokenizer.json").read_bytes()
    else:
        merged = plan_in_memory("weighted", list(merger.load_models().values()), weights=[0.6, 0.4]).merge(
            slice_elements=slices
        )
    chat, formal = (load_file(place / "models" / name / "model.safetensors") for name in ("chat", "formal"))
    for name, value in merged.items():
        exact = 0.6 * chat[name].double() + 0.4 * formal[name].double()
        torch.testing.assert_close(value.double(), exact, rtol=2**-8, atol=1e-9)


def test_a_vocabulary_that_does_not_fit_the_rows_is_refused(
    moved: list[int], place: Path, install_plugins: Callable[[Path], None]
) -> None:
    install_plugins(ROOT / "docs/how-to/write-a-view.md")
    path = place / "models/moved/tokenizer.json"
    tokenizer = json.loads(path.read_bytes())
    last = list(tokenizer["model"]["vocab"])[-1]
    vocabularies = [{**tokenizer["model"]["vocab"], last: row} for row in (1024, -1)]
    vocabularies.append({"new" + token: row for token, row in tokenizer["model"]["vocab"].items()})
    for vocabulary in vocabularies:
        path.write_text(json.dumps({**tokenizer, "model": {**tokenizer["model"], "vocab": vocabulary}}))
        config = MergeConfig("weighted", [{"path": "./models/chat"}, {"path": "./models/moved"}])
        with pytest.raises(ModelCompatibilityError, match="does not have a row for each token of the donor"):
            ModelMerger(config).plan()


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

"""The plugins that the how-to pages write do what the pages say, in a merge by the config of the page."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from core.plugging import install
from docs.test_docs import ROOT, blocks
from inputs.tiny_models import load
from modelmerger import (
    ConfigError,
    InputChangedError,
    InputError,
    LoadContext,
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_trimming_keeps_the_largest_elements(distribution: Callable[..., Path], dtype: torch.dtype) -> None:
    (source,) = [s for s in blocks(ROOT / "docs/how-to/write-a-strategy.md", "python") if "BINS" in s]
    install(distribution, [("strategy", "trim", source)])
    generator = torch.Generator().manual_seed(0)
    base, *models = ({"w": torch.randn(30, 40, generator=generator).to(dtype)} for _ in range(3))
    densities, weights = (0.3, 0.05), (1.0, 0.5)

    merge = plan_in_memory("trim", models, base, weights, [{"density": density} for density in densities])
    merged = merge.merge()["w"]

    expected = base["w"].double()
    for model, density, weight in zip(models, densities, weights, strict=True):
        task = model["w"].double() - base["w"].double()
        order = task.abs().float().flatten().sort(descending=True).values
        kept = task.abs().float() >= order[round(density * task.numel()) - 1]
        expected = expected + weight * task * kept
    torch.testing.assert_close(merged, expected.to(dtype), rtol=2**-7 if dtype == torch.bfloat16 else 2**-23, atol=1e-7)
    assert torch.equal(merge.merge(workers=2, slice_elements=100)["w"], merged)


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


def test_the_page_obeys_its_section_and_its_options(merge_page: Callable[[str], MergeReport]) -> None:
    output = Path(merge_page("write-companions").output)

    assert json.loads((output / "release.json").read_bytes()) == {"public": True, "approved_by": "Salma"}
    assert not (output / "release.html").exists()
    assert "release.html" not in json.loads((output / "modelmerger.json").read_bytes())["companions"]
    assert verify(output)


def test_sidecars_are_digested_and_companions_are_not(
    place: Path, install_plugins: Callable[[Path], None], distribution: Callable[..., Path]
) -> None:
    """Nor need the name of a companion be said in advance."""
    install_plugins(ROOT / "docs/how-to/write-companions.md")
    source = """
from modelmerger import hookimpl

@hookimpl
def write_companions(report):
    return {"unannounced.txt": b"found"}
"""
    install(distribution, [("plugin", "unannounced", source)])
    models = [{"path": "./models/chat"}, {"path": "./models/formal"}]
    release = {"public": False, "approved_by": None}
    merge(MergeConfig("weighted", models, output_path="./unmeasured", release=release))
    manifest = json.loads((place / "unmeasured/modelmerger.json").read_bytes())
    assert "release.html" in manifest["companions"]
    assert "unannounced.txt" not in manifest["companions"]
    assert not (place / "unmeasured/release.html").exists()

    validation = {"quick_test": True, "metrics": ["perplexity"]}
    merge(MergeConfig("weighted", models, output_path="./merged", release=release, validation=validation))
    manifest = json.loads((place / "merged/modelmerger.json").read_bytes())
    assert {"release.html", "unannounced.txt"} <= set(manifest["companions"])
    assert "release.json" in manifest["files"]
    assert "<tr><td>perplexity<td>" in (place / "merged/release.html").read_text()
    (place / "merged/release.html").write_text("other")
    assert verify("./merged")
    (place / "merged/release.json").write_text("{}")
    with pytest.raises(InputError, match=r"release\.json"):
        verify("./merged")


@pytest.mark.parametrize(
    ("hook", "name", "words"),
    [
        (
            "write_sidecars",
            "release.json",
            "release.json is written twice: by plugin 'release' .* and by plugin 'other'",
        ),
    ],
)
def test_names_that_clash_are_refused_with_both(
    place: Path,
    install_plugins: Callable[[Path], None],
    distribution: Callable[..., Path],
    hook: str,
    name: str,
    words: str,
) -> None:
    install_plugins(ROOT / "docs/how-to/write-companions.md")
    source = f"from modelmerger import hookimpl\n@hookimpl\ndef {hook}(): return {{{name!r}: b''}}\n"
    install(distribution, [("plugin", "other", source)])
    models = [{"path": "./models/chat"}, {"path": "./models/formal"}]
    config = MergeConfig(
        "weighted",
        models,
        output_path="./merged",
        release={"approved_by": "Salma"},
        validation={"quick_test": True, "metrics": ["perplexity"]},
    )

    with pytest.raises(PluginError, match=words):
        merge(config)


def test_the_loader_knows_names_of_the_team(merge_page: Callable[[str], MergeReport], place: Path) -> None:
    output = Path(merge_page("write-a-loader").output)

    models = [{"path": "./models/chat"}, {"path": "./models/formal"}]
    report = merge(MergeConfig("weighted", models, output_path="./by-path"))
    written, by_path = (directory / "model.safetensors" for directory in (output, Path(report.output)))
    assert written.read_bytes() == by_path.read_bytes()


def test_the_view_merges_the_weights_beside_the_models(merge_page: Callable[[str], MergeReport], place: Path) -> None:
    weights = {name: torch.full((3,), float(number)) for number, name in enumerate(("chat", "formal"), 1)}
    for name, weight in weights.items():
        (place / "models" / name / "scorer").mkdir()
        save_file({"w": weight}, place / "models" / name / "scorer/weights.safetensors")
    try:
        output = Path(merge_page("write-a-view").output)
    finally:  # other tests have these models too
        for name in weights:
            shutil.rmtree(place / "models" / name / "scorer")

    exact = 0.6 * weights["chat"].double() + 0.4 * weights["formal"].double()
    torch.testing.assert_close(load_file(output / "scorer/model.safetensors")["w"].double(), exact, rtol=1e-6, atol=0)
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
    notes = ModelMerger(MergeConfig(**config)).check_compatibility()
    assert "has the tokens of 'chat' in other rows" in str(notes[-1])  # the built-in plugin does as much
    built_in = ModelMerger(MergeConfig(**config)).plan().digest

    install_plugins(ROOT / "docs/how-to/write-a-view.md")
    merger = ModelMerger(MergeConfig(**config, output_path="./merged"))
    (note,) = merger.check_compatibility()
    assert "1 file left behind: tokenizer.json" in str(note)
    assert merger.plan().digest != built_in
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
    install_plugins(ROOT / "docs/how-to/write-a-loader.md")
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/shapes.json").write_text(json.dumps(shapes))
    (tmp_path / "flat/numbers.f32").write_bytes(bytes(numbers))

    with pytest.raises(InputError, match=words):
        ModelMerger(MergeConfig(strategy="weighted", models=[{"path": str(tmp_path / "flat")}])).load_models()


@pytest.mark.parametrize("file", ["shapes.json", "numbers.f32"])
def test_the_loader_follows_no_link_out_of_the_model(
    tmp_path: Path, install_plugins: Callable[[Path], None], file: str
) -> None:
    install_plugins(ROOT / "docs/how-to/write-a-loader.md")
    (flat := tmp_path / "flat").mkdir()
    (flat / "shapes.json").write_text('{"w": [1]}')
    (flat / "numbers.f32").write_bytes(bytes(4))
    (flat / file).rename(tmp_path / "outside")
    (flat / file).symlink_to(tmp_path / "outside")

    with pytest.raises(InputError, match="is a link that leads out of the model's directory"):
        ModelMerger(MergeConfig("weighted", [{"path": str(flat)}])).load_models()


def test_a_header_is_read_of_the_file_that_was_opened(tmp_path: Path) -> None:
    (source,) = [s for s in blocks(ROOT / "docs/how-to/write-a-loader.md", "python") if "def first_bytes" in s]
    exec(source, names := {})
    path = tmp_path / "numbers"
    path.write_bytes(b"head, and numbers")
    context = LoadContext()
    file = context.open_file(path)
    path.rename(tmp_path / "old")
    path.write_bytes(b"another file")

    with pytest.raises(InputChangedError, match="numbers: was 17 bytes"):
        names["first_bytes"](context, file)
    again = context.open_file(path)
    assert names["first_bytes"](context, again) == b"another file"
    assert names["first_bytes"](context, again, 7) == b"another"


@pytest.fixture
def eight_bits(tmp_path: Path, install_plugins: Callable[[Path], None]) -> Path:
    """A directory with a matrix in 8 bits and its scale, and a vector without one."""
    install_plugins(ROOT / "docs/how-to/write-a-loader.md")
    (folder := tmp_path / "small").mkdir()
    numbers = torch.arange(-120, 120, dtype=torch.int8).reshape(12, 20)
    save_file({"w": numbers, "v": torch.tensor([1.5, -2.0])}, folder / "model.safetensors")
    (folder / "scales.json").write_text('{"w": 0.375}')
    return folder


@pytest.mark.parametrize("slices", [1, 7, 1000])
def test_the_loader_scales_what_is_stored_in_8_bits(eight_bits: Path, slices: int) -> None:
    models = [eight_bits, Path(shutil.copytree(eight_bits, eight_bits.with_name("copy")))]
    merger = ModelMerger(MergeConfig("weighted", [{"path": str(model)} for model in models]))
    merged = plan_in_memory("weighted", list(merger.load_models().values()), weights=[0.5, 0.5]).merge(
        slice_elements=slices
    )

    assert {name: tensor.dtype for name, tensor in merged.items()} == {"w": torch.float32, "v": torch.float32}
    assert torch.equal(merged["w"], torch.arange(-120, 120).reshape(12, 20) * 0.375)
    assert merged["v"].tolist() == [1.5, -2.0]
    plan = merger.plan()
    assert (plan.bytes_read, plan.bytes_written > 4 * 240) == (2 * (240 + 8), True)
    (eight_bits / "scales.json").write_text('{"w": 0.5}')
    assert merger.plan().digest != plan.digest


@pytest.mark.parametrize("scales", ['{"w": 2}', '{"w": NaN}', '{"v": 0.5}', '{"other": 0.5}', '["w"]', '{"w": "0.5"}'])
def test_the_loader_refuses_scales_that_make_no_sense(eight_bits: Path, scales: str) -> None:
    (eight_bits / "scales.json").write_text(scales)

    with pytest.raises(InputError, match=r"scales.json: must hold a number for each 8-bit tensor"):
        ModelMerger(MergeConfig("weighted", [{"path": str(eight_bits)}])).load_models()


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


def test_the_command_shows_models_that_are_merges_too(
    install_plugins: Callable[[Path], None], command: Callable[..., SimpleNamespace], place: Path
) -> None:
    install_plugins(ROOT / "docs/how-to/add-a-command.md")
    models = [{"path": "models/chat"}, {"path": "models/formal", "weight": 0.5}]
    config = {"strategy": "weighted", "models": [models[1], {"merge": {"strategy": "weighted", "models": models}}]}
    (place / "nested.json").write_text(json.dumps(config))

    result = command("weights", place / "nested.json")

    assert (result.status, result.out) == (0, "0.5  models/formal\n1  a merge\n"), result.err

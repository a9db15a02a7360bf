"""The Arabic example: what ships loads, folds, and is as good as its model card says."""

import importlib
import io
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from rich.console import Console
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "dialects"
DIALECTS = ("egyptian", "gulf", "levantine", "maghrebi")
VARIETIES = (*DIALECTS, "msa")
BUILT = {"models", "merged", "__pycache__"}
MERGES = ("weighted", "sequential", "task_arithmetic", "slerp", "adapter")


def load_scripts(*names: str) -> list[ModuleType]:
    """Imports the example's scripts as `python examples/dialects/demo.py` sees them, without leaving their names."""
    stems = [path.stem for path in EXAMPLE.glob("*.py")]
    before = {stem: sys.modules.pop(stem) for stem in stems if stem in sys.modules}
    sys.path.insert(0, str(EXAMPLE))
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(EXAMPLE))
        for stem in stems:
            sys.modules.pop(stem, None)
        sys.modules.update(before)


BUILD, SCORING, REPORT, GENERATION = load_scripts("build", "scoring", "report", "generation")
(DEMO,) = load_scripts("demo")


def committed_files() -> list[Path]:
    files = [path for path in EXAMPLE.rglob("*") if path.is_file()]
    return [path for path in files if not BUILT & set(path.relative_to(EXAMPLE).parts)]


@pytest.fixture(scope="session")
def heldout() -> dict[str, list[str]]:
    sentences: dict[str, list[str]] = SCORING.read_heldout()
    return sentences


@pytest.fixture(scope="session")
def models() -> dict[str, torch.nn.Module]:
    base = AutoModelForCausalLM.from_pretrained(EXAMPLE / "base", dtype=torch.bfloat16)
    return {"base": base.eval(), **{dialect: BUILD.fold(dialect).eval() for dialect in DIALECTS}}


@pytest.fixture(scope="session")
def losses(models, heldout) -> dict[str, dict[str, float]]:
    tokenizer = AutoTokenizer.from_pretrained(EXAMPLE / "base")
    torch.set_num_threads(1)
    return {
        name: {variety: SCORING.score(model.float(), tokenizer, heldout[variety]).per_token for variety in VARIETIES}
        for name, model in models.items()
    }


def test_the_committed_example_stays_small():
    assert sum(path.stat().st_size for path in committed_files()) < 6_500_000


def test_no_file_names_a_path_of_the_machine_it_was_made_on():
    suspects = [b"/work/", b"/tmp/", b"/home/", b"/root/"]
    hits = [(path.name, s) for path in committed_files() for s in suspects if s in path.read_bytes()]
    assert hits == []


def test_the_base_loads_as_a_tied_bfloat16_qwen2(models):
    base = models["base"]
    assert type(base).__name__ == "Qwen2ForCausalLM"
    assert base.config.tie_word_embeddings
    assert base.num_parameters() == 1_772_480
    with safe_open(EXAMPLE / "base" / "model.safetensors", "pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_the_tokenizer_round_trips_every_held_out_sentence(heldout):
    tokenizer = AutoTokenizer.from_pretrained(EXAMPLE / "base")
    assert len(tokenizer) == 1024
    assert tokenizer.convert_tokens_to_ids("<|endoftext|>") == tokenizer.bos_token_id == tokenizer.pad_token_id == 0
    for sentence in (line for lines in heldout.values() for line in lines):
        assert tokenizer.decode(tokenizer.encode(sentence)) == sentence


@pytest.mark.parametrize("dialect", DIALECTS)
def test_adapters_refer_to_the_base_by_a_relative_path(dialect):
    config = json.loads((EXAMPLE / "adapters" / dialect / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "examples/dialects/base"
    assert (EXAMPLE.parents[1] / config["base_model_name_or_path"]).is_dir()
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 16, 32)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_folding_adds_the_scaled_product_of_the_factors(dialect, models):
    prefix = "base_model.model.model.layers.2.mlp.down_proj"
    with safe_open(EXAMPLE / "adapters" / dialect / "adapter_model.safetensors", "pt") as adapter:
        a = adapter.get_tensor(f"{prefix}.lora_A.weight").double()
        b = adapter.get_tensor(f"{prefix}.lora_B.weight").double()
    with safe_open(EXAMPLE / "base" / "model.safetensors", "pt") as weights:
        base = weights.get_tensor("model.layers.2.mlp.down_proj.weight").double()
    folded = models[dialect].model.layers[2].mlp.down_proj.weight.double()
    expected = base + (32 / 16) * b @ a
    assert (folded - base).abs().max() > 0.01
    torch.testing.assert_close(folded, expected, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_specialist_is_the_best_single_model_on_its_own_dialect(dialect, losses):
    by_model = {name: losses[name][dialect] for name in losses}
    assert min(by_model, key=lambda name: by_model[name]) == dialect


def test_the_base_is_the_best_single_model_on_modern_standard_arabic(losses):
    by_model = {name: losses[name]["msa"] for name in losses}
    assert min(by_model, key=lambda name: by_model[name]) == "base"


def test_losses_do_not_depend_on_padding_and_agree_with_the_loss_of_transformers(models, heldout):
    tokenizer = AutoTokenizer.from_pretrained(EXAMPLE / "base")
    model = models["gulf"].float()
    sentences = heldout["gulf"][:5]
    together = SCORING.score(model, tokenizer, sentences)
    for index, sentence in enumerate(sentences):
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(sentence)]])
        with torch.inference_mode():
            mean = float(model(input_ids=ids, labels=ids).loss)
        tokens = int(together.tokens[index])
        assert tokens == ids.shape[1] - 1
        assert float(together.nats[index]) == pytest.approx(mean * tokens, rel=1e-4)


def test_held_out_files_hold_sixty_different_arabic_sentences(heldout):
    for variety, sentences in heldout.items():
        assert len(set(sentences)) == len(sentences) >= 60, variety
        for sentence in sentences:
            assert sentence == sentence.strip() and len(sentence.split()) >= 4, sentence
            assert all("\u0600" <= ch <= "\u06ff" or ch in " .!" for ch in sentence), sentence


def test_no_sentence_is_held_out_for_two_varieties(heldout):
    every = [sentence for sentences in heldout.values() for sentence in sentences]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("merge", MERGES)
def test_merge_configurations_point_at_what_the_build_makes(merge):
    config = yaml.safe_load((EXAMPLE / f"{merge}.yaml").read_text(encoding="utf-8"))
    assert config["strategy"] == ("task_arithmetic" if merge == "adapter" else merge)
    paths = [model["path"] for model in config["models"]]
    folder = "adapters" if merge == "adapter" else "models"
    allowed = [f"examples/dialects/{folder}/{dialect}" for dialect in DIALECTS]
    assert paths == (allowed if merge != "slerp" else [p for p in allowed if p in paths])
    assert config["output_path"] == f"examples/dialects/merged/{merge}"


def test_a_sequential_merge_gives_every_specialist_the_same_share():
    config = yaml.safe_load((EXAMPLE / "sequential.yaml").read_text(encoding="utf-8"))
    shares = DEMO.sequential_shares([model["weight"] for model in config["models"]])
    assert shares == pytest.approx([1 / len(DIALECTS)] * len(DIALECTS), abs=1e-12)


def test_building_is_done_once_and_again_after_a_change(tmp_path, monkeypatch):
    sample = ("base", "gulf")
    assert [BUILD.build_model(name, tmp_path) for name in sample] == [True, True]
    assert [BUILD.build_model(name, tmp_path) for name in sample] == [False, False]
    (tmp_path / "gulf" / "model.safetensors").unlink()
    assert [BUILD.build_model(name, tmp_path) for name in sample] == [False, True]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".base.sha256", ".gulf.sha256", "base", "gulf"]
    names = {path.name for path in (tmp_path / "gulf").iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "LICENSE", "NOTICE", "README.md"}
    assert not [name for name in names if "sha256" in name]  # a merge would say of each that it was left behind
    other = tmp_path / "adapters"
    shutil.copytree(EXAMPLE / "adapters" / "egyptian", other / "gulf")
    monkeypatch.setattr(BUILD, "ADAPTERS", other)
    before = (tmp_path / "gulf" / "model.safetensors").read_bytes()
    assert [BUILD.build_model(name, tmp_path) for name in sample] == [False, True]
    assert (tmp_path / "gulf" / "model.safetensors").read_bytes() != before


def scores(*, egyptian: float, gulf: float, levantine: float, maghrebi: float, msa: float = 5.0):
    """Scores of eight sentences of ten tokens that lie 0.1 nats a token around the given losses."""
    spread = torch.tensor([0.1, -0.1] * 4, dtype=torch.float64)
    means = {"egyptian": egyptian, "gulf": gulf, "levantine": levantine, "maghrebi": maghrebi, "msa": msa}
    return {name: SCORING.Score(10 * (mean + spread), torch.full((8,), 10)) for name, mean in means.items()}


def rows(merged: float):
    specialist = dict.fromkeys(DIALECTS, 5.0)
    singles = [REPORT.Row("base", scores(egyptian=5.5, gulf=5.5, levantine=5.5, maghrebi=5.5, msa=4.0), "")]
    singles += [REPORT.Row(name, scores(**{**specialist, name: 4.0}), "") for name in DIALECTS]
    merge = REPORT.Row("task_arithmetic", scores(**dict.fromkeys(DIALECTS, merged)), "", DIALECTS)
    pair = REPORT.Row(
        "slerp", scores(**{**specialist, "egyptian": 4.1, "gulf": 4.1}), "", ("egyptian", "gulf"), "a pair"
    )
    return [*singles, merge, pair]


def printed(table) -> str:
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    console.print(table)
    return console.file.getvalue()


def test_the_table_stars_the_best_of_each_column_in_eighty_plain_columns():
    text = printed(REPORT.loss_table(rows(4.5)))
    starred = {line.split()[0]: line.count("*") for line in text.splitlines() if "*" in line and "best" not in line}
    assert starred == {"base": 1, "egyptian": 1, "gulf": 1, "levantine": 1, "maghrebi": 1, "task": 1}
    assert "slerp (2 of 4): a pair" in text
    assert all(len(line.rstrip()) <= 80 and "…" not in line for line in text.splitlines())


@pytest.mark.parametrize(
    ("merged", "said"),
    [
        (4.5, ["4 of 4 specialists", "task arithmetic beats 5", "4.50", "4.75", "+0.250", "is more than chance"]),
        (4.76, ["task arithmetic beats 1", "4.76", "-0.010"]),
    ],
)
def test_the_closing_line_follows_the_figures(merged, said):
    line = REPORT.verdict(rows(merged)).plain
    assert [part for part in said if part not in line] == []


def test_the_interval_of_a_gain_holds_its_mean_and_shrinks_to_it_when_all_sentences_gain_the_same():
    one = scores(egyptian=4, gulf=4, levantine=4, maghrebi=4)
    other = scores(egyptian=5, gulf=4, levantine=4, maghrebi=4)
    low, high = SCORING.gain_interval([one[d] for d in DIALECTS], [other[d] for d in DIALECTS])
    assert low == pytest.approx(0.25, abs=1e-9) and high == pytest.approx(0.25, abs=1e-9)
    uneven = SCORING.Score(one["gulf"].nats + torch.tensor([8.0] + [0.0] * 7), one["gulf"].tokens)
    low, high = SCORING.gain_interval([one["gulf"]], [uneven])
    assert low == 0.0 < 0.1 < high


def test_generated_text_is_printed_without_control_or_broken_characters():
    assert GENERATION.clean("كيف\x1b[2J \ufffdالحال\n\u202eاليوم") == "كيف[2J الحال اليوم"
    assert GENERATION.cut("واحد اثنان ثلاثة", complete=True) == "واحد اثنان ثلاثة"
    assert GENERATION.cut("واحد اثنان ثلا", complete=False) == "واحد اثنان …"
    assert GENERATION.cut("واحد اثنان ثلاثة", complete=True, longest=11) == "واحد اثنان …"

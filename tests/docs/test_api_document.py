"""Every snippet of the API document runs as it stands, through the old import path of the how-to page."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from docs.test_docs import ROOT, blocks
from inputs.tiny_models import make_tiny
from modelmerger import ModelCompatibilityError as OurCompatibilityError
from modelmerger import verify
from safetensors.torch import load_file, save_file

DOCUMENT = Path(__file__).parent / "data/api_document.md"
PAGE = ROOT / "docs/how-to/keep-old-imports.md"
MODELS = [
    "models/arabic_chat",
    "models/arabic_formal",
    "models/arabic_qa",
    "models/egyptian_arabic",
    "models/gulf_arabic",
    "models/levantine_arabic",
    "models/maghrebi_arabic",
    "models/arabic_base",
    "models/arabic_conversation",
    "models/arabic_instruct",
    "models/arabic_creative",
    "models/large_arabic_1",
    "models/large_arabic_2",
    "models/arabic_1",
    "models/arabic_2",
    "models/qwen2.5-3b",
    "model1",
    "model2",
    "base_model",
    "domain_model",
    "arabic_chat_model",
    "formal_model",
    "output_sft",
    "output_dpo",
]


def snippets() -> dict[str, str]:
    """Heading → snippet."""
    found = re.findall(r"^#{2,4} ([^\n]*)\n\n```python\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return dict(found)


SNIPPETS = snippets()


pytestmark = pytest.mark.usefixtures("tokenizers_here")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    return make_tiny(tmp_path_factory.mktemp("tiny"), tied=True)


@pytest.fixture
def project(tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory is a project of the document's layout, with the page's file in it and every model that it names."""
    for number, name in enumerate(MODELS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to((tiny.a, tiny.b, tiny.base)[number % 3])
    (tmp_path / "models/arabic_base").unlink()
    (tmp_path / "models/arabic_base").symlink_to(tiny.base)
    (tmp_path / "src/training").mkdir(parents=True)
    (tmp_path / "src/training/model_merger.py").write_text(blocks(PAGE, "python")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name == "src" or name.startswith("src.")]:
        del sys.modules[name]


def run(heading: str, **surroundings: Any) -> dict[str, Any]:
    """Executes a snippet among the names that it takes from its surroundings."""
    old = importlib.import_module("src.training.model_merger")
    names = {"ModelMerger": old.ModelMerger, "MergeConfig": old.MergeConfig, **surroundings}
    exec(compile(SNIPPETS[heading], heading, "exec"), names)
    return names


def test_every_snippet_of_the_document_is_run_here() -> None:
    source = Path(__file__).read_text()
    assert [heading for heading in SNIPPETS if f'"{heading}"' not in source] == []


@pytest.mark.parametrize(
    "heading",
    ["1. Weighted Merging", "2. Sequential Merging", "3. Task Arithmetic", "4. SLERP (Spherical Linear Interpolation)"],
)
def test_configs_of_the_strategies_merge(project: Path, heading: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = run(heading)["config"]
    config.options["log_level"] = "ERROR"

    found = run("`merge()`", config=config)

    assert found["merged_model"].generate(torch.tensor([[3, 4]]), max_new_tokens=3).shape[0] == 1
    assert capsys.readouterr().out == "Successfully merged 2 models\n"
    assert found["merger"].tokenizer("مرحبا")["input_ids"]


def test_basic_model_merging(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("Basic Model Merging")

    assert capsys.readouterr().out == "Merging completed successfully!\n"
    chat, questions = (
        load_file(project / name / "model.safetensors") for name in ("models/arabic_chat", "models/arabic_qa")
    )
    merged = load_file(project / "models/merged_arabic/model.safetensors")
    for name, values in merged.items():
        assert torch.equal(values, (0.6 * chat[name].double() + 0.4 * questions[name].double()).float()), name


ANSWERED = {"perplexity", "bits_per_byte", "dialect_match"}
COMPREHENSIVE = {
    *("perplexity", "bits_per_byte", "coherence", "repetition"),
    *("fluency", "arabic_letters", "broken_characters"),
}


@pytest.mark.parametrize(
    ("heading", "model", "output", "prompts", "metrics"),
    [
        ("MergeConfig Parameters", "config", "merged_arabic", 2, ANSWERED),
        ("Dialect Model Merging", "multi_dialect_model", "multi_dialect_arabic", 4, ANSWERED),
        ("Task Arithmetic for Capability Control", "casual_model", "casual_arabic_chat", 2, ANSWERED),
        ("Advanced Configuration", "balanced_model", "balanced_arabic", 3, COMPREHENSIVE),
        ("Memory Optimization", "config", "merged_large_arabic", 0, None),
        ("Speed Optimization", "config", "merged_arabic", 0, {"perplexity", "bits_per_byte"}),
    ],
)
def test_examples_merge_publish_and_validate(
    project: Path, heading: str, model: str, output: str, prompts: int, metrics: set[str] | None
) -> None:
    names = run(heading)
    if model == "config":
        names = run("`merge()`", config=names["config"])
        model = "merged_model"

    assert names[model].generate(torch.tensor([[3, 4]]), max_new_tokens=3).shape[0] == 1
    assert verify(project / "models" / output)
    wanted = names["config"].options.get("torch_dtype", "float32")
    assert {str(p.dtype) for p in names[model].parameters()} == {f"torch.{wanted}"}
    if heading == "Advanced Configuration":
        assert names[model].model.gradient_checkpointing
        assert names[model].config.use_cache is False
    report = names["merger"].validation_report
    if metrics is None:
        assert report is None
    else:
        assert report.metrics.keys() == metrics
        assert len(report.samples) == prompts
        unmeasured = {metric for metric, value in report.metrics.items() if value is None}
        assert unmeasured <= {"dialect_match", "repetition"}  # tiny models say nothing that has a dialect
        assert (project / "models" / output / "validation.json").exists()


def test_peft_adapter_merging(project: Path) -> None:
    """The update of the merged adapter is the weighted sum of the updates, on the base that the document names."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    updates = []
    for seed, name in enumerate(("arabic_chat_lora", "arabic_qa_lora")):
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained("models/qwen2.5-3b")
        adapter = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False))
        adapter.save_pretrained(f"adapters/{name}")
        updates.append(update_of(adapter))

    merged = run("PEFT Adapter Merging")["merged_adapter"]

    assert isinstance(merged, PeftModel)
    assert merged.generate(input_ids=torch.tensor([[3, 4]]), max_new_tokens=3, do_sample=False).shape[0] == 1
    written = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained("models/qwen2.5-3b"), "adapters/merged_arabic_lora"
    )
    for found in (update_of(merged), update_of(written)):
        torch.testing.assert_close(found, 0.6 * updates[0] + 0.4 * updates[1], rtol=1e-4, atol=1e-6)


def update_of(adapter: Any) -> torch.Tensor:
    """What the adapter adds to one matrix of its base, float64."""
    layer = adapter.base_model.model.model.layers[0].self_attn.q_proj
    update: torch.Tensor = layer.get_delta_weight("default").double().detach()
    return update


def test_compatibility_checking(project: Path) -> None:
    """The document shows what the check does; ours finds the same, and its error is one that the document's name catches."""
    import json
    import os

    names = run("Compatibility Checking", os=os, json=json)
    ours = importlib.import_module("src.training.model_merger")
    (project / "wider").mkdir()
    config = json.loads((project / "model1/config.json").read_text())
    (project / "wider/config.json").write_text(json.dumps(config | {"vocab_size": 7}))
    tensors = load_file(project / "model1/model.safetensors")
    resized = {name: tensor[:7].clone() if len(tensor) == 90 else tensor for name, tensor in tensors.items()}
    save_file(resized, project / "wider/model.safetensors", metadata={"format": "pt"})
    (project / "bare").mkdir()
    (project / "bare/model.safetensors").write_bytes((project / "model1/model.safetensors").read_bytes())
    fitting = [{"path": "./model1", "weight": 0.7}, {"path": "./model2", "weight": 0.3}]
    for check, error, words in (
        (names["check_model_compatibility"], names["ModelCompatibilityError"], "Vocabulary size mismatch"),
        (
            ours.check_model_compatibility,
            ours.ModelCompatibilityError,
            "the vocabulary was resized: 7 rows here, 90 in",
        ),
    ):
        check(fitting)
        with pytest.raises(error, match=words):
            check([*fitting, {"path": "./wider"}])
        with pytest.raises(error, match="Config not found"):
            check([{"path": "./bare"}])
    assert ours.ModelCompatibilityError is OurCompatibilityError


@pytest.mark.parametrize("short_of_memory", [False, True])
def test_memory_management(project: Path, monkeypatch: pytest.MonkeyPatch, short_of_memory: bool) -> None:
    """Without CUDA nothing breaks; and who catches that a GPU is full gets the model from the CPU."""
    config = run("1. Weighted Merging")["config"]
    old = importlib.import_module("src.training.model_merger")
    calls: list[dict[str, Any]] = []
    merge = old.ModelMerger.merge

    def full_at_first(self: Any) -> Any:
        calls.append(dict(self.config.options))
        if short_of_memory and len(calls) == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return merge(self)

    monkeypatch.setattr(old.ModelMerger, "merge", full_at_first)

    model = run("Memory Management")["merge_with_memory_management"](config)

    assert model.generate(torch.tensor([[3, 4]]), max_new_tokens=3).shape[0] == 1
    assert len(calls) == 1 + short_of_memory
    assert calls[-1].get("device_map") == ("cpu" if short_of_memory else None)


def fake_module(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    parent = name.rpartition(".")[0]
    for module in (parent, name):
        if module not in sys.modules and module != "src.training":
            monkeypatch.setitem(sys.modules, module, ModuleType(module))
    vars(sys.modules[name]).update(contents)


def test_with_training_pipeline(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Trainer:
        def __init__(self, config: SimpleNamespace) -> None:
            self.config = config

        def train(self, dataset: Any) -> Any:
            return dataset

    importlib.import_module("src.training.model_merger")
    fake_module(monkeypatch, "src.training.sft_trainer", SFTTrainer=Trainer)
    fake_module(monkeypatch, "src.training.dpo_trainer", DPOTrainer=Trainer)

    run(
        "With Training Pipeline",
        sft_config=SimpleNamespace(output_dir="./output_sft"),
        dpo_config=SimpleNamespace(output_dir="./output_dpo"),
        sft_dataset=[],
        preference_dataset=[],
    )

    assert verify(project / "models/final_arabic_model")


def test_with_evaluation(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Evaluator:
        def __init__(self, model: Any, tokenizer: Any) -> None:
            self.logits = model(**tokenizer("مرحبا", return_tensors="pt")).logits

        def evaluate_arabic_capabilities(self, metrics: list[str]) -> dict[str, bool]:
            return {metric: bool(self.logits.isfinite().all()) for metric in metrics}

    fake_module(monkeypatch, "src.evaluation.model_evaluator", ModelEvaluator=Evaluator)
    config = run("1. Weighted Merging")["config"]
    surroundings = run("`merge()`", config=config)
    tokenizer = surroundings["merger"].tokenizer
    capsys.readouterr()

    results = run("With Evaluation", config=config, tokenizer=tokenizer)["results"]

    assert set(results.values()) == {True}
    assert capsys.readouterr().out == f"Merged model evaluation: {results}\n"


def test_monitoring_and_logging(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = run("Monitoring and Logging")

    said = [record.getMessage() for record in caplog.records if record.name == "modelmerger"]
    assert any(line.startswith("merging ") for line in said)
    assert any(line.startswith("published ") for line in said)
    assert names["merged_model"] is not None
    assert verify(project / "merged_model")

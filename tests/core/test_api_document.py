"""The validation snippets of the API description on tiny models under the paths that they name.

Left out is what is not available yet: merge_adapters, and with it the peft_config of the first.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from inputs.tiny_models import arabic
from modelmerger import MergeConfig, ModelMerger

__all__ = ["arabic"]
PARAMETERS = """
config = MergeConfig(
    # Merging strategy
    strategy="weighted",  # "weighted", "sequential", "task_arithmetic", "slerp"

    # Model specifications
    models=[
        {
            "path": "./models/arabic_chat",
            "weight": 0.6,
            "name": "chat_specialist"
        },
        {
            "path": "./models/arabic_formal",
            "weight": 0.4,
            "name": "formal_specialist"
        }
    ],

    # Output configuration
    output_path="./models/merged_arabic",

    # Advanced options
    options={
        "normalize_weights": True,
        "preserve_tokenizer": True,
        "merge_embeddings": True,
        "merge_lm_head": True,
        "torch_dtype": "float16",
        "device_map": "auto"
    },

    # Validation options
    validation={
        "run_tests": True,
        "test_prompts": [
            "مرحبا، كيف حالك؟",
            "اشرح لي مفهوم الذكاء الاصطناعي"
        ],
        "quick_test": False,
        "sample_size": 100
    }
)
"""
DIALECTS = """
# Merge multiple Arabic dialect models
config = MergeConfig(
    strategy="weighted",
    models=[
        {"path": "./models/egyptian_arabic", "weight": 0.3, "name": "egyptian"},
        {"path": "./models/gulf_arabic", "weight": 0.3, "name": "gulf"},
        {"path": "./models/levantine_arabic", "weight": 0.2, "name": "levantine"},
        {"path": "./models/maghrebi_arabic", "weight": 0.2, "name": "maghrebi"}
    ],
    output_path="./models/multi_dialect_arabic",
    options={
        "normalize_weights": True,
        "preserve_tokenizer": True
    },
    validation={
        "run_tests": True,
        "test_prompts": [
            "إزيك؟",      # Egyptian
            "شلونك؟",      # Gulf
            "كيفك؟",       # Levantine
            "كيداير؟"      # Maghrebi
        ]
    }
)

merger = ModelMerger(config)
multi_dialect_model = merger.merge()
"""
CAPABILITIES = """
# Remove formal language bias while enhancing conversational ability
config = MergeConfig(
    strategy="task_arithmetic",
    base_model="./models/arabic_base",
    models=[
        {
            "path": "./models/arabic_conversation",
            "weight": 1.2,
            "operation": "add",
            "name": "conversation_boost"
        },
        {
            "path": "./models/arabic_formal",
            "weight": -0.3,
            "operation": "subtract",
            "name": "formality_reduction"
        }
    ],
    output_path="./models/casual_arabic_chat",
    validation={
        "run_tests": True,
        "test_prompts": [
            "مرحبا صديقي، كيف الأحوال؟",
            "حدثني عن يومك"
        ]
    }
)

merger = ModelMerger(config)
casual_model = merger.merge()
"""
ADVANCED = """
# Advanced merging with custom options
config = MergeConfig(
    strategy="slerp",
    models=[
        {"path": "./models/arabic_instruct", "weight": 0.7},
        {"path": "./models/arabic_creative", "weight": 0.3}
    ],
    output_path="./models/balanced_arabic",

    # Advanced options
    options={
        "torch_dtype": "float16",
        "device_map": "auto",
        "low_memory_mode": True,
        "sequential_loading": True,
        "gradient_checkpointing": True,
        "use_safetensors": True,

        # SLERP-specific
        "interpolation_factor": 0.5,
        "normalize_before_slerp": True,
        "epsilon": 1e-8
    },

    # Comprehensive validation
    validation={
        "run_tests": True,
        "test_prompts": [
            "اكتب قصة قصيرة عن الصداقة",
            "اشرح خطوات حل مسألة رياضية",
            "ما هو رأيك في التكنولوجيا الحديثة؟"
        ],
        "quick_test": False,
        "sample_size": 200,
        "test_batch_size": 4,
        "metrics": ["perplexity", "coherence", "fluency"]
    }
)

merger = ModelMerger(config)
balanced_model = merger.merge()
"""
SPEED = """
# Speed-optimized merging
config = MergeConfig(
    strategy="weighted",
    models=[
        {"path": "./models/arabic_1", "weight": 0.5},
        {"path": "./models/arabic_2", "weight": 0.5}
    ],
    output_path="./models/merged_arabic",

    options={
        "use_safetensors": True,
        "torch_compile": True,
        "parallel_loading": True,
        "cache_models": True
    },

    validation={
        "quick_test": True,
        "sample_size": 50
    }
)
"""


@pytest.fixture
def place(arabic: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory in which the document's paths exist."""
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lay_out(snippet: str, arabic: SimpleNamespace) -> None:
    """Links under the paths of the models that a snippet names, in turn to the tiny models."""
    names: dict[str, Any] = {}
    exec(snippet.replace("MergeConfig(", "dict(").split("merger =")[0], names)
    paths = [model["path"] for model in names["config"]["models"]]
    for i, path in enumerate(dict.fromkeys(paths)):
        Path(path).symlink_to((arabic.a, arabic.b)[i % 2])
    if base := names["config"].get("base_model"):
        Path(base).symlink_to(arabic.base)


def ran(snippet: str, arabic: SimpleNamespace) -> ModelMerger:
    lay_out(snippet, arabic)
    names: dict[str, Any] = {"MergeConfig": MergeConfig, "ModelMerger": ModelMerger}
    exec(snippet, names)
    if "merger" not in names:
        names["merger"] = ModelMerger(names["config"])
        names["merger"].merge()
    merger: ModelMerger = names["merger"]
    return merger


@pytest.mark.parametrize(
    ("snippet", "prompts", "metrics"),
    [
        (PARAMETERS, 2, {"perplexity", "bits_per_byte", "dialect_match"}),
        (DIALECTS, 4, {"perplexity", "bits_per_byte", "dialect_match"}),
        (CAPABILITIES, 2, {"perplexity", "bits_per_byte", "dialect_match"}),
        (
            ADVANCED,
            3,
            {
                *("perplexity", "bits_per_byte", "coherence", "repetition"),
                *("fluency", "arabic_letters", "broken_characters"),
            },
        ),
        (SPEED, 0, {"perplexity", "bits_per_byte"}),
    ],
    ids=["parameters", "dialects", "capabilities", "advanced", "speed"],
)
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # torch's own, when it imports its compiler
def test_the_validation_snippets_run(
    place: Path, arabic: SimpleNamespace, snippet: str, prompts: int, metrics: set[str]
) -> None:
    report = ran(snippet, arabic).validation_report
    assert report is not None
    assert report.metrics.keys() == metrics
    assert len(report.samples) == prompts
    assert {metric for metric, value in report.metrics.items() if value is None} <= {"dialect_match", "repetition"}

"""What transformers 4 wrote and transformers 5 writes of the same model says the same."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modelmerger.testing import MemoryCheckpoint
from modelmerger_plugins.compatibility.configs import compare_configs

OLD: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "data/configs_of_transformers_4.json").read_text()
)  # as transformers 4.57.3 saves them
SETTINGS: Any = SimpleNamespace(composes=False, options=SimpleNamespace(missing_tensors="error"))


def said(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    pair = [MemoryCheckpoint(name, {}, config) for name, config in (("a", ours), ("b", theirs))]
    return [problem.message for problem in compare_configs(pair[0], pair[1], SETTINGS)]


def saved_today(kind: str) -> dict[str, Any]:
    from transformers import AutoConfig

    told = json.loads(json.dumps(OLD[kind]))
    return json.loads(AutoConfig.for_model(kind).from_dict(told).to_json_string())


@pytest.mark.parametrize("kind", OLD)
def test_a_model_saved_anew_by_another_version_is_the_same(kind: str) -> None:
    new = saved_today(kind)

    assert new["transformers_version"] != OLD[kind]["transformers_version"]
    assert said(OLD[kind], new) == []
    assert said(new, OLD[kind]) == []


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("llama", "rope_theta", 1e4),
        ("qwen2", "rope_scaling", None),
        ("gemma3", "text_config", {**OLD["gemma3"]["text_config"], "rope_local_base_freq": 2e4}),
        ("gpt_neox", "partial_rotary_factor", 0.5),
        ("llava", "text_config", {**OLD["llava"]["text_config"], "rms_norm_eps": 0.5}),
        ("whisper", "decoder_attention_heads", 8),
        ("t5", "d_kv", 32),
        ("bert", "hidden_act", "relu"),
    ],
)
def test_a_change_is_seen_across_versions(kind: str, key: str, value: Any) -> None:
    assert len(said(OLD[kind] | {key: value}, saved_today(kind))) == 1

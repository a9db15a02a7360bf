"""What `ModelMerger.merge()` returns of adapters without output_path: the same as with it, in memory where it is whole."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modelmerger import MergeConfig, ModelMerger

from tests.core.test_run_in_memory import assert_same


@pytest.mark.parametrize(
    ("section", "options", "in_memory"),
    [
        ({"merge_adapters": False}, {}, True),
        ({"merge_adapters": True}, {"preserve_base_model": False}, True),
        ({"merge_adapters": True}, {}, False),
    ],
    ids=["each folded", "merged and folded", "an adapter"],
)
def test_adapters_are_returned_the_same(
    section: dict[str, Any],
    options: dict[str, Any],
    in_memory: bool,
    bases: SimpleNamespace,
    three: list[Path],
    tmp_path: Path,
) -> None:
    config: dict[str, Any] = {"strategy": "weighted", "models": [{"path": str(path)} for path in three[:2]]}
    config |= {"peft_config": section | {"base_model_path": str(bases.qwen2)}, "options": options}
    merger = ModelMerger(MergeConfig(**config))
    model = merger.merge()
    expected = ModelMerger(MergeConfig(**config, output_path=str(tmp_path / "published"))).merge()

    assert merger.merge_report is not None
    assert merger.merge_report.in_memory is in_memory
    assert type(model).__name__ == ("Qwen2ForCausalLM" if in_memory else "PeftModel")
    if in_memory:
        assert_same(model, expected)
    else:
        states = model.state_dict(), expected.state_dict()
        assert states[0].keys() == states[1].keys()
        assert all((states[0][name] == tensor).all() for name, tensor in states[1].items())

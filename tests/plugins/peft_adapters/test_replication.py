"""Adapters of a base whose layers are repeated, against PEFT, which repeats them in the model."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from inputs.tiny_models import load
from modelmerger import InputError, MergeConfig, ModelCompatibilityError, ModelMerger, merge, verify
from peft import PeftModel
from plugins.peft_adapters.tiny_adapters import (
    distance,
    llama,
    load_base,
    make_adapter,
    make_base,
    merged,
    qwen2,
)

REPEATED = [[0, 2], [0, 1], [1, 2]]


def five_layers(**settings: Any) -> dict[str, Any]:
    return {"layer_replication": REPEATED, **settings}


def by_peft(base: Path, adapter: Path, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Each layer with its own update; PEFT's merge_and_unload adds those of all copies to the one weight they share."""
    model = PeftModel.from_pretrained(load_base(base), adapter).base_model.model
    weights, layers = load_base(base).state_dict(), [i for first, end in REPEATED for i in range(first, end)]
    found = {}
    for name in names:
        in_base = re.sub(r"(?<=layers\.)\d+", lambda number: str(layers[int(number[0])]), name)
        module, _, leaf = name.rpartition(".")
        update = getattr(model.get_submodule(module), "get_delta_weight", None) if leaf == "weight" else None
        found[name] = (weights[in_base] + (update("default") if update else 0)).detach()
    return found


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(12).view(2, 6)).logits
    return found


@pytest.mark.parametrize("make", [qwen2, llama])
def test_the_folded_model_is_what_peft_makes_and_has_as_many_layers(tmp_path: Path, make: Any) -> None:
    base = make_base(tmp_path / "base", make)
    adapter = make_adapter(tmp_path / "adapter", base, 1, **five_layers())
    peft = PeftModel.from_pretrained(load_base(base), adapter).eval()
    if hasattr(peft.config, "layer_types"):  # PEFT forgets them, and its model of Qwen2 cannot run
        peft.config.layer_types = ["full_attention"] * 4
    wanted = logits(peft)

    found = merged(tmp_path / "merged", adapter)

    assert distance(found, by_peft(base, adapter, found)) < 1e-6
    config = json.loads((tmp_path / "merged/config.json").read_text())
    assert config["num_hidden_layers"] == 4
    assert len(config.get("layer_types") or range(4)) == 4
    model, said = load(tmp_path / "merged")
    assert said == load(base)[1]
    torch.testing.assert_close(logits(model), wanted, rtol=1e-4, atol=1e-5)
    verify(tmp_path / "merged")


def test_two_of_the_same_layers_merge_into_an_adapter_that_repeats_them(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", qwen2)
    adapters = [make_adapter(tmp_path / name, base, i, **five_layers(r=2 + i)) for i, name in enumerate(("a", "b"))]
    models: list[dict[str, Any]] = [
        {"path": str(adapters[0]), "weight": 0.75},
        {"path": str(adapters[1]), "weight": 0.25},
    ]
    folded = merged(tmp_path / "folded", *models, peft_config={"merge_adapters": False})

    merger = ModelMerger(
        MergeConfig("weighted", models, output_path=str(tmp_path / "merged"), peft_config={"merge_adapters": True})
    )
    model = merger.merge()

    assert json.loads((tmp_path / "merged/adapter_config.json").read_text())["layer_replication"] == REPEATED
    assert isinstance(model, PeftModel)
    assert len(model.base_model.model.model.layers) == 4
    assert distance(by_peft(base, tmp_path / "merged", folded), folded) < 1e-5
    whole = merged(
        tmp_path / "whole",
        *models,
        peft_config={"merge_adapters": True},
        options={"preserve_base_model": False},
    )
    assert distance(whole, folded) < 1e-5


@pytest.mark.parametrize(
    "ranges", [[[0, 3]], [[1, 1]], [[0, 1], [1]], [[-1, 1]], [[False, True]], [[0, 2]] * 5001, "0-2", {"0": 2}]
)
def test_ranges_that_the_base_does_not_have_are_refused(tmp_path: Path, ranges: Any) -> None:
    base = make_base(tmp_path / "base", qwen2)
    adapter = make_adapter(tmp_path / "adapter", base, 1)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"layer_replication": ranges}))

    with pytest.raises(InputError, match=r"where pairs \[from, to\) of the base's layers 0 to 2 are due"):
        merged(tmp_path / "merged", adapter)


def test_other_layers_than_those_of_the_base_model_or_of_another_adapter_are_said(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", qwen2)
    one = make_adapter(tmp_path / "one", base, 1, **five_layers())
    two = make_adapter(tmp_path / "two", base, 2)
    models = [{"path": str(one)}, {"path": str(two)}]
    with pytest.raises(ModelCompatibilityError, match="do not repeat the same layers"):
        merge(MergeConfig("weighted", models, output_path=str(tmp_path / "m"), peft_config={"merge_adapters": True}))
    with pytest.raises(ModelCompatibilityError, match=r"Give peft_config\.base_model_path instead"):
        merge(MergeConfig("task_arithmetic", models[:1], base_model=str(base), output_path=str(tmp_path / "m")))
    assert not (tmp_path / "m").exists()

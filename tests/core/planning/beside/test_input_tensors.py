"""What becomes of every tensor of every source is in the report and in the manifest."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import random_tensors, write_model
from modelmerger import MergeConfig, merge

SHAPES = {
    "model.embed_tokens.weight": (6, 4),
    "model.layers.0.mlp.weight": (4, 4),
    "model.layers.1.mlp.weight": (4, 4),
    "lm_head.weight": (6, 4),
}
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "vocab_size": 6}


def write(path: Path, seed: int, tied: bool = False, **more: tuple[int, ...]) -> None:
    tensors = random_tensors(seed, torch.float32, SHAPES | {name.replace("__", "."): s for name, s in more.items()})
    if tied:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["position_ids"] = torch.arange(3)
    write_model(path, tensors, CONFIG | {"tie_word_embeddings": tied})


def taken(folder: Path, models: list[dict[str, Any]], strategy: str = "weighted", **options: Any) -> dict[str, Any]:
    """The inventory of the report, which is that of the manifest."""
    given = {"check_loading": False, "overwrite": True, **options}
    config = {"strategy": strategy, "models": models, "output_path": str(folder / "merged"), "options": given}
    report = merge(MergeConfig(**config))
    found: dict[str, Any] = report.as_dict()["input_tensors"]
    assert json.loads((folder / "merged/modelmerger.json").read_text())["input_tensors"] == found
    return found


def fate(merged: int, copied: tuple[str, ...] = (), left: tuple[str, ...] = ()) -> dict[str, Any]:
    names = {"copied": list(copied), "left": list(left)}
    return {"merged": merged, "copied": len(copied), "left": len(left), "names": names}


def test_each_tensor_is_merged_carried_or_left(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, visual__weight=(2, 2))
    write(tmp_path / "b", 2, mtp__0__weight=(3,), mtp__1__weight=(3,))
    models = [{"path": str(tmp_path / name)} for name in "ab"]

    assert taken(tmp_path, models, missing_tensors="donor") == {
        "a": fate(4, ("position_ids", "visual.weight")),
        "b": fate(4, ("position_ids",), ("mtp.0.weight", "mtp.1.weight")),
    }
    assert taken(tmp_path, models, missing_tensors="union") == {
        "a": fate(4, ("position_ids", "visual.weight")),
        "b": fate(4, ("mtp.0.weight", "mtp.1.weight", "position_ids")),
    }


def test_of_a_model_of_weight_zero_all_is_left_but_what_is_compared(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / name, ord(name))
    models = [{"path": str(tmp_path / "a"), "weight": 1}, {"path": str(tmp_path / "b"), "weight": 0}]

    found = taken(tmp_path, models)

    assert (found["a"]["merged"], found["a"]["left"]) == (4, 0)
    assert (found["b"]["merged"], found["b"]["left"]) == (0, 5)


def test_layers_that_are_not_taken_are_left_and_those_of_merges_within_count(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / name, ord(name))
    paths = {name: str(tmp_path / name) for name in "abc"}
    inner = {"strategy": "weighted", "models": [{"path": paths["b"]}, {"path": paths["c"]}]}
    stacked = [{"path": paths["a"], "layers": [0, 1]}, {"merge": inner, "layers": [1, 2]}]

    found = taken(tmp_path, stacked, "stack")

    embedding, first, second, head = SHAPES
    assert found == {
        "a": fate(0, (embedding, first), (head, second, "position_ids")),
        "b": fate(2, ("position_ids",), (embedding, first)),
        "c": fate(2, ("position_ids",), (embedding, first)),
    }


def test_a_head_that_is_the_embedding_is_merged_with_it(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, tied=True)
    write(tmp_path / "b", 2, tied=True)
    (tmp_path / "a/model.safetensors").unlink()
    tensors = random_tensors(1, torch.float32, {n: s for n, s in SHAPES.items() if n != "lm_head.weight"})
    write_model(tmp_path / "a", tensors | {"position_ids": torch.arange(3)}, CONFIG | {"tie_word_embeddings": True})

    found = taken(tmp_path, [{"path": str(tmp_path / name)} for name in "ab"])

    assert found == {"a": fate(3, ("position_ids",)), "b": fate(4, ("position_ids",))}


def test_of_many_names_the_first_are_told(tmp_path: Path) -> None:
    write(tmp_path / "a", 1)
    write(tmp_path / "b", 2, **{f"more__{i:03d}": (1,) for i in range(60)})

    found = taken(tmp_path, [{"path": str(tmp_path / name)} for name in "ab"], missing_tensors="donor")["b"]

    assert found["left"] == 60
    assert found["names"]["left"][:2] == ["more.000", "more.001"]
    assert found["names"]["left"][49:] == ["more.049", "and 10 more"]


@pytest.mark.parametrize("prefix", ["", "model."])
def test_names_are_those_of_the_files(tmp_path: Path, prefix: str) -> None:
    write(tmp_path / "a", 1)
    write(tmp_path / "b", 2)
    path = tmp_path / "b/model.safetensors"
    from safetensors.torch import load_file, save_file

    renamed = {(n.removeprefix(prefix) if prefix else n): t for n, t in load_file(path).items()}
    renamed["extra.weight"] = torch.ones(2)
    save_file(renamed, path)

    found = taken(tmp_path, [{"path": str(tmp_path / name)} for name in "ab"], missing_tensors="donor")

    assert found["b"] == fate(4, ("position_ids",), ("extra.weight",))

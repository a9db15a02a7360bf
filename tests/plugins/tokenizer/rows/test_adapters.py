"""Vocabularies of adapters: their base's, unless they hold the embedding."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from modelmerger import MergeConfig, ModelCompatibilityError, ModelMerger, merge
from safetensors.torch import save_file

from tests.plugins.tokenizer.rows.vocabularies import COLUMNS, EMBEDDING, fast, listed, tensors_of, write

BASE = listed("<unk> <s> </s> a b c d e f g h i")
MOVED = {token: row for row, token in enumerate(reversed(BASE))}


def write_adapter(path: Path, *, embedding: bool) -> Path:
    path.mkdir()
    name, rows = ("embed_tokens", 12) if embedding else ("layers.0.mlp", 5)
    shapes = ((2, rows), (COLUMNS, 2)) if embedding else ((2, COLUMNS), (rows, 2))
    ends = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A.weight", "lora_B.weight")
    factors = {
        f"base_model.model.model.{name}.{end}": torch.ones(shape) for end, shape in zip(ends, shapes, strict=True)
    }
    save_file(factors, path / "adapter_model.safetensors")
    told = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": [name.rpartition(".")[2]]}
    (path / "adapter_config.json").write_text(json.dumps(told))
    return path


def config_of(folder: Path, merge_adapters: bool = False, **options: Any) -> dict[str, Any]:
    return {
        "strategy": "weighted",
        "models": [{"path": str(folder / "adapter")}, {"path": str(folder / "other")}],
        "peft_config": {"base_model_path": str(folder / "base"), "merge_adapters": merge_adapters},
        "output_path": str(folder / "merged"),
        "options": {"check_loading": False, **options},
    }


@pytest.mark.parametrize("embedding", [True, False])
def test_an_adapters_own_tokenizer_counts_only_with_the_embedding(tmp_path: Path, embedding: bool) -> None:
    write(tmp_path / "base", 1, BASE, 12, dtype=torch.float32)
    write(tmp_path / "other", 2, BASE, 12, dtype=torch.float32)
    write_adapter(tmp_path / "adapter", embedding=embedding)
    (tmp_path / "adapter/tokenizer.json").write_text(fast(MOVED))

    merge(MergeConfig(**config_of(tmp_path)))

    found, base, other = (tensors_of(tmp_path / name)[EMBEDDING] for name in ("merged", "base", "other"))
    if embedding:  # rows of the donor, the base, in which the adapter's tokens are turned around
        torch.testing.assert_close(found, ((base + 2).flip(0) + other) / 2)
    else:
        torch.testing.assert_close(found, (base + other) / 2)


def test_beside_an_embedding_a_template_alone_is_no_vocabulary(tmp_path: Path) -> None:
    write(tmp_path / "base", 1, BASE, 12, dtype=torch.float32)
    write(tmp_path / "other", 2, MOVED, 12, dtype=torch.float32)
    write_adapter(tmp_path / "adapter", embedding=True)
    (tmp_path / "adapter/tokenizer_config.json").write_text("{}")
    (tmp_path / "adapter/chat_template.jinja").write_text("{{ messages }}")

    merge(MergeConfig(**config_of(tmp_path)))

    found, base, other = (tensors_of(tmp_path / name)[EMBEDDING] for name in ("merged", "base", "other"))
    torch.testing.assert_close(found, (base + 2 + other.flip(0)) / 2)


@pytest.mark.parametrize("tokens", [BASE, BASE | {"<|im_end|>": 12}], ids=["of the base", "of its own"])
def test_an_adapters_own_files_must_go_with_the_rows_of_its_base(tmp_path: Path, tokens: dict[str, int]) -> None:
    write(tmp_path / "base", 1, BASE, 16)
    write(tmp_path / "other", 2, MOVED, 12)
    write_adapter(tmp_path / "adapter", embedding=False)
    (tmp_path / "adapter/tokenizer.json").write_text(fast(tokens))
    config = MergeConfig(**config_of(tmp_path, tokenizer_source="adapter"))

    if tokens == BASE:
        ModelMerger(config).check_compatibility()
        return
    with pytest.raises(
        ModelCompatibilityError, match=r"1 tokens? stands? for other rows .* its tokenizer cannot be taken"
    ):
        ModelMerger(config).check_compatibility()


def test_updates_of_adapters_need_one_vocabulary(tmp_path: Path) -> None:
    write(tmp_path / "base", 1, BASE, 12)
    for name, tokens in (("adapter", MOVED), ("other", BASE)):
        write_adapter(tmp_path / name, embedding=True)
        (tmp_path / name / "tokenizer.json").write_text(fast(tokens))

    with pytest.raises(ModelCompatibilityError, match=r"Set peft_config\.merge_adapters: false"):
        ModelMerger(MergeConfig(**config_of(tmp_path, merge_adapters=True))).check_compatibility()

"""How much of adapters is in memory at a time: counted, whatever the number of their tensors."""

import json
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import modelmerger
import numpy as np
import pytest
import torch
from modelmerger_plugins.peft_adapters.folding import adapter as of_adapters
from modelmerger_plugins.peft_adapters.folding.adapter import Adapter
from modelmerger_plugins.peft_adapters.merging import experts, factored, products
from modelmerger_plugins.peft_adapters.merging.factors import Product
from modelmerger_plugins.peft_adapters.merging.products import Products
from plugins.peft_adapters.handmade import PREFIX, read_updates, write_adapter, write_base
from safetensors.numpy import load_file, save_file

SHAPES = {f"model.layers.{i}.up": (9, 7) for i in range(24)}


class Alive:
    """Counts what is still there of all that it was shown."""

    def __init__(self) -> None:
        self.references: list[weakref.ref[Any]] = []
        self.most = 0

    def show(self, value: Any) -> None:
        if all(reference() is not value for reference in self.references):
            self.references.append(weakref.ref(value))
        self.most = max(self.most, self.count)

    @property
    def count(self) -> int:
        return sum(reference() is not None for reference in self.references)

    def watching(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose results are shown."""

        def watched(*arguments: Any) -> Any:
            found = function(*arguments)
            self.show(found)
            return found

        return watched


def product() -> Product:
    return Product(torch.zeros(2, 1), torch.zeros(1, 2), [], 0.0)


def test_the_products_that_were_asked_for_last_are_kept() -> None:
    alive, kept = Alive(), Products()
    make = alive.watching(product)
    for number in range(3 * products.KEPT):
        kept.get(f"{number}", make)
        kept.get("0", make)
        assert alive.count == min(number + 1, products.KEPT)
    for number in (0, *range(2 * products.KEPT + 1, 3 * products.KEPT)):
        kept.get(f"{number}", make)
    assert len(alive.references) == 3 * products.KEPT  # each was made once


def test_a_product_that_many_want_is_made_once() -> None:
    kept, made, together = Products(), [], threading.Barrier(4)

    def make() -> Product:
        made.append(product())
        return made[-1]

    def ask(_: int) -> Product:
        together.wait(10)
        return kept.get("one", make)

    with ThreadPoolExecutor(4) as pool:
        found = set(map(id, pool.map(ask, range(4))))
    assert found == {id(made[0])}
    assert len(made) == 1


def test_a_merge_holds_a_few_products(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are kept, and the one that its only worker makes."""
    alive = Alive()
    monkeypatch.setattr(factored, "best", alive.watching(factored.best))
    base = write_base(tmp_path / "base", SHAPES)
    made = [write_adapter(tmp_path / f"{seed}", base, SHAPES, seed) for seed in (1, 2)]
    merge(tmp_path, [adapter.path for adapter in made], peft_config={"merge_adapters": True})
    assert products.KEPT <= alive.most <= products.KEPT + 1
    for module, update in read_updates(tmp_path / "merged").items():
        assert np.allclose(update, (made[0].updates[module] + made[1].updates[module]) / 2, atol=1e-5)


def test_factors_are_multiplied_once_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And once to be measured, before: of a layer, and of each of three experts; in slices of a few elements."""
    monkeypatch.setattr("modelmerger.planning.cost.FRUGAL_SLICE", 7)
    made: list[str] = []
    for module in (factored, experts):
        monkeypatch.setattr(module, "best", counting(made, module.__name__, module.best))
    base = write_base(tmp_path / "base", {"up": (9, 7)})
    adapter = write_adapter(tmp_path / "1", base, {"up": (9, 7)}, 1).path
    add_experts(base / "model.safetensors", {"experts.w": (3, 5, 4)})
    names = {"experts.lora_A.weight": (3 * 2, 4), "experts.lora_B.weight": (5, 2 * 3)}
    add_experts(adapter / "adapter_model.safetensors", {PREFIX + name: shape for name, shape in names.items()})
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"target_parameters": ["experts.w"]}))
    merge(tmp_path, [adapter], peft_config={"merge_adapters": True})
    assert sorted(made) == sorted([factored.__name__] * 2 + [experts.__name__] * 2 * 3)


def counting(made: list[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*arguments: Any) -> Any:
        made.append(name)
        return function(*arguments)

    return counted


def add_experts(file: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    random = np.random.default_rng(0)
    added = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(load_file(file) | added, file, metadata={"format": "pt"})


def test_folding_holds_a_few_tensors_of_an_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive = Alive()
    monkeypatch.setattr(Adapter, "tensor", alive.watching(Adapter.tensor))
    base = write_base(tmp_path / "base", SHAPES)
    merge(tmp_path, [write_adapter(tmp_path / "1", base, SHAPES, 1).path])
    assert alive.most == of_adapters.KEPT < 2 * len(SHAPES)


def merge(folder: Path, adapters: list[Path], **config: Any) -> None:
    models = [{"path": str(path)} for path in adapters]
    output, options = str(folder / "merged"), {"low_memory_mode": True}
    modelmerger.merge(modelmerger.MergeConfig("weighted", models, output_path=output, options=options, **config))

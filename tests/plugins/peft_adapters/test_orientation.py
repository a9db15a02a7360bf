"""Whether a square matrix is stored transposed is told by the others of the adapter, or it is not told at all."""

from pathlib import Path

import numpy as np
import pytest
from modelmerger import InputError
from plugins.peft_adapters.handmade import Shapes, write_adapter, write_base
from plugins.peft_adapters.spoiling import merger
from plugins.peft_adapters.tiny_adapters import merged

SQUARE = {"a.proj": (6, 6)}


def adapter(tmp_path: Path, straight: Shapes, transposed: Shapes) -> tuple[Path, np.ndarray]:
    """An adapter of layers (outputs, inputs), some stored transposed; and its update of `a.proj`."""
    stored = {module: (into, out) for module, (out, into) in transposed.items()}
    base = write_base(tmp_path / "base", SQUARE | dict(straight) | stored)
    made = write_adapter(tmp_path / "adapter", base, SQUARE | dict(straight) | dict(transposed), 1)
    return made.path, made.updates["a.proj"]


@pytest.mark.parametrize(("first", "last"), [("b.proj", "c.proj"), ("c.proj", "b.proj"), ("_.proj", "b.proj")])
def test_layers_of_its_name_that_disagree_are_said(tmp_path: Path, first: str, last: str) -> None:
    """Whichever is the last one."""
    path, _ = adapter(tmp_path, {first: (6, 8)}, {last: (4, 6)})
    with pytest.raises(InputError) as refusal:
        merger(path).check_compatibility()
    (problem,) = refusal.value.problems
    assert "other layers named proj are stored both ways, transposed and not (1 more like it). Fold" in problem.message
    assert problem.tensor == "base_model.model.a.proj.lora_A.weight"


def test_others_that_disagree_are_said(tmp_path: Path) -> None:
    path, _ = adapter(tmp_path, {"b.up": (6, 8)}, {"b.down": (4, 6)})
    with pytest.raises(
        InputError, match=r"and other layers are stored both ways, transposed and not \(1 more like it\)\. Fold"
    ):
        merger(path).check_compatibility()


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("other", ["up", "proj"])
def test_layers_that_agree_tell(tmp_path: Path, swapped: bool, other: str) -> None:
    """Those of its name, against all others; or all others."""
    ours: Shapes = {f"b.{other}": (6, 8), f"c.{other}": (4, 6)}
    theirs: Shapes = {"b.gate": (6, 7)} if other == "proj" else {}
    path, update = adapter(tmp_path, *((theirs, ours) if swapped else (ours, theirs)))
    before = merged(tmp_path / "base merged", tmp_path / "base")
    after = merged(tmp_path / "merged", path)
    found = (after["a.proj.weight"] - before["a.proj.weight"]).numpy()
    np.testing.assert_allclose(found, update.T if swapped else update, rtol=1e-4, atol=1e-5)

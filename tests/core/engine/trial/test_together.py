"""What workers hold together, as they take one unit after the other."""

from types import SimpleNamespace
from typing import Any

import pytest
from blocks import set_block
from modelmerger.engine.trial.together import Needs, together
from modelmerger.values.layout import Layout, OutputFile, OutputTensor, Placement
from modelmerger.values.tensor_plan import TensorPlan

NEEDS = Needs(cut=1000, whole={100: 10.0, 10: 20.0})


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    set_block(monkeypatch, 64)


def planned(workers: int, *files: list[tuple[str, int]]) -> Any:
    """A plan of files of tensors of one byte an element: granularity and elements of each."""
    tensors, layout = [], []
    for number, content in enumerate(files):
        placements, offset = [], 0
        for granularity, elements in content:
            name = f"{number}.{len(placements)}"
            told: Any = (name, "U8", (elements,), "merge", (0,), None, "F32")
            tensors.append(TensorPlan(*told, granularity=granularity))  # type: ignore[arg-type]
            placements.append(Placement(OutputTensor(name, "U8", (elements,), elements), offset))
            offset += elements
        layout.append(OutputFile(str(number), offset, (), placements))
    return SimpleNamespace(workers=workers, tensors=tensors, layout=Layout("raw", layout))


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (planned(3, [("elementwise", 640)]), 3000),  # ten blocks
        (planned(3, [("elementwise", 100)]), 2000),  # two blocks, so that one worker has nothing to do
        (planned(2, [("whole", 100), ("whole", 100)]), 1000 + 1000),  # one unit, as a tensor connects its blocks
        (planned(2, [("whole", 100)], [("whole", 100)]), 2 * (1000 + 1000)),
        (planned(2, [("whole", 100)], [("elementwise", 64)]), 1000 + 1000 + 1000),
        (planned(2, [("whole", 9)]), 1000 + 9 * 20),  # as the tensor whose size is nearest
        (planned(2), 0),
    ],
)
def test_workers_hold_what_their_units_need(plan: Any, expected: int) -> None:
    assert together(plan, NEEDS) == expected

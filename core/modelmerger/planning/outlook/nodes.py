"""What a planned merge would take on more machines than one, each as fast as this one, with storage that keeps up."""

from collections.abc import Iterator, Sequence
from typing import Any

from attrs import asdict, frozen

from modelmerger.planning.cost import rounds_of
from modelmerger.planning.outlook.rates import A_TENSOR, START, Outlook, duration
from modelmerger.values.plan import MergePlan
from modelmerger.values.text import size


@frozen(kw_only=True)
class OnNodes:
    """A merge that so many machines share."""

    nodes: int
    """How many."""
    bytes_a_node: int
    """Bytes that each reads and writes."""
    bytes_in_all: int
    """Bytes that all read and write: tensors that are measured, and lie in the shares of two, are read once more."""
    memory: int
    """Bytes at the expected peak of each."""
    storage: float | None
    """Bytes a second that the storage must give for this; None where a rate is not known."""
    seconds: float | None
    """How long it takes; None where a rate is not known."""
    moving: float | None
    """Seconds in which a node reads and writes, if nothing else takes longer; None where a rate is not known."""
    computing: float | None
    """Seconds that its arithmetic takes, if nothing else takes longer; None where a rate is not known."""
    bottleneck: str | None
    """"storage", as a node reaches it, or "processor"; None where a rate is not known."""

    def as_dict(self) -> dict[str, Any]:
        """The row as plain data, for `--json`."""
        return asdict(self)


def on_nodes(plan: MergePlan, outlook: Outlook, most: int) -> list[OnNodes]:
    """One row for 1, 2, 4 … nodes, and for `most`."""
    return [_on(plan, outlook, nodes) for nodes in _counts(most)]


def _counts(most: int) -> Iterator[int]:
    nodes = 1
    while nodes < most:
        yield nodes
        nodes *= 2
    yield most


def _on(plan: MergePlan, outlook: Outlook, nodes: int) -> OnNodes:
    measured = any(map(rounds_of, plan.tensors))
    again = plan.bytes_read // max(1, len(plan.tensors)) * (nodes - 1) if measured else 0  # a tensor at each border
    moved = plan.bytes_read - plan.bytes_reused + plan.bytes_written + again
    told = {"nodes": nodes, "bytes_a_node": moved // nodes, "bytes_in_all": moved, "memory": plan.memory}
    if outlook.moving is None or outlook.computing is None:
        return OnNodes(**told, storage=None, seconds=None, moving=None, computing=None, bottleneck=None)
    alone = plan.bytes_read - plan.bytes_reused + plan.bytes_written
    moving = outlook.moving * moved / max(1, alone) / nodes
    computing = outlook.computing / nodes
    seconds = START + A_TENSOR * len(plan.tensors) + max(moving, computing)
    return OnNodes(
        **told,
        storage=moved / seconds,
        seconds=seconds,
        moving=moving,
        computing=computing,
        bottleneck="storage" if moving >= computing else "processor",
    )


def shown_nodes(rows: Sequence[OnNodes]) -> str:
    """The rows as a table."""
    cells = [("nodes", "bytes a node", "time", "memory a node", "bottleneck", "storage must give")]
    for row in rows:
        time = "?" if row.seconds is None else duration(row.seconds)
        storage = "?" if row.storage is None else f"{size(row.storage)}/s"
        cells.append((str(row.nodes), size(row.bytes_a_node), time, size(row.memory), row.bottleneck or "?", storage))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )

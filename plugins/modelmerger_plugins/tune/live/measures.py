"""What a search that only tries vectors measures of a config, on some lines."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelmerger_plugins.tune.evaluating import encoded, tokenizer_of
from modelmerger_plugins.tune.live.benches import Measure, timed
from modelmerger_plugins.tune.live.metrics import by_metrics
from modelmerger_plugins.tune.opened import opened, read
from modelmerger_plugins.tune.section import LOSSES
from modelmerger_plugins.tune.texts import Lines


def measure_of(config: Mapping[str, Any], fewest: int, lines: Lines, folder: Path) -> Measure:
    """Opens the models of a config for itself. fewest: lines of each split to tune on. folder: for files of its own."""
    found = opened(read(config), fewest)
    metrics = [goal.metric for goal in found.read.tune.goals]
    if set(metrics) <= set(LOSSES):
        from modelmerger_plugins.tune.live.evaluator import Live
        from modelmerger_plugins.tune.live.parts import in_parts

        return in_parts(encoded(lines, tokenizer_of(found)), Live(found).begun)
    return timed(by_metrics(found, metrics, folder / "lines.jsonl", lines))

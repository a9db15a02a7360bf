"""How far tuning narrows the worst gap of the dialect models, on their held-out lines, and by how much that is sure.

    python benchmarks/tuning.py FOLDER [--lines 100] [--per tensor] [--without PREFIX] [--like DIR]
        [--set steps=20 …] [--judge heldout|tuning] [--within 200]

FOLDER holds `DIALECT.tsv`, a source and a text in each line, tabulator between them. Lines are taken evenly from all
sources of a dialect, without those whose names begin with PREFIX. With `--like`, those are taken that are most like the
lines of `DIR/DIALECT.txt`, by their letters and by what the base and the four specialists make of them: the lines of
`examples/dialects/tuning`, which were written as the held-out ones were, but are others. Nothing of the lines is written
to anywhere but a temporary directory.

The held-out lines judge. Settings are not chosen by them: `--judge tuning` puts the lines of `tuning` in their place,
and `--within` so many other lines of FOLDER. Build the models first: `python examples/dialects/build.py`.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from modelmerger_plugins.tune import MergeTuner
from modelmerger_plugins.tune.evaluating import ByCoefficients, encoded, tokenizer_of
from modelmerger_plugins.tune.honesty import gain, ratio
from modelmerger_plugins.tune.measured import Goal, per_token
from modelmerger_plugins.tune.nearness import near_groups
from modelmerger_plugins.tune.opened import opened, read
from tuning_lines import Measure, alike, evenly

EXAMPLE = Path(__file__).parents[1] / "examples/dialects"
DIALECTS = ("egyptian", "gulf", "levantine", "maghrebi")
SCALE = 0.35
FACTORS = (0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4)


def config_of(
    texts: dict[str, str], test: dict[str, str], per: str, search: dict[str, object], output: Path
) -> dict[str, object]:
    return {
        "strategy": "task_arithmetic",
        "base_model": str(EXAMPLE / "models/base"),
        "models": [
            {"path": str(EXAMPLE / "models" / name), "weight": {"tune": [0, 3], "start": 1.0, "per": per}}
            for name in DIALECTS
        ],
        "options": {"scaling_factor": SCALE},
        "output_path": str(output),
        "tune": {"texts": texts, "test_texts": test, "search": search},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lines", type=int, default=100)
    parser.add_argument("--per", default="tensor", choices=("model", "layer", "tensor"))
    parser.add_argument("--without", default="")
    parser.add_argument("--like", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the section tune.search")
    parser.add_argument("--judge", default="heldout", choices=("heldout", "tuning"))
    parser.add_argument("--within", type=int, default=0)
    told = parser.parse_args(arguments)
    search = {key: yaml.safe_load(value) for key, _, value in (one.partition("=") for one in told.set)}
    with tempfile.TemporaryDirectory() as place:
        texts, test = {}, {name: str(EXAMPLE / told.judge / f"{name}.txt") for name in DIALECTS}
        measure = measuring(config_of({}, {}, told.per, search, Path(place) / "out"))
        for name in DIALECTS:
            drawn = evenly(told.folder, name, told.without)
            if told.like is not None:
                drawn = alike(drawn, plain_lines(told.like / f"{name}.txt"), measure)
            drawn = drawn[: told.lines + told.within]
            texts[name] = written(Path(place) / f"{name}.txt", drawn[: told.lines])
            if told.within:
                groups = near_groups(drawn)
                apart = [line for line, group in zip(drawn, groups, strict=True) if group >= told.lines]
                test[name] = written(Path(place) / f"{name}-test.txt", apart)
        config = config_of(texts, test, told.per, search, Path(place) / "out")
        report = MergeTuner(config).tune(
            progress=lambda done, total, value: print(f"{done}/{total} {value:.4f}", flush=True)
        )
        print(report)
        compare(config, test, told.lines, report.best.vector)


def plain_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def measuring(config: dict[str, object]) -> Measure:
    """What the models of a config make of lines."""
    found = opened(read(config), 0)
    evaluator, tokenizer = ByCoefficients(found), tokenizer_of(found)

    def measure(lines: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        own = encoded({"": lines}, tokenizer)
        return np.stack([evaluator.source_nats(own, i)[""] for i in range(len(found.models))], 1), own.counts("")

    return measure


def written(path: Path, lines: Sequence[str]) -> str:
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def compare(config: dict[str, object], files: dict[str, str], lines: int, tuned: Sequence[float]) -> None:
    """The tuned numbers beside task arithmetic with the scale that is best on the very lines that judge."""
    found = opened(read(config), lines)
    evaluator = ByCoefficients(found)
    texts = {name: plain_lines(Path(file)) for name, file in files.items()}
    test = encoded(texts, tokenizer_of(found))
    sources = {name: per_token(evaluator.source_nats(test, i), test) for i, name in enumerate(found.models)}
    goal = Goal(found.read.tune.goal, (), sources, test)
    start = found.space.start
    scaled = {factor: evaluator.nats(test, [factor * one for one in start]) for factor in FACTORS}
    worst = {factor: goal.value(per_token(nats, test)) for factor, nats in scaled.items()}
    best = min(worst, key=worst.__getitem__)
    nats = evaluator.nats(test, tuned)
    share = ratio(goal.value, nats, scaled[best], test, 0)
    less = gain(goal.value, nats, scaled[best], test, 0)
    print(f"task arithmetic at its best, {SCALE * best:.3f}: worst gap {worst[best]:.4f}")
    print(
        f"tuned: {goal.value(per_token(nats, test)):.4f}, {share.value:.2f} of that ({share.low:.2f} to {share.high:.2f})"
    )
    print(f"less by {less.value:.4f} ({less.low:.4f} to {less.high:.4f})")


if __name__ == "__main__":
    main()

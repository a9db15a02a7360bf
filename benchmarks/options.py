"""The command line of the benchmark."""

import argparse
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from contenders import VARIANTS
from methods import STRATEGIES
from shapes import SHAPES, TRIAL
from workplace import HERE

ADAPTERS = ("adapters", "fold")
CONTENDERS = ("modelmerger", "mergekit", "mergekit-float32", "peft", "peft-svd", "cp", "import-torch", "bare", "moving")
MOST_MODELS = 32


def parse(description: str, arguments: Sequence[str]) -> argparse.Namespace:
    counts = [str(count) for count in range(2, MOST_MODELS + 1)]
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shapes", type=some_of(SHAPES), default=[name for name in SHAPES if name != TRIAL], help=",".join(SHAPES)
    )
    strategies = (*STRATEGIES, *ADAPTERS)
    parser.add_argument("--strategies", type=some_of(strategies), default=list(strategies), help=",".join(strategies))
    parser.add_argument("--models", type=some_of(counts), default=["2"], help="how many models are merged, e.g. 2,8")
    parser.add_argument(
        "--contenders",
        type=some_of(CONTENDERS),
        default=["modelmerger", "mergekit", "mergekit-float32", "peft", "cp", "import-torch"],
        help=",".join(CONTENDERS),
    )
    parser.add_argument("--variants", type=some_of(VARIANTS), default=[], help="of modelmerger: " + ",".join(VARIANTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--page-cache", choices=("warm", "cold"), default="warm", help="state of the inputs")
    parser.add_argument("--cache", type=Path, default=HERE / ".cache", help="for models and mergekit's environment")
    parser.add_argument("--mergekit", type=Path, help="an existing mergekit-yaml, instead of making an environment")
    parser.add_argument("--disk-gb", type=float, default=40, help="most disk to use for models and one output")
    parser.add_argument("--results", type=Path, help="folder for the report")
    parser.add_argument("--quick", action="store_true", help="0.5B only, one round")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, {options.rounds} given")
    if options.variants and "modelmerger" not in options.contenders:
        parser.error("--variants are variants of modelmerger, which is not among --contenders")
    if options.quick:
        options.shapes, options.rounds = ["0.5B"], 1
    options.cache = options.cache.absolute()
    if options.results is None:
        options.results = options.cache / "results" if options.quick else HERE / "results"
    return options


def some_of(allowed: Collection[str]) -> Callable[[str], list[str]]:
    """A reader of comma-separated names."""

    def read(value: str) -> list[str]:
        names = value.split(",")
        if unknown := [name for name in names if name not in allowed]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(allowed)}")
        return names

    return read

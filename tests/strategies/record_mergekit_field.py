"""Record what mergekit makes of the recorded small models by the methods that test_mergekit_field.py compares with.

    python tests/strategies/record_mergekit_field.py PATH/TO/mergekit-yaml tests/strategies/data/mergekit

The folder is that of `record_mergekit.py`, whose models this reads. mergekit runs as a program of its own.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from record_mergekit import CONFIG, run_mergekit, version_of

TUNES = ["tune_a", "tune_b", "tune_c"]
UNRELATED = ["first", "second", "third"]
CASES: list[dict[str, Any]] = [
    {"name": "model_stock", "models": UNRELATED},  # their differences from the base have it in common
    {"name": "model_stock_pair", "models": UNRELATED[:2]},
    {"name": "nuslerp", "models": TUNES[:2], "weights": [3, 1]},
    {"name": "multislerp", "models": TUNES, "weights": [0.6, 0.3, 0.8]},
    {"name": "multislerp_raw", "models": TUNES, "weights": [0.6, 0.3, 0.8], "options": {"normalize_weights": False}},
    {"name": "karcher", "models": UNRELATED, "base": None, "options": {"max_iter": 10, "tol": 1e-5}},
    {"name": "karcher_near", "models": TUNES, "base": None, "options": {"max_iter": 100, "tol": 1e-6}},
    {"name": "nearswap", "models": TUNES[:1], "options": {"t": 0.02}},
    {"name": "arcee_fusion", "models": TUNES[:1]},
    {"name": "sce", "models": TUNES},
    {"name": "sce_selected", "models": TUNES, "options": {"density": 0.3}},
    {"name": "ram", "models": TUNES, "options": {"epsilon": 0.05}},
    {"name": "ramplus_tl", "models": TUNES, "options": {"epsilon": 0.05, "r": 0.3, "alpha": 0.5}},
    {"name": "passthrough", "models": TUNES[:1], "base": None, "options": {"scale": 0.3}},
]
STRATEGIES = (
    "model_stock",
    "nuslerp",
    "multislerp",
    "karcher",
    "nearswap",
    "arcee_fusion",
    "sce",
    "ramplus_tl",
    "ram",
    "passthrough",
)
THEIRS = {"density": "select_topk"}


def strategy_of(case: dict[str, Any]) -> str:
    return next(name for name in STRATEGIES if case["name"].startswith(name))


def mergekit_config(case: dict[str, Any], directories: Path) -> dict[str, Any]:
    models: list[dict[str, Any]] = [{"model": str(directories / name)} for name in case["models"]]
    for model, weight in zip(models, case.get("weights", ()), strict=False):
        model["parameters"] = {"weight": weight}
    parameters = {THEIRS.get(key, key): value for key, value in case.get("options", {}).items()}
    config = {"merge_method": strategy_of(case), "dtype": "float32", "models": models, "parameters": parameters}
    return config if case.get("base", "base") is None else {**config, "base_model": str(directories / "base")}


def record(program: str, folder: Path) -> None:
    expected = folder / "expected_field"
    shutil.rmtree(expected, ignore_errors=True)
    expected.mkdir()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for weights in (folder / "models").glob("*.safetensors"):
            directory = scratch / weights.stem
            directory.mkdir()
            (directory / "config.json").write_text(json.dumps(CONFIG))
            shutil.copyfile(weights, directory / "model.safetensors")
        for case in CASES:
            made = run_mergekit(program, mergekit_config(case, scratch), scratch)
            shutil.copyfile(made, expected / f"{case['name']}.safetensors")
            print(case["name"], flush=True)
    cases = [{"strategy": strategy_of(case), "base": "base", "options": {}, **case} for case in CASES]
    recorded = {"mergekit": version_of(program), "cases": cases}
    (folder / "cases_field.json").write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: record_mergekit_field.py MERGEKIT_YAML_CLI DATA_DIR")
    record(sys.argv[1], Path(sys.argv[2]))

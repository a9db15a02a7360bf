"""Record what mergekit's strategies on task vectors make of the models of `record_mergekit.py`.

    python tests/strategies/record_mergekit_task_vectors.py PATH/TO/mergekit-yaml tests/strategies/data/mergekit

mergekit runs as a program of its own. Only what it made is kept, for the tests to compare with.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from record_mergekit import CONFIG, make_models, run_mergekit, source, version_of

Case = dict[str, Any]
FOLDER = "task_vectors"


def case(name: str, strategy: str, weights: Sequence[float], told: Sequence[Case], **options: Any) -> Case:
    """In our words. Every option that has another default there is written out."""
    paths = (source(f"tune_{letter}") for letter in "abc")
    models = [{"path": path, "weight": weight, **own} for path, weight, own in zip(paths, weights, told, strict=False)]
    expected = f"{FOLDER}/{name}.safetensors"
    return {
        "name": name,
        "strategy": strategy,
        "base_model": source("base"),
        "models": models,
        "options": {"scaling_factor": 1.0, "normalize_weights": False, **options},
        "expected": expected,
    }


def make_cases() -> Iterator[Case]:
    some, uneven = [0.6, 0.3, 0.8], [0.9, -0.5, 0.7]
    none: list[Case] = [{}] * 3
    apart = [{"density": 0.5}, {"density": 0.05}, {"density": 1.0}]
    yield case("ties", "ties", some, none, density=0.2, normalize_weights=True)
    yield case("ties_raw_scaled", "ties", some, none, density=0.3, scaling_factor=0.4)
    yield case("ties_by_model", "ties", some, apart, density=0.2, normalize_weights=True)
    yield case("ties_negative", "ties", uneven, apart, density=0.2)
    yield case("ties_one_model", "ties", [0.5], [{}], density=0.1, normalize_weights=True)
    yield case("ties_one_element", "ties", some, none, density=0.001, normalize_weights=True)
    for strategy in ("breadcrumbs", "breadcrumbs_ties"):
        yield case(strategy, strategy, some, none, density=0.6, gamma=0.1)
        yield case(f"{strategy}_normalized", strategy, some, none, density=0.6, gamma=0.1, normalize_weights=True)
        yield case(f"{strategy}_fewer_outliers", strategy, uneven, apart, density=0.8, gamma=0.5, scaling_factor=1.3)
        yield case(f"{strategy}_no_outliers", strategy, some, none, density=0.9, gamma=0.0)
    for strategy in ("dare_linear", "dare_ties", "della_linear", "della"):
        whole = {"density": 1.0, "rescale": "l1"}
        yield case(f"{strategy}_whole", strategy, some, none, **whole)
        yield case(f"{strategy}_whole_normalized", strategy, some, none, **whole, normalize_weights=True)
        yield case(f"{strategy}_whole_negative", strategy, uneven, none, **whole, scaling_factor=0.7)
        spread = {"epsilon": 0.3} if "della" in strategy else {}
        for rescale in ("l1", False):
            name = f"{strategy}_random_{rescale or 'raw'}"
            yield case(name, strategy, [1.0], [{}], density=0.5, rescale=rescale, **spread)


def mergekit_config(entry: Case, directories: Path) -> Case:
    """The same merge in mergekit's words."""

    def directory(path: str) -> str:
        return str(directories / Path(path).stem)

    options = dict(entry["options"])
    parameters = {"lambda": options.pop("scaling_factor"), "normalize": options.pop("normalize_weights")}
    if "rescale" in options:
        parameters["rescale"] = options.pop("rescale") == "l1"
    models = [
        {
            "model": directory(model["path"]),
            "parameters": {**options, **{k: v for k, v in model.items() if k != "path"}},
        }
        for model in entry["models"]
    ]
    base = directory(entry["base_model"])
    return {
        "dtype": "float32",
        "merge_method": entry["strategy"],
        "base_model": base,
        "models": models,
        "parameters": parameters,
    }


def record(program: str, folder: Path) -> None:
    from safetensors.torch import save_file

    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    (folder / FOLDER).mkdir()
    cases = list(make_cases())
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for model, tensors in make_models().items():
            (scratch / model).mkdir()
            (scratch / model / "config.json").write_text(json.dumps(CONFIG))
            save_file(tensors, scratch / model / "model.safetensors", metadata={"format": "pt"})
        for entry in cases:
            weights = run_mergekit(program, mergekit_config(entry, scratch), scratch)
            shutil.copyfile(weights, folder / entry["expected"])
            print(entry["name"], flush=True)
    recorded = {"mergekit": version_of(program), "cases": cases}
    (folder / FOLDER / "cases.json").write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: record_mergekit_task_vectors.py MERGEKIT_YAML_CLI OUT_DIR")
    record(sys.argv[1], Path(sys.argv[2]))

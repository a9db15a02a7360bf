"""What must be there before anything is measured: models in the cache, and mergekit in an environment of its own."""

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from shapes import LAYOUT, Shape

HERE = Path(__file__).resolve().parent
KEPT = 10**10  # bytes of a model; larger ones are removed when their rows are measured


def model_limit(cache: Path, shape: Shape, budget: int) -> int:
    """How many models of `shape` fit beside one output into `budget` bytes of disk, and into what the disk has left."""
    root = cache / f"models-{LAYOUT}"
    room = shutil.disk_usage(cache).free + size_of([root])
    return min(budget, room) // shape.bytes - 1


def prepare_models(cache: Path, shape: Shape, numbers: Iterable[int], budget: int) -> dict[int, Path]:
    """Make the models that are not there yet; others go when the budget or the disk asks for it, those of other shapes
    first.

    They are written by another process: what this one ever held in memory would count as the peak of its children.
    """
    root = cache / f"models-{LAYOUT}"
    wanted = {number: root / shape.name / f"model-{number}" for number in numbers}
    others = [path for path in sorted(root.glob("*/*")) if path not in wanted.values()]
    others.sort(key=lambda path: path.parent.name == shape.name)
    room = min(budget, shutil.disk_usage(cache).free + size_of([root]))
    while others and size_of(others) + (len(wanted) + 1) * shape.bytes > room:
        shutil.rmtree(others.pop(0))
    for number, directory in wanted.items():
        if not directory.exists():
            print(f"writing {shape.name} model {number}", flush=True)
            subprocess.run([sys.executable, HERE / "synthetic.py", shape.name, str(number), directory], check=True)
    return wanted


def remove_large(cache: Path, shape: Shape) -> None:
    """Models of a shape that is too large to be kept until the next time go."""
    if shape.bytes > KEPT:
        shutil.rmtree(cache / f"models-{LAYOUT}" / shape.name, ignore_errors=True)


def prepare_adapters(cache: Path, shape: Shape, base: Path) -> list[Path]:
    """Four adapters of the base, made where they are not there yet."""
    directories = [cache / f"adapters-{LAYOUT}" / shape.name / f"adapter-{number}" for number in range(1, 5)]
    for number, directory in enumerate(directories, 1):
        if not directory.exists():
            command = (sys.executable, HERE / "adapters.py", shape.name, str(number), base, directory)
            subprocess.run(command, check=True)
    return directories


def prepare_mergekit(cache: Path) -> Path:
    """The mergekit-yaml of the environment in the cache, which is made when it is not there."""
    environment = cache / "mergekit-env"
    program = environment / "bin" / "mergekit-yaml"
    if not program.exists():
        print("making an environment for mergekit", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        requirements = HERE / "mergekit-requirements.txt"
        subprocess.run([environment / "bin" / "pip", "install", "--quiet", "-r", requirements], check=True)
    return program


def size_of(directories: Iterable[Path]) -> int:
    return sum(file.stat().st_size for directory in directories for file in directory.rglob("*") if file.is_file())

"""Builds the five full models of this example from the base and the four adapters that ship with it.

    python examples/dialects/build.py

Each adapter is folded into the base in float32 and rounded once to bfloat16. A model that was built from the same files
is left alone; a new one takes the place of an old one by a rename. `merged/`, where the merges go, is made as well.
"""

import hashlib
import shutil
import tempfile
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from sources import DIALECTS
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

HERE = Path(__file__).resolve().parent
BASE = HERE / "base"
ADAPTERS = HERE / "adapters"
TERMS = ("LICENSE", "NOTICE", "README.md")


def fold(dialect: str) -> PreTrainedModel:
    """The base with one adapter folded in: float32 arithmetic, bfloat16 weights."""
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5 by a name that has since been changed.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        folded: PreTrainedModel = PeftModel.from_pretrained(model, ADAPTERS / dialect).merge_and_unload()
    return folded.to(torch.bfloat16)


def _digest(*inputs: Path) -> str:
    files = [path for place in inputs for path in ([place] if place.is_file() else sorted(place.iterdir()))]
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.parent.name}/{path.name}:{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _stamp(model_dir: Path) -> Path:
    """The file, beside the model, that says from what it was built."""
    return model_dir.with_name(f".{model_dir.name}.sha256")


def _is_current(model_dir: Path, digest: str) -> bool:
    stamp = _stamp(model_dir)
    return (model_dir / "model.safetensors").is_file() and stamp.is_file() and stamp.read_text() == digest


def build_model(name: str, models: Path) -> bool:
    """Builds `models/name`; True if it was built, False if it was there already, made from the same files."""
    inputs = [BASE, *(HERE / term for term in TERMS), Path(__file__)]
    if name != "base":
        inputs.append(ADAPTERS / name)
    digest = _digest(*inputs)
    target = models / name
    if _is_current(target, digest):
        return False
    staging = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=models))
    try:
        shutil.copytree(BASE, staging, dirs_exist_ok=True)
        if name != "base":
            fold(name).save_pretrained(staging)
        for term in TERMS:
            shutil.copy(HERE / term, staging)
        staging.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        staging.rename(target)
        _stamp(target).write_text(digest)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return True


def build_models(models: Path = HERE / "models") -> dict[str, bool]:
    """Builds the base and the four specialists; tells for each name whether it had to be built."""
    models.mkdir(parents=True, exist_ok=True)
    (HERE / "merged").mkdir(exist_ok=True)
    return {name: build_model(name, models) for name in ("base", *DIALECTS)}


if __name__ == "__main__":
    logging.disable_progress_bar()
    for built_name, built in build_models().items():
        print(f"models/{built_name}: {'built' if built else 'up to date'}")

"""Merges four Arabic dialect specialists in four ways, and their adapters into one, and measures what came out.

    python examples/dialects/demo.py          (or: make demo)

Offline and on the CPU: builds the models from what ships in this directory, runs `modelmerger merge` on the five YAML
files beside it, and prints held-out losses and one generated sentence per model. At the end `modelmerger validate`
holds one of the merges against its sources, and `modelmerger tune` finds better weights on other lines. Ends with a
non-zero status if one of these fails.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml
from build import HERE, build_models
from generation import PROMPT, generate_line
from report import Row, loss_table, sentences_table, verdict
from rich.console import Console
from scoring import read_heldout, score
from sources import DIALECTS
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

ROOT = HERE.parents[1]
MERGES = ("weighted", "sequential", "task_arithmetic", "slerp", "adapter")


def run_merge(name: str, console: Console) -> None:
    """Runs one merge as a user would; a failure shows the program's own words and ends the demo with its status."""
    config = (HERE / f"{name}.yaml").relative_to(ROOT)
    console.print(f"  modelmerger merge {config}", highlight=False, end=" ")
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "modelmerger", "merge", str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        console.print("failed", style="bold red")
        sys.stdout.flush()
        sys.stderr.write(done.stderr)
        sys.exit(done.returncode if done.returncode > 0 else 1)
    console.print(f"({time.monotonic() - started:.1f} s)", style="dim", highlight=False)


def validate(name: str, console: Console) -> None:
    """Holds one merge against its sources as a user would; its report stays beside the merged model."""
    config, merged = ((HERE / path).relative_to(ROOT) for path in (f"{name}.yaml", f"merged/{name}"))
    arguments = ["modelmerger", "validate", str(merged), "--config", str(config)]
    console.print(f"\n[bold]Validating[/] the merge of all four: {' '.join(arguments)}")
    sys.stdout.flush()
    status = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, check=False).returncode
    if status != 0:
        sys.exit(status if status > 0 else 1)
    console.print(f"The page about it: {merged}/report.html")


def tune(console: Console) -> None:
    """Finds weights for the merge of all four on the tuning lines as a user would, and shows what held-out lines say."""
    config = (HERE / "tune.yaml").relative_to(ROOT)
    console.print(f"\n[bold]Tuning[/] the weights of all four: modelmerger tune {config}")
    sys.stdout.flush()
    arguments = [
        sys.executable,
        "-m",
        "modelmerger",
        "tune",
        str(config),
        "--resume",
    ]  # a second run finds all measured
    status = subprocess.run(arguments, cwd=ROOT, check=False).returncode
    if status != 0:
        sys.exit(status if status > 0 else 1)
    console.print("The page about it: examples/dialects/merged/tuned.tune/tune.html")


def measure(
    name: str, model_dir: Path, heldout: dict[str, list[str]], merged_from: tuple[str, ...] = (), note: str = ""
) -> Row:
    """Loads one model and takes its held-out scores and its sentence."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    scores = {variety: score(model, tokenizer, sentences) for variety, sentences in heldout.items()}
    return Row(name, scores, generate_line(model, tokenizer), merged_from, note)


def measure_merge(name: str, heldout: dict[str, list[str]]) -> Row:
    """Measures a merge, with what its configuration says about it."""
    config = yaml.safe_load((HERE / f"{name}.yaml").read_text(encoding="utf-8"))
    merged_from = tuple(Path(model["path"]).name for model in config["models"])
    note = ""
    if name == "sequential":
        shares = sequential_shares([model["weight"] for model in config["models"]])
        note = "one after the other; final shares " + ", ".join(f"{share:.2f}" for share in shares)
    elif name == "adapter":
        weights = (HERE / "merged" / name / "adapter_model.safetensors").stat().st_size
        note = f"task arithmetic of the adapters' updates: one adapter of {weights / 1e6:.1f} MB, on the base"
    elif set(merged_from) != set(DIALECTS):
        note = f"{' and '.join(merged_from)} only"
    return measure(name, HERE / "merged" / name, heldout, merged_from, note)


def sequential_shares(weights: list[float]) -> list[float]:
    """What is left of each model at the end of a sequential merge with these weights."""
    shares: list[float] = []
    for weight in weights:
        shares = [share * (1 - weight) for share in shares] + [weight]
    return shares


def make_console() -> Console:
    """80 columns in a pipe, the terminal's own width between 80 and 120 otherwise."""
    console = Console(highlight=False)
    console.width = min(max(console.width, 80), 120) if console.is_terminal else 80
    return console


def main() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    console = make_console()
    started = time.monotonic()

    console.print("[bold]Building[/] the base and four specialists")
    built = build_models()
    done = [name for name, new in built.items() if new]
    console.print(f"  built: {', '.join(done)}" if done else "  all up to date")
    console.print("[bold]Merging[/] them in four ways, and their adapters into one")
    for merge in MERGES:
        run_merge(merge, console)

    console.print("[bold]Measuring[/] on sentences that no model has seen\n")
    heldout = read_heldout()
    rows = [measure(name, HERE / "models" / name, heldout) for name in built]
    rows += [measure_merge(merge, heldout) for merge in MERGES]
    console.print(loss_table(rows), "")
    console.print(sentences_table(rows, PROMPT, console.width), "")
    console.print(verdict(rows))
    validate("weighted", console)
    tune(console)
    console.print(f"\n{time.monotonic() - started:.0f} s in all.", style="dim")


if __name__ == "__main__":
    main()

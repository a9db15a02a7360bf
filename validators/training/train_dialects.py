"""Trains the dialect scorer of modelmerger_validators: `python validators/training/train_dialects.py TEXT_DIRECTORY`.

TEXT_DIRECTORY holds one file a variety, `VARIETY.tsv`, as examples/dialects/sources.py says it, which also has the
licence of every source. Under two minutes on one core; the same bytes each time on the same torch.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from modelmerger_validators.arabic_dialects import BUCKETS, DIRECTORY, LONGEST, features
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy, embedding_bag

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples/dialects"))
from sources import VARIETIES, read_texts

OWN_TEXTS = DIRECTORY.parent / "texts"
EPOCHS = 6
BATCH = 64
RATE = 1.5
DECAY = 1e-6
HELD_OUT = 10
"""One line in so many is not trained on."""

Lines = list[tuple[int, str, str]]
"""(variety, source, text)"""


def read_lines(folder: Path) -> tuple[Lines, Lines]:
    """Lines to train on and lines held out. Where a text goes depends on its bytes, so it is never in both."""
    trained: Lines = []
    held_out: Lines = []
    for number, variety in enumerate(VARIETIES):
        for source, texts in read_texts(folder, variety).items():
            for text in texts:
                (trained if crc32(text.encode()) % HELD_OUT else held_out).append((number, source, text))
    return trained, held_out


def importance(lines: Lines) -> torch.Tensor:
    """Weight of each line, mean 1: varieties count the same, a source in one counts as the square root of its lines."""
    counts: dict[tuple[int, str], int] = {}
    for variety, source, _ in lines:
        counts[variety, source] = counts.get((variety, source), 0) + 1
    share = {key: count**0.5 for key, count in counts.items()}
    total = {v: sum(s for (variety, _), s in share.items() if variety == v) for v in range(len(VARIETIES))}
    weights = [share[v, s] / counts[v, s] / total[v] for v, s, _ in lines]
    found = torch.tensor(weights)
    return found / found.mean()


class Bags:
    """The features of many texts, in one row: indices and values, both (features,), and each text's beginning."""

    def __init__(self, texts: list[str]) -> None:
        indices: list[int] = []
        values: list[float] = []
        begins = [0]
        for text in texts:
            counts = features(text)
            norm = sum(count**2 for count in counts.values()) ** 0.5
            indices += counts
            values += [count / norm for count in counts.values()]
            begins.append(len(indices))
        self.indices, self.values = torch.tensor(indices), torch.tensor(values)
        self.begins = torch.tensor(begins)

    def batch(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        lengths = self.begins[rows + 1] - self.begins[rows]
        offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)[:-1]])
        places = torch.arange(int(lengths.sum())) + (self.begins[rows] - offsets).repeat_interleave(lengths)
        return self.indices[places], offsets, self.values[places]


def logits(
    weight: torch.Tensor, bias: torch.Tensor, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    indices, offsets, values = batch
    return embedding_bag(indices, weight, offsets, mode="sum", per_sample_weights=values) + bias


def train(bags: Bags, targets: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax regression by AdaGrad on rows that a batch touches: weight (buckets, varieties) and bias (varieties)."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.zeros(BUCKETS, len(VARIETIES))
    seen = torch.full_like(weight, 1e-4)
    bias = torch.zeros(len(VARIETIES), requires_grad=True)
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(targets), generator=generator).split(BATCH):
            indices, offsets, values = bags.batch(rows)
            used, local = indices.unique(return_inverse=True)
            small = weight[used].requires_grad_()
            loss = cross_entropy(logits(small, bias, (local, offsets, values)), targets[rows], reduction="none")
            (loss * weights[rows]).mean().backward()
            slope = small.grad + DECAY * small.detach()
            seen[used] += slope**2
            weight[used] -= RATE * (1 - epoch / EPOCHS) * slope / seen[used].sqrt()
            with torch.no_grad():
                bias -= 0.1 * bias.grad
                bias.grad = None
    return weight, bias.detach()


def measured(weight: torch.Tensor, bias: torch.Tensor, lines: Lines) -> dict[str, Any]:
    """Accuracy as the mean over varieties, recall of each, and how many of each (row) were taken for which (column)."""
    targets = torch.tensor([variety for variety, _, _ in lines])
    bags = Bags([text for _, _, text in lines])
    found = logits(weight, bias, bags.batch(torch.arange(len(lines)))).argmax(1)
    size = len(VARIETIES)
    confusion = torch.bincount(targets * size + found, minlength=size * size).view(size, size)
    recall = confusion.diag() / confusion.sum(1)
    return {
        "lines": len(lines),
        "accuracy": round(float(recall.mean()), 4),
        "recall": {v: round(float(r), 4) for v, r in zip(VARIETIES, recall, strict=True)},
        "confusion": dict(zip(VARIETIES, confusion.tolist(), strict=True)),
    }


def stated(measures: dict[str, dict[str, Any]]) -> str:
    """The scorer's accuracy as a sentence."""

    def shares(name: str) -> str:
        found = measures[name]
        each = ", ".join(f"{variety} {share:.0%}" for variety, share in found["recall"].items())
        return f"{found['accuracy']:.0%} of {found['lines']:,} {{}} ({each})"

    held_out = shares("held_out").format("held-out lines of its sources")
    return f"right on {held_out} and on {shares('own_texts').format('sentences written for this project')}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text_directory", type=Path)
    parser.add_argument("--output", type=Path, default=DIRECTORY)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trained, held_out = read_lines(arguments.text_directory)
    targets = torch.tensor([variety for variety, _, _ in trained])
    weight, bias = train(Bags([text for _, _, text in trained]), targets, importance(trained))
    weight = weight.half()
    own = [
        (number, "", line)
        for number, variety in enumerate(VARIETIES)
        for line in (OWN_TEXTS / f"{variety}.txt").read_text(encoding="utf-8").splitlines()
    ]
    measures = {
        name: measured(weight.float(), bias, lines) for name, lines in (("held_out", held_out), ("own_texts", own))
    }
    facts = {
        "name": "modelmerger character n-grams 1",
        "stated": stated(measures),
        "labels": VARIETIES,
        "licence": "CC BY-SA 4.0, see LICENSE and NOTICE beside this file",
        "features": {"longest n-gram": LONGEST, "buckets": BUCKETS, "hash": "crc32"},
        "training": {
            "lines": dict(sorted(Counter(source for _, source, _ in trained).items())),
            "epochs": EPOCHS,
            "rate": RATE,
            "decay": DECAY,
            "batch": BATCH,
            "note": "Epochs, rate and sources' shares were picked among 24 settings by these figures, "
            "which flatters them slightly.",
        },
        **measures,
    }
    save_file({"weight": weight.T.contiguous(), "bias": bias}, arguments.output / "model.safetensors")
    (arguments.output / "model.safetensors").chmod(0o644)
    text = json.dumps(facts, indent=1, ensure_ascii=False)
    (arguments.output / "scorer.json").write_text(text + "\n", encoding="utf-8")
    print(facts["stated"])


if __name__ == "__main__":
    main()

"""What each rule for rows that a model lacks makes of two dialect models, one of them with more tokens.

    python benchmarks/vocabularies.py FOLDER [--mergekit MERGEKIT-YAML] [--models DIRECTORY] [--steps 60]
        [--lines 200]

FOLDER holds `egyptian.tsv` and `levantine.tsv`, a source and a text in each line, tabulator between them. Two models are
trained from the Arabic base that ships: one on Egyptian lines with its 1,024 tokens, and one on Levantine lines with
2,014. Half of each is merged by every rule. What is measured are bits per byte on a tenth of the lines, which neither
saw, and the differences from `owners` with 95 % intervals: a paired bootstrap over lines. Seeded; another processor may
change the last digit. Writes `results/vocabularies.md`, and nothing of the lines.
"""

import argparse
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from attrs import frozen
from extended import lines_of, make_models
from modelmerger import MergeConfig, merge
from scoring import score
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

RESULT = Path(__file__).resolve().parent / "results/vocabularies.md"
DIALECTS = ("egyptian", "levantine")
SIZE = 2014
OWNERS = "`union`, `owners`"
RESAMPLES = 2000


@frozen
class Figures:
    """One model on the held-out lines of one dialect, all (lines,)."""

    nats: torch.Tensor
    size: torch.Tensor
    """Bytes of UTF-8."""
    tokens: torch.Tensor
    words: torch.Tensor

    @property
    def bits(self) -> float:
        """Per byte."""
        return float(self.nats.sum() / self.size.sum()) / math.log(2)

    @property
    def fertility(self) -> float:
        """Tokens per word."""
        return float(self.tokens.sum() / self.words.sum())


Measured = Mapping[str, Figures]
"""By dialect."""


@frozen
class Place:
    """Where the models are, where merges go, and the lines that measure."""

    models: Path
    folder: Path
    texts: Mapping[str, Sequence[str]]

    def measured(self, directory: Path, moved: torch.Tensor | None = None) -> Measured:
        """A model. moved: what is added to rows that the base lacks."""
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        if moved is not None:
            known = len(AutoTokenizer.from_pretrained(self.models / "base"))
            with torch.no_grad():
                model.get_input_embeddings().weight[known:] += moved
        return {
            dialect: figures(model, AutoTokenizer.from_pretrained(directory), lines)
            for dialect, lines in self.texts.items()
        }

    def merged(self, source: str, rule: str) -> Path:
        """Half of each model, by modelmerger."""
        output = self.folder / f"{source}-{rule}"
        models = [{"path": str(self.models / dialect), "weight": 0.5} for dialect in DIALECTS]
        options = {"tokenizer_source": source, "missing_tokens": rule, "check_loading": False}
        merge(MergeConfig(strategy="weighted", models=models, options=options, output_path=str(output)))
        return output

    def merged_by_mergekit(self, program: str) -> Path:
        """Half of each model, by mergekit's union."""
        output, recipe = self.folder / "mergekit", self.folder / "recipe.yaml"
        models = "".join(
            f"  - {{model: {self.models / dialect}, parameters: {{weight: 0.5}}}}\n" for dialect in DIALECTS
        )
        recipe.write_text(
            f"merge_method: linear\nmodels:\n{models}dtype: float32\nout_dtype: bfloat16\ntokenizer: {{source: union}}\n"
        )
        subprocess.run(
            [program, recipe, output], check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True
        )
        return output


def figures(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, lines: Sequence[str]) -> Figures:
    found = score(model, tokenizer, list(lines))
    counts = [[len(line.encode()) for line in lines], [len(line.split()) for line in lines]]
    size, words = (torch.tensor(count, dtype=torch.float64) for count in counts)
    return Figures(found.nats, size, found.tokens.double(), words)


def every(place: Place, mergekit: str | None) -> Iterator[tuple[str, Measured]]:
    """Each model with its figures."""
    yield "the Egyptian model", place.measured(place.models / "egyptian")
    yield "the Levantine model", place.measured(place.models / "levantine")
    yield "`base`", place.measured(place.merged("base", "owners"))
    yield OWNERS, place.measured(place.merged("union", "owners"))
    zero = place.merged("union", "zero")
    yield "`union`, `zero`", place.measured(zero)
    yield "`union`, `mean_subtokens`", place.measured(place.merged("union", "mean_subtokens"))
    rows = AutoModelForCausalLM.from_pretrained(place.models / "egyptian", dtype=torch.float32).get_input_embeddings()
    yield "union, the mean of all rows", place.measured(zero, rows.weight.detach().mean(0) / 2)
    if mergekit is not None:
        yield "mergekit's `union`", place.measured(place.merged_by_mergekit(mergekit))


def interval(ours: Figures, theirs: Figures) -> tuple[float, float]:
    """95 % interval of the difference in bits per byte, paired over lines."""
    drawn = torch.randint(len(ours.nats), (RESAMPLES, len(ours.nats)), generator=torch.Generator().manual_seed(0))
    differences = (ours.nats - theirs.nats)[drawn].sum(1) / ours.size[drawn].sum(1) / math.log(2)
    low, high = torch.quantile(differences, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def table(found: Mapping[str, Measured]) -> Iterator[str]:
    columns = [f"{dialect.capitalize()}, bits per byte | beside `owners` | tokens per word" for dialect in DIALECTS]
    yield f"| model | {' | '.join(columns)} |"
    yield "|---|" + "---:|" * 3 * len(DIALECTS)
    for name, measured in found.items():
        cells = []
        for dialect in DIALECTS:
            ours, owners = measured[dialect], found[OWNERS][dialect]
            low, high = interval(ours, owners)
            beside = "" if name == OWNERS else f"{ours.bits - owners.bits:+.3f} ({low:+.3f} to {high:+.3f})"
            cells += [f"{ours.bits:.3f}", beside, f"{ours.fertility:.2f}"]
        yield f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--mergekit", metavar="MERGEKIT-YAML")
    parser.add_argument(
        "--models", type=Path, help="where the trained models are kept, and taken from if they are there"
    )
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--lines", type=int, default=200, help="held-out lines of a dialect, at most")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.use_deterministic_algorithms(True)
    logging.disable_progress_bar()
    split = {dialect: lines_of(given.folder, dialect) for dialect in DIALECTS}
    texts = {dialect: sorted(held_out[: given.lines], key=len) for dialect, (_, held_out) in split.items()}
    with tempfile.TemporaryDirectory() as name:
        models = given.models or Path(name) / "models"
        if not (models / "levantine/model.safetensors").exists():
            started = time.process_time()
            make_models(models, {dialect: lines for dialect, (lines, _) in split.items()}, SIZE, given.steps)
            print(f"trained in {time.process_time() - started:.0f} s of CPU", flush=True)
        found = dict(every(Place(models, Path(name), texts), given.mergekit))
    counts = " and ".join(f"{len(lines)} {dialect.capitalize()}" for dialect, lines in texts.items())
    said = (
        f"Made by `benchmarks/vocabularies.py`: {given.steps} steps for each model, one seed; {counts} lines that neither "
        "model was trained on."
    )
    text = "\n".join(["# Models of two vocabularies", "", said, "", *table(found), ""])
    RESULT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

"""README.md of the merged model: what was merged, how, and under which licences."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen
from modelmerger import (
    WHOLE_MODEL,
    Checkpoint,
    DocumentError,
    InputError,
    MergePlan,
    PlannedModel,
    Problem,
    Settings,
    dump_yaml,
    hookimpl,
    parse_document,
    read_beside,
    shown,
)

if TYPE_CHECKING:
    from modelmerger import ValidationReport

CARD_LIMIT = 4 << 20
BEGIN, END = "<!-- validation by modelmerger -->", "<!-- end of the validation -->"
"""What is around the section on a validation."""
ADAPTER = {"base_model_relation": "adapter", "library_name": "peft"}
"""What the Hub wants to be told of an adapter."""
OTHER = "other"
"""The Hub's word for a licence that it does not know; `license_name` says which."""


@frozen(eq=False, repr=False)
class Source:
    """A model that was merged, at any depth of merges within merges."""

    model: PlannedModel
    """As the plan has it."""
    licence: str | None
    """What it says of its licence; None for nothing, and for a merge."""
    depth: int
    """How many merges it lies in, besides the outermost one."""

    def __str__(self) -> str:
        name = f"{'↳ ' * self.depth}{_cell(self.model.name)}{_commit(self.model)}"
        if (merge := self.model.merge) is None:
            return f"| {name} | {_cell(self.licence or 'not stated')} |"
        return f"| {name} | {_cell(merge.strategy)} of: |"


@hookimpl
def check_compatibility(settings: Settings) -> Iterable[Problem]:
    """No problems with models; but raises `ConfigError` for a config that cannot be written to the card."""
    dump_yaml(settings.given)
    return ()


@hookimpl
def name_companions() -> list[str]:
    """The card, because a validation adds a section to it."""
    return ["README.md"]


@hookimpl
def write_sidecars(plan: MergePlan, checkpoints: Sequence[Checkpoint], settings: Settings) -> Mapping[str, bytes]:
    """The model card."""
    sources = list(_sources(plan, checkpoints))
    licences = [source.licence for source in sources if source.model.merge is None]
    known = sorted({licence for licence in licences if licence})
    paths = list(dict.fromkeys(_repository(source.model) for source in sources if _has_a_path(source.model)))
    head = _model_head(paths) if plan.writes == WHOLE_MODEL else _part_head(plan)
    head["tags"] = ["merge", "modelmerger"]
    alike = len(known) == 1 and all(licences) and known != [OTHER]
    if alike:
        name = known[0].removeprefix(f"{OTHER}: ")
        head |= {"license": known[0]} if name == known[0] else {"license": OTHER, "license_name": name}
    config = dump_yaml(settings.given)
    fence = "`" * max(3, 1 + _longest_run(config))
    table = "\n".join(map(str, sources))
    warning = ""
    if len(known) > 1:
        differing = _cell(", ".join(known))
        warning = (
            f"\n**The licences of the sources differ ({differing}). Check that they allow what you want to do.**\n"
        )
    elif not alike:
        warning = "\nNot every source states its licence. Find out before you pass this model on.\n"
    given = "".join(
        f"\nThe {_cell(plugin)} was not installed, but given by whoever made this model (BLAKE3 {digest}).\n"
        for plugin, digest in settings.of_process.items()
    )
    strategy = f"the strategy {_cell(plan.strategy)} from {len(settings.models)} models"
    text = f"""---
{dump_yaml(head)}---

# Merged {plan.writes}

Made with modelmerger by {strategy}. `modelmerger verify` checks the files.

| source | licence |
|---|---|
{table}
{warning}{given}
## Config

{fence}yaml
{config}{fence}
"""
    return {"README.md": text.encode()}


def _sources(plan: MergePlan, checkpoints: Sequence[Checkpoint], depth: int = 0) -> Iterator[Source]:
    """The models of a plan, each followed by those that it is made of."""
    for model, checkpoint in zip(plan.models, checkpoints, strict=True):
        yield Source(model, _licence(checkpoint) if model.merge is None else None, depth)
        if model.merge is not None:
            yield from _sources(model.merge, checkpoint.sources, depth + 1)


def _model_head(paths: Sequence[str]) -> dict[str, Any]:
    head: dict[str, Any] = {"base_model": paths, "base_model_relation": "merge"} if paths else {}
    return {**head, "library_name": "transformers"}


def _part_head(plan: MergePlan) -> dict[str, Any]:
    """The head of the card of what is no whole model. Its base model is the one that it can be used with."""
    head: dict[str, Any] = {"base_model": [_repository(plan.models[plan.donor])]}
    return {**head, **ADAPTER} if plan.writes == "adapter" else head


@hookimpl
def write_companions(directory: Path, report: "ValidationReport") -> Mapping[str, bytes]:
    """The card with a section on the validation, in place of an earlier one."""
    card = (read_beside(directory, "README.md", CARD_LIMIT) or b"# Merged model\n").decode(errors="surrogateescape")
    return {"README.md": f"{_without_sections(card).rstrip()}\n\n{_section(report)}".encode(errors="surrogateescape")}


def _without_sections(card: str) -> str:
    """The card without what earlier validations wrote, in one pass."""
    kept, at = [], 0
    for begun in re.finditer(rf"^{BEGIN}$", card, re.MULTILINE):
        if begun.start() < at:
            continue
        if (end := card.find(f"\n{END}", begun.end())) < 0:
            break
        kept.append(card[at : begun.start()])
        at = end + len(END) + 1
        at += card.startswith("\n", at)
    return "".join([*kept, card[at:]])


def _section(report: "ValidationReport") -> str:
    from modelmerger import MOST_EXAMPLES

    headings, *rows = report.rows()
    table = [_row(headings), _row(["---"] * len(headings), escape=str), *map(_row, rows)]
    notes = [f"- {_cell(note, 800)}" for note in report.notes()]
    asked = [_row([s.prompt, s.answer.strip(), s.answered_label or "–"]) for s in report.examples(MOST_EXAMPLES)]
    if asked:
        asked = ["", _row(["prompt", "answer", "answered in"]), _row(["---"] * 3, escape=str), *asked]
    verdict = "All thresholds hold." if report.passed else f"**Thresholds crossed: {_cell(report.verdict)}.**"
    said = [verdict, ""] if report.has_thresholds else []
    return "\n".join([BEGIN, "", "## Validation", "", *said, *table, "", *notes, *asked, "", END, ""])


def _row(cells: Sequence[str], escape: Callable[[str], str] | None = None) -> str:
    return f"| {' | '.join(map(escape or _cell, cells))} |"


def _repository(model: PlannedModel) -> str:
    """The path as it is recorded, or the Hub id without its revision, by which the Hub draws the family tree."""
    return model.path.partition("@")[0] if model.revision else model.path


def _has_a_path(model: PlannedModel) -> bool:
    """Whether the model is neither a merge nor one in memory, for which a text stands that is no path."""
    return model.merge is None and not model.path.startswith("<")


def _commit(model: PlannedModel) -> str:
    return f" ({_cell(_repository(model))}, commit {_cell(model.revision)})" if model.revision else ""


def _licence(checkpoint: Checkpoint) -> str | None:
    """The licence in the head of the source's own model card."""
    directory = checkpoint.donor.directory
    try:
        card = read_beside(directory, "README.md", CARD_LIMIT) if directory else None
    except InputError:
        return None
    card = (card or b"").removeprefix(b"\xef\xbb\xbf")
    if not card.startswith(b"---"):
        return None
    try:
        head = parse_document(card[3:].split(b"\n---", 1)[0], source="README.md", format="yaml")
    except DocumentError:
        return None
    licence, name = head.get("license"), head.get("license_name")
    if isinstance(licence, list):
        licence = ", ".join(map(str, licence))
    if licence == OTHER and name:
        licence = f"{OTHER}: {name}"
    return str(licence) if licence else None


def _cell(text: str, limit: int = 120) -> str:
    """The text as a cell of a Markdown table, with all markup escaped."""
    escaped = "".join(f"&#{ord(c)};" if c in "|`*_[]<>&#\\!~$:@" else c for c in shown(text, limit))
    return re.sub(r"www\.", "www&#46;", escaped, flags=re.IGNORECASE)


def _longest_run(text: str) -> int:
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    return longest

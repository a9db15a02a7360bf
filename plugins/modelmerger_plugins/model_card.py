"""README.md of the merged model: what was merged, how, and under which licences."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelmerger import Checkpoint, InputError, MergePlan, Settings, hookimpl, read_beside
from modelmerger.documents import DocumentError, dump_yaml, parse_document
from modelmerger.text import shown

CARD_LIMIT = 4 << 20


@hookimpl
def write_sidecars(plan: MergePlan, checkpoints: Sequence[Checkpoint], settings: Settings) -> Mapping[str, bytes]:
    """The model card."""
    licences = {checkpoint.name: _licence(checkpoint) for checkpoint in checkpoints}
    known = sorted({licence for licence in licences.values() if licence})
    head: dict[str, Any] = {"base_model": [model.path for model in plan.models], "base_model_relation": "merge"}
    head |= {"library_name": "transformers", "tags": ["merge", "modelmerger"]}
    if len(known) == 1 and all(licences.values()):
        head["license"] = known[0]
    config = dump_yaml(settings.given)
    fence = "`" * max(3, 1 + _longest_run(config))
    sources = "\n".join(f"| {_cell(name)} | {_cell(licence or 'not stated')} |" for name, licence in licences.items())
    warning = ""
    if len(known) > 1:
        warning = f"\n**The licences of the sources differ ({_cell(', '.join(known))}). Check that they allow what you want to do.**\n"
    elif not all(licences.values()):
        warning = "\nNot every source states its licence. Find out before you pass this model on.\n"
    text = f"""---
{dump_yaml(head)}---

# Merged model

Made with modelmerger by the strategy {_cell(plan.strategy)} from {len(settings.models)} models. `modelmerger verify` checks the files.

| source | licence |
|---|---|
{sources}
{warning}
## Config

{fence}yaml
{config}{fence}
"""
    return {"README.md": text.encode()}


def _licence(checkpoint: Checkpoint) -> str | None:
    """What the head of the source's own model card says."""
    directory = checkpoint.donor.directory
    try:
        card = read_beside(directory, "README.md", CARD_LIMIT) if directory else None
    except InputError:
        return None
    if card is None or not card.startswith(b"---"):
        return None
    head = card[3:].split(b"\n---", 1)[0]
    try:
        licence = parse_document(head, source="README.md", format="yaml").get("license")
    except DocumentError:
        return None
    return str(licence) if licence else None


def _cell(text: str) -> str:
    """Text in a Markdown table: nothing in it is markup."""
    return "".join(f"&#{ord(c)};" if c in "|`*_[]<>&#\\!~$" else c for c in shown(text))


def _longest_run(text: str) -> int:
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    return longest

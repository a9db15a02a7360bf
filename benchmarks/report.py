"""Results as JSON and as a Markdown table."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from picture import draw
from results import Result

MIB = 2**20
GB = 1e9


def write_reports(folder: Path, machine: dict[str, Any], settings: dict[str, Any], results: Sequence[Result]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    merges = [result.as_json() for result in results]
    document = {"machine": machine, "settings": settings, "merges": merges}
    (folder / "latest.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "latest.md").write_text(markdown(machine, settings, results))
    (folder / "latest.svg").write_text(draw(merges))


def markdown(machine: dict[str, Any], settings: dict[str, Any], results: Sequence[Result]) -> str:
    lines = ["# Benchmark", "", *describe_machine(machine), "", *describe_method(settings, results), ""]
    lines += [
        "| merge | by | wall s (min–max) | then on the device s | CPU s | peak MiB | of it anonymous | read GB | written GB |"
    ]
    lines += ["|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    for result in results:
        lines += [row(result, contender) for contender in result.runs]
        lines += [f"| {result.name} | {name} | {reason} | | | | | | |" for name, reason in result.failures.items()]
    compared = [ratios(result, name) for result in results for name in result.runs if name != result.reference]
    if compared:
        lines += ["", "How many times the figure of the first contender (medians of the ratios, round by round):", ""]
        lines += ["| merge | by | against | wall | CPU | peak memory |", "|---|---|---|---:|---:|---:|", *compared]
    for result in results:
        for name, (equal, compared) in result.agreements.items():
            of_all = f"{100 * compared:.1f} % of all elements, where no magnitude equals its threshold"
            lines += ["", f"{result.name}: {name} has modelmerger's bits in {100 * equal:.3f} % of the {of_all}."]
    lines += ["", *(f"Not measured: {reason}." for reason in settings["skipped"])]
    return "\n".join(lines).rstrip() + "\n"


def row(result: Result, contender: str) -> str:
    low, high = result.spread(contender, "wall")
    cells = [
        f"{result.median(contender, 'wall'):.2f} ({low:.2f}–{high:.2f})",
        f"{result.median(contender, 'unsynced'):.2f}",
        f"{result.median(contender, 'cpu'):.2f}",
        f"{result.median(contender, 'peak_resident') / MIB:,.0f}",
        f"{result.median(contender, 'peak_anonymous') / MIB:,.0f}",
        f"{result.median(contender, 'storage_read') / GB:.2f}",
        f"{result.median(contender, 'storage_written') / GB:.2f}",
    ]
    return f"| {result.name} | {contender} | {' | '.join(cells)} |"


def ratios(result: Result, contender: str) -> str:
    found = [result.ratio(contender, quantity) for quantity in ("wall", "cpu", "peak_resident")]
    cells = ["–" if ratio is None else f"{ratio:.2f}×" for ratio in found]
    return f"| {result.name} | {contender} | {result.reference} | {' | '.join(cells)} |"


def describe_machine(machine: dict[str, Any]) -> list[str]:
    memory = f"{machine['memory_bytes'] / 2**30:.1f} GiB of memory"
    parts = [machine["cpu"], f"{machine['cores']} cores", memory, machine["kernel"], machine["filesystem"]]
    lines = [f"{', '.join(parts)}; load average at the start {machine['load_average_at_start']}."]
    for place in ("modelmerger", "mergekit"):
        found = machine.get(f"{place}_environment")
        if found:
            versions = ", ".join(f"{name} {version}" for name, version in found.items())
            lines += ["", f"Environment of {place}: {versions}."]
    return lines


METHOD = """\
Whole processes, from start to end, in turn; one warm-up round per model size, then {rounds}; figures are medians. Each
output was removed, and the disk synced, before each run. The inputs {before} before every run; at most
{share:.1f} % of a merge's input came from the device in any run. `cp` copies one model and waits until it is on the
device, as modelmerger does; for the others "then on the device" is what a sync still took after their end. `import torch` is what
any merge with torch pays before it begins. Everything else on the machine (the kernel's writeback included) kept at most
{others:.2f} cores busy during any run. Peak memory is the kernel's high-water mark and counts mapped file pages; the
anonymous part is sampled."""
BEFORE = {"warm": "were read through", "cold": "were dropped from the page cache"}


def describe_method(settings: dict[str, Any], results: Sequence[Result]) -> list[str]:
    rounds = settings["rounds"]
    text = METHOD.format(
        rounds=f"{rounds} round" if rounds == 1 else f"{rounds} rounds",
        before=BEFORE[settings["page_cache"]],
        others=max((result.largest_disturbance() for result in results), default=0.0),
        share=100 * max((result.largest_share_read() for result in results), default=0.0),
    )
    return text.splitlines()

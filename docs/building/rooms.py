"""Which page stands in which room of the site, and in which order: a page that is not named comes after the others."""

from collections.abc import Iterable

ROOMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Tutorials": (
        "tutorials/",
        (
            "tutorial.md",
            "tutorials/fine-tunes.md",
            "tutorials/lora.md",
            "tutorials/notebook.md",
            "tutorials/tune.md",
            "tutorial.ar.md",
        ),
    ),
    "How to": (
        "how-to/",
        (
            "how-to/when-it-does-not-work.md",
            "how-to/merge-from-the-hub.md",
            "how-to/merge-large-models.md",
            "how-to/scale-out.md",
            "how-to/merge-on-a-gpu.md",
            "how-to/merge-adapters.md",
            "how-to/merge-extended-vocabularies.md",
            "how-to/average-checkpoints.md",
            "how-to/weigh-layers.md",
            "how-to/nest-merges.md",
            "how-to/merge-in-memory.md",
            "how-to/run-merges-safely.md",
            "how-to/validate.md",
            "how-to/come-from-mergekit.md",
            "how-to/keep-old-imports.md",
        ),
    ),
    "Write plugins": (
        "how-to/write-",
        (
            "how-to/write-a-strategy.md",
            "how-to/write-a-validator.md",
            "how-to/write-a-loader.md",
            "how-to/write-a-view.md",
            "how-to/write-a-writer.md",
            "how-to/write-sidecars.md",
            "how-to/write-companions.md",
            "how-to/write-an-executor.md",
            "how-to/add-a-command.md",
            "how-to/read-other-configs.md",
            "how-to/give-a-plugin-options.md",
            "how-to/test-a-plugin.md",
        ),
    ),
    "Reference": (
        "reference/",
        (
            "reference/config.md",
            "reference/strategies.md",
            "reference/command-line.md",
            "reference/json.md",
            "reference/output.md",
            "reference/manifest.md",
            "reference/validation-json.md",
            "reference/hooks.md",
        ),
    ),
    "Explanation": (
        "explanation/",
        (
            "explanation/how-a-merge-works.md",
            "explanation/rooms.md",
            "explanation/numbers.md",
            "explanation/publishing.md",
            "explanation/what-merging-can-do.md",
            "explanation/choosing-a-strategy.md",
            "explanation/comparison.md",
            "explanation/what-a-merge-costs.md",
            "explanation/when-not-to-scale-out.md",
            "explanation/faults.md",
            "explanation/threat-model.md",
            "glossary.md",
        ),
    ),
}
"""Room → the folder whose other pages are in it too, and its pages in order."""

ELSEWHERE = {
    "index.md": "README.md",
    "index.ar.md": "README.ar.md",
    "changes.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "dialects.md": "examples/dialects/README.md",
    "benchmarks.md": "benchmarks/README.md",
    "benchmarks/latest.md": "benchmarks/results/latest.md",
    "benchmarks/comparison.md": "benchmarks/results/comparison.md",
    "benchmarks/large.md": "benchmarks/results/large.md",
    "benchmarks/planned.md": "benchmarks/results/planned.md",
    "arabic-texts.md": "validators/modelmerger_validators/data/README.md",
}
"""Page of the site → the file of the repository, outside of docs/, that it is."""

MEASURED = {
    "benchmarks/latest.md": "Times, beside other tools",
    "benchmarks/comparison.md": "Numbers, beside other tools",
    "benchmarks/large.md": "Times of 7B",
    "benchmarks/planned.md": "What was planned, and what it took",
}
"""What the site calls pages of figures, whose own headings are alike."""

Nav = list[dict[str, object]]


def _folder(page: str) -> str:
    """The longest of the rooms' folders that a page is in."""
    return max((folder for folder, _ in ROOMS.values() if page.startswith(folder)), key=len, default="")


def navigation(pages: Iterable[str], reference: Nav) -> Nav:
    """What the site lists. pages: all under docs/. reference: the generated pages, which end the room of that name."""
    here = set(pages)
    named = {page for _, names in ROOMS.values() for page in names}
    decisions = sorted(page for page in here if page.startswith("explanation/decisions/"))
    here -= set(decisions)
    nav: Nav = [{"Start": ["index.md", {"بالعربية": "index.ar.md"}]}]
    for room, (folder, names) in ROOMS.items():
        others = [page for page in here - named if _folder(page) == folder]
        listed: list[object] = [*(page for page in names if page in here), *sorted(others)]
        if room == "Reference":
            listed += reference
        if room == "Explanation":
            listed.append({"Decisions": decisions})
        nav.append({room: listed})
    project = [{MEASURED[page]: page} if page in MEASURED else page for page in ELSEWHERE if page[:5] != "index"]
    return [*nav, {"Project": project}]

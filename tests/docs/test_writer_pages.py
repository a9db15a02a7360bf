"""The writer, the sidecars and the options of the how-to pages do what the pages say."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from docs.test_docs import ROOT, blocks
from modelmerger import MergeConfig, MergeReport, merge, parse_document, verify
from safetensors.torch import load_file


def merged(name: str, install_plugins: Callable[[Path], None]) -> MergeReport:
    """Merges by the config of a page, with its plugin installed."""
    page = ROOT / f"docs/how-to/{name}.md"
    install_plugins(page)
    (text,) = blocks(page, "yaml")
    return merge(MergeConfig.from_dict(parse_document(text, source=name, format="yaml")))


def test_the_writer_makes_numpy_files(place: Path, install_plugins: Callable[[Path], None]) -> None:
    report = merged("write-a-writer", install_plugins)

    chat, formal = (load_file(place / "models" / name / "model.safetensors") for name in ("chat", "formal"))
    names = json.loads(Path(report.output, "names.json").read_bytes())
    assert names.keys() == chat.keys()
    for name, file in names.items():
        exact = (chat[name].double() + formal[name].double()) / 2
        assert torch.equal(torch.from_numpy(np.load(Path(report.output, file))), exact.float())
    assert verify(report.output)


def test_sidecars_are_copied_and_listed(place: Path, install_plugins: Callable[[Path], None]) -> None:
    (place / "models/chat").unlink()
    (place / "models/chat").mkdir()
    for file in (place / "models/formal").iterdir():
        (place / "models/chat" / file.name).write_bytes(file.read_bytes())
    (place / "models/chat/ETHICS.md").write_text("Be kind.")

    report = merged("write-sidecars", install_plugins)

    assert Path(report.output, "ethics/chat/ETHICS.md").read_text() == "Be kind."
    assert json.loads(Path(report.output, "ethics.json").read_bytes()) == ["chat"]
    assert report.beside.copied["ethics/chat/ETHICS.md"] == "chat"
    assert not [note for note in report.notes if "ETHICS" in note.message]


def test_sidecars_miss_what_no_source_has(place: Path, install_plugins: Callable[[Path], None]) -> None:
    report = merged("write-sidecars", install_plugins)

    assert [note.message for note in report.notes if "ETHICS" in note.message] == [
        "no source has an ETHICS.md, and this team publishes none without"
    ]


def test_options_reach_the_coefficients(
    place: Path, install_plugins: Callable[[Path], None], command: Callable[..., SimpleNamespace]
) -> None:
    page = ROOT / "docs/how-to/give-a-plugin-options.md"
    install_plugins(page)
    (place / "merge.yaml").write_text(blocks(page, "yaml")[0])

    plan = json.loads(command("plan", "merge.yaml", "--no-trial", "--json").out)

    for tensor in plan["tensors"]:
        power = 2 if "mlp" in tensor["name"] else 1
        shares = np.array([0.6**power, 2 * 0.4**power])
        assert tensor["coefficients"] == [round(float(share), 1) for share in shares / shares.sum()]

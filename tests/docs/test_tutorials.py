"""Each tutorial is done from top to bottom, as a reader would: Python in one session, configs saved, commands run."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.md"))
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.usefixtures("tokenizers_here", "untried")
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_goes_from_top_to_bottom(
    page: Path, place: Path, command: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    session: dict[str, Any] = {}
    for language, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(text, page.name, "exec"), session)
        elif language == "yaml":
            (place / text.partition("\n")[0].removeprefix("# ")).write_text(text, encoding="utf-8")
        elif language == "console":
            for line in text.splitlines():
                program, *arguments = line.split()
                if program == "make":  # which CI runs by itself
                    continue
                assert program == "modelmerger"
                result = command(*arguments)
                assert result.status == 0, (line, result.err)
        elif language != "text":
            raise AssertionError(f"who runs {language}?")


def test_every_tutorial_is_found() -> None:
    assert len(TUTORIALS) >= 3

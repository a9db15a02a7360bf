"""Draws docs/pictures/terminal.svg: a merge of two dialect adapters that ship, and its validation, on a terminal.

    python docs/building/terminal.py

The commands are run in a terminal of their own, in a temporary folder, and what they print is drawn as it is.
"""

import io
import os
import pty
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs/pictures/terminal.svg"
COLUMNS = 92
CONFIG = """\
strategy: task_arithmetic
base_model: base
models:
  - {path: adapters/egyptian}
  - {path: adapters/gulf}
output_path: merged
options: {scaling_factor: 0.7}
peft_config: {base_model_path: base}
validation: {metrics: [perplexity], compare_with_sources: true, thresholds: {bits_per_byte: 2.6}}
"""
COMMANDS = (("merge", "merge.yaml"), ("verify", "merged"))
THEME = TerminalTheme(
    (28, 32, 38),
    (222, 226, 230),
    [
        *[(28, 32, 38), (240, 113, 120), (130, 200, 140), (230, 190, 110)],
        *[(120, 170, 240), (200, 150, 230), (110, 200, 210), (222, 226, 230)],
    ],
)
_MOVES = re.compile(r"(\n|\x1b\[1A|\x1b\[2K|\x1b\[K)")
_UNSEEN = re.compile(r"\x1b\[\?25[hl]|\r")
FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {terminal_width} {terminal_height}">
<title>A terminal: modelmerger merge prints a line about the merge, then the table of its validation</title>
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="100%" height="100%"/></clipPath>
{lines}
</defs>
<rect width="100%" height="100%" rx="8" fill="#1c2026"/>
<g transform="translate(10, 10)" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def in_terminal(arguments: Sequence[str], folder: Path) -> str:
    """What a command leaves on a terminal once it has ended."""
    printed = io.BytesIO()

    def read(descriptor: int) -> bytes:
        content = os.read(descriptor, 1024)
        printed.write(content)
        return content  # which pty prints too: the run can be followed

    before = Path.cwd()
    os.chdir(folder)
    try:
        status = pty.spawn([sys.executable, "-m", "modelmerger", *arguments], read)
    finally:
        os.chdir(before)
    if status:
        raise SystemExit(printed.getvalue().decode())
    return on_screen(_UNSEEN.sub("", printed.getvalue().decode()))


def on_screen(printed: str) -> str:
    """What is left of the text once lines were erased, as progress erases its own."""
    lines, row = [""], 0
    for part in _MOVES.split(printed):
        if part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part == "\x1b[1A":
            row -= 1
        elif part in ("\x1b[2K", "\x1b[K"):  # the second behind a return to the first column
            lines[row] = ""
        else:
            lines[row] += part
    return "\n".join(lines)


def draw() -> None:
    """Runs the commands and writes the picture."""
    os.environ |= {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "HF_HUB_OFFLINE": "1"}
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "examples/dialects/base", folder / "base")
        shutil.copytree(ROOT / "examples/dialects/adapters", folder / "adapters")
        (folder / "merge.yaml").write_text(CONFIG, encoding="utf-8")
        for command in COMMANDS:
            console.print(Text(f"$ modelmerger {' '.join(command)}", style="bold"))
            console.print(Text.from_ansi(in_terminal(command, folder).replace(name, "~").rstrip()))
            console.print()
    picture = console.export_svg(title="", theme=THEME, code_format=FRAME, unique_id="terminal")
    PICTURE.write_text(
        "\n".join(line.rstrip() for line in picture.splitlines() if line.strip()) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    draw()

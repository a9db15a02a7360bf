"""Shell completion: what is proposed for a line, what the scripts are, and that nothing heavy is imported for it."""

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modelmerger.cli.process import main

Proposed = Callable[[str], list[str]]
BASH, ZSH, FISH = map(shutil.which, ("bash", "zsh", "fish"))
PATIENCE = 60.0
"""Seconds that a shell may take to answer."""


@pytest.fixture
def proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Proposed:
    """What bash is given for a line, kind and word, in a folder with configs."""
    monkeypatch.chdir(tmp_path)
    models = [{"path": "./a"}, {"path": "./b"}]
    Path("merge.yaml").write_text(json.dumps({"strategy": "task_arithmetic", "models": models}))
    Path("my merge.json").write_text("{")
    Path("merged").mkdir()
    for name in ("notes.txt", ".hidden.yaml"):
        Path(name).touch()

    def complete(line: str) -> list[str]:
        monkeypatch.setenv("_MODELMERGER_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", "")
        status = main([])
        said = capfd.readouterr()
        assert (status, said.err) == (0, "")
        return said.out.split("\n")[:-1] if said.out.strip() else []

    return complete


def test_commands_of_the_core_and_of_plugins(proposed: Proposed) -> None:
    assert proposed("modelmerger pl") == ["plain,plan", "plain,plugins"]
    assert proposed("modelmerger di") == ["plain,diff"]
    assert proposed("modelmerger verify mer") == ["dir,mer"]
    assert proposed("modelmerger completion ") == ["plain,bash", "plain,zsh", "plain,fish"]


def test_options_also_of_plugins_commands(proposed: Proposed) -> None:
    assert proposed("modelmerger check merge.yaml --o") == ["plain,--output", "plain,--overwrite"]
    assert proposed("modelmerger diff --pa") == ["plain,--page"]
    assert proposed("modelmerger init --strategy ram") == ["plain,ram", "plain,ramplus_tl"]


def test_configs_are_yaml_and_json_files_and_folders(proposed: Proposed) -> None:
    assert proposed("modelmerger merge ") == ["path,merge.yaml", "path,merged", "path,my merge.json"]
    assert proposed("modelmerger merge --strict me") == ["path,merge.yaml", "path,merged"]
    assert proposed("modelmerger merge my\\ ") == proposed("modelmerger merge 'my ") == ["path,my merge.json"]
    assert proposed("modelmerger merge .") == ["path,.hidden.yaml"]
    assert proposed("modelmerger merge ./merged/../not") == []
    assert proposed("modelmerger merge nowhere/") == []


def test_strategies_where_one_is_wanted(proposed: Proposed) -> None:
    assert proposed("modelmerger plan merge.yaml --set strategy=ti") == ["plain,ties"]
    assert proposed("modelmerger plan merge.yaml --set=strategy=ti") == ["plain,ties"]
    assert proposed("modelmerger plan merge.yaml --set 'strategy=ti") == ["plain,strategy=ties"]


def test_keys_one_part_after_the_other(proposed: Proposed) -> None:
    first = proposed("modelmerger plan merge.yaml --set ")
    assert {"part,strategy=", "part,base_model=", "part,options.", "part,models[0].", "part,models[1]."} <= {*first}
    assert "part,peft_config." in first
    assert not any("weight" in word for word in first)
    assert proposed("modelmerger plan merge.yaml --set models[1].we") == ["part,models[1].weight="]
    assert proposed("modelmerger plan merge.yaml --set validation.met") == ["part,validation.metrics="]


def test_options_are_those_of_the_core_of_the_strategy_and_of_plugins(proposed: Proposed) -> None:
    line = "modelmerger plan merge.yaml --set options."
    assert proposed(line + "scal") == ["part,options.scaling_factor="]
    assert proposed(line + "torch_d") == ["part,options.torch_dtype="]
    assert proposed(line + "geom") == ["part,options.geometry="]
    assert proposed(line + "dens") == []
    assert proposed("modelmerger plan merge.yaml --set strategy=ties --set options.dens") == ["part,options.density="]
    assert proposed("modelmerger plan --set options.scal") == []  # no config, so no strategy


def test_values_that_a_key_may_have(proposed: Proposed) -> None:
    line = "modelmerger plan merge.yaml --set options."
    assert proposed(line + "clamp_weights=") == ["plain,true", "plain,false"]
    assert proposed(line + "torch_dtype=b") == ["plain,bfloat16"]
    assert proposed("modelmerger plan merge.yaml --set models[0].operation=s") == ["plain,subtract"]


def test_a_config_that_cannot_be_read_has_the_keys_of_every_merge(proposed: Proposed) -> None:
    assert proposed("modelmerger plan 'my merge.json' --set options.see") == ["part,options.seed="]
    assert proposed("modelmerger plan 'my merge.json' --set options.scal") == []


def test_a_file_of_a_plugin_is_not_run(proposed: Proposed, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("open('ran', 'w')")
    assert proposed("modelmerger plan merge.yaml --plugin mine.py --set options.scal") == [
        "part,options.scaling_factor="
    ]
    assert not (tmp_path / "ran").exists()


def test_names_of_plugins(proposed: Proposed) -> None:
    assert proposed("modelmerger plugins report") == ["plain,report_page"]


def test_words_as_click_asks_for_them(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    words = {"COMP_WORDS": "modelmerger plan --set strategy=tie", "COMP_CWORD": "3"}
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    for shell, answer in (
        ("bash", "plain,strategy=ties\n"),
        ("zsh", "plain\nstrategy=ties\n_\n"),
    ):
        monkeypatch.setenv("_MODELMERGER_COMPLETE", f"{shell}_complete")
        assert main([]) == 0
        assert capfd.readouterr().out == answer
    monkeypatch.setenv("COMP_WORDS", "modelmerger plan --set=options.torch_dt")
    monkeypatch.setenv("COMP_CWORD", "--set=options.torch_dt")
    monkeypatch.setenv("_MODELMERGER_COMPLETE", "fish_complete")
    assert main([]) == 0
    assert capfd.readouterr().out.startswith("part,--set=options.torch_dtype=\tDtype written for")


@pytest.mark.parametrize("instruction", ["ksh_complete", "bash", "bash_dance"])
def test_what_no_shell_asks_is_status_1(instruction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_MODELMERGER_COMPLETE", instruction)
    assert main([]) == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_for_what_is_answered(
    shell: str, command: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    script = command("completion", shell).out
    assert f"_MODELMERGER_COMPLETE={shell}_complete" in script
    assert "%(" not in script
    monkeypatch.setenv("_MODELMERGER_COMPLETE", f"{shell}_source")
    assert main([]) == 0
    assert capfd.readouterr().out == script


def test_another_shell_is_refused(command: Callable[..., SimpleNamespace]) -> None:
    result = command("completion", "ksh")
    assert result.status == 2
    assert "'bash', 'zsh', 'fish'" in result.err


def write_program(folder: Path) -> None:
    """A `modelmerger` that completes, and otherwise only says what it was given."""
    asked = 'if [ -n "$_MODELMERGER_COMPLETE" ]'
    script = f"""#!/bin/sh
{asked}; then exec "{sys.executable}" -m modelmerger "$@"; fi
printf '<%s>' "$@"
"""
    (folder / "modelmerger").write_text(script)
    (folder / "modelmerger").chmod(0o755)


@pytest.mark.skipif(BASH is None, reason="no bash")
def test_real_bash_takes_the_script(
    proposed: Proposed, tmp_path: Path, command: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder whose files the words would match as patterns."""
    monkeypatch.delenv("_MODELMERGER_COMPLETE", raising=False)
    (tmp_path / "models1.weight=").touch()
    (tmp_path / "نموذج.yaml").touch()
    write_program(tmp_path)
    (tmp_path / "script").write_text(command("completion", "bash").out)
    asked = tmp_path / "asked"
    asked.write_text(
        'shopt -s nullglob; compopt() { echo "option $2"; }; . ./script\n'
        "complete -p modelmerger\n"
        "ask() { COMP_LINE=$1 COMP_POINT=${2:-${#1}} COMPREPLY=(); _modelmerger_completion ./modelmerger\n"
        "  printf '<%s>\\n' \"${COMPREPLY[@]}\"; }\n"
        "ask 'modelmerger merge merge.yaml --set models[1].wei'\n"
        "ask 'modelmerger merge merge.yaml --set strategy=ties --set options.den'\n"
        "ask 'modelmerger merge my\\ '\n"
        "ask 'modelmerger merge نمو'\n"
        "ask 'modelmerger validate x'\n"
        "ask 'modelmerger ver merge.yaml' 15\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [str(BASH), "--norc", str(asked)],
        cwd=tmp_path,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "complete -o nosort -F _modelmerger_completion modelmerger",
        "option nospace",
        "<models[1].weight=>",
        "option nospace",
        "<options.density=>",
        "option filenames",
        "<my merge.json>",
        "option filenames",
        "<نموذج.yaml>",
        "option dirnames",
        "<>",
        "<verify>",
    ]


@pytest.mark.skipif(FISH is None, reason="no fish; Debian has it in the package 'fish'")
def test_real_fish_takes_the_script(
    proposed: Proposed, tmp_path: Path, command: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("_MODELMERGER_COMPLETE", raising=False)
    write_program(tmp_path)
    (tmp_path / "merged/in it/deeper").mkdir(parents=True)
    (tmp_path / "script").write_text(command("completion", "fish").out)
    found = {
        "plan merge.yaml --set models[1].wei": ["models[1].weight="],
        "plan merge.yaml --set=strategy=ti": ["--set=strategy=ties"],
        "merge my": ["my merge.json"],
        "validate merged/": ["merged/in it/"],
        r"validate merged/in\\ it/": ["merged/in it/deeper/"],
        "merge merge.yaml --output=merged/i": ["--output=merged/in it/"],
    }
    asked = "".join(f"complete -C 'modelmerger {line}'; echo .\n" for line in found)
    done = subprocess.run(
        [str(FISH), "--no-config", "-c", f"source script\n{asked}"],
        cwd=tmp_path,
        env=os.environ | {"LC_ALL": "C.UTF-8", "HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        encoding="utf-8",
        timeout=2 * PATIENCE,
        check=False,
    )
    assert done.stderr == ""
    answers = [[line.partition("\t")[0] for line in one.splitlines()] for one in done.stdout.split("\n.\n")[:-1]]
    assert answers == list(found.values())


@pytest.mark.skipif(ZSH is None, reason="no zsh; Debian has it in the package 'zsh'")
def test_real_zsh_takes_the_script_and_quotes_brackets(
    proposed: Proposed, tmp_path: Path, command: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal, for without one zsh completes nothing. What it makes of a line is what the program is given."""
    monkeypatch.delenv("_MODELMERGER_COMPLETE", raising=False)
    write_program(tmp_path)
    (tmp_path / "script").write_text(command("completion", "zsh").out)
    env = {"LC_ALL": "C.UTF-8", "HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}", "TERM": "dumb"}
    for name in ("PYTHONPATH", "COLUMNS"):
        env |= {name: os.environ[name]} if name in os.environ else {}
    spawn = [sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])", str(ZSH), "-f", "-i"]
    with subprocess.Popen(spawn, cwd=tmp_path, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as terminal:
        try:
            typed(terminal, "autoload -Uz compinit; compinit -u -D; . ./script; PROMPT='rea''dy '\r", "ready ")
            for line, given in (
                ("plan merge.yaml --set models[1].wei\t0.5", "<plan><merge.yaml><--set><models[1].weight=0.5>"),
                ("plan merge.yaml --set 'models[1].wei\t0.5'", "<plan><merge.yaml><--set><models[1].weight=0.5>"),
                ("plan merge.yaml --set=strategy=ti\t", "<plan><merge.yaml><--set=strategy=ties>"),
                ("merge my\t", "<merge><my merge.json>"),
                ("merge ~/my\t", f"<merge><{tmp_path}/my merge.json>"),
            ):
                typed(terminal, f"modelmerger {line}\r", given)
        finally:
            terminal.kill()


def typed(terminal: "subprocess.Popen[bytes]", keys: str, awaited: str) -> None:
    """Types into a terminal, and reads until it shows what is awaited."""
    assert terminal.stdin is not None
    assert terminal.stdout is not None
    terminal.stdin.write(keys.encode())
    terminal.stdin.flush()
    shown, deadline = "", time.monotonic() + PATIENCE
    while awaited not in shown:
        assert select.select([terminal.stdout], [], [], max(0.0, deadline - time.monotonic()))[0], shown
        shown += os.read(terminal.stdout.fileno(), 65536).decode(errors="replace")

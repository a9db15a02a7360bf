"""Shell completion: the script that asks for it, and the answers, by click's protocol (`_MODELMERGER_COMPLETE`)."""

import contextlib
import io
from typing import Any

import click

from modelmerger.cli.completing import PROGRAM, VARIABLE
from modelmerger.cli.options import DEBUG

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@DEBUG
def completion(shell: str) -> None:
    """Print the script that completes commands, files, strategies and keys in SHELL."""
    click.echo(_of_shell(shell, click.get_current_context().find_root().command, {}).source(), nl=False)


def answer(command: click.Command, instruction: str, state: dict[str, Any]) -> int:
    """Prints what a shell asks for: `bash_complete` the words that fit, `bash_source` the script. Returns the status.

    A config or a plugin that cannot be read has no words; what is wrong with it is said when the command is called, and
    not in the middle of a line that somebody types.
    """
    shell, _, wanted = instruction.partition("_")
    if shell not in SHELLS or wanted not in ("complete", "source"):
        return 1
    asked = _of_shell(shell, command, {"obj": state})
    if wanted == "source":
        click.echo(asked.source(), nl=False)
        return 0
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            found = asked.complete()
    except Exception:
        return 1
    click.echo(found)
    return 0


def _of_shell(shell: str, command: click.Command, context: dict[str, Any]) -> Any:
    from modelmerger.cli.completing.shells import BY_NAME

    return BY_NAME[shell](command, context, PROGRAM, VARIABLE)

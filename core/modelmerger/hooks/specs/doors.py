"""Hooks at the doors: commands, options that none of them has, and configs of other tools."""

from typing import TYPE_CHECKING, Any

from modelmerger.hooks.markers import hookspec
from modelmerger.values.read_config import ReadConfig

if TYPE_CHECKING:
    import click


@hookspec
def add_commands(cli: "click.Group") -> None:
    """Adds commands to `modelmerger`, each under the name of its entry point in the group `modelmerger.commands`.

    Called when one of these commands, or its help, is asked for. `cli` is an empty group of click; every command that
    is added to it must have an entry point of its own. A command may raise `MergeError`, whose exit status is then that
    of the process, and gets the option `--debug`. There is no config yet, so there are no options.

    ```python
    import click
    from modelmerger import MergeConfig, hookimpl

    @hookimpl
    def add_commands(cli):
        @cli.command("count-models")
        @click.argument("config")
        def count_models(config):
            click.echo(len(MergeConfig.from_file(config).models))
    ```
    """


@hookspec(firstresult=True)
def explain_option(option: str, options: Any) -> str | None:
    """Says what is here in the place of an option of the command line that no command has. None: ask the next plugin.

    Called only where a command is refused for such an option, with the option as it was given (`--copy-tokenizer`). The
    plugins that are always on are asked. The answer is a sentence without a full stop, and names the option.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def explain_option(option):                        # the team's own script had such a switch
        return f"{option} is of the old script. Here every merge is checked" if option == "--check-first" else None
    ```
    """


@hookspec(firstresult=True)
def read_config(text: str, source: str, options: Any) -> ReadConfig | None:
    """Turns the config of another tool into a config of ours. None: ask the next reader, and at last our own reading.

    Called for each config file, if the module is an entry point of the group `modelmerger.config_readers`. `text` is
    all of the file: UTF-8, at most 1 MiB, without control characters. `source` is its path, as the user wrote it.
    `options` is an instance of the module's `ReadOptions`, with the values of `--read`. The answer is checked as any
    config is. Raise `ConfigError` for a file that is of this kind and cannot be read. It cannot be wrapped.

    ```python
    from attrs import frozen
    from modelmerger import Problem, ReadConfig, hookimpl

    @frozen
    class ReadOptions:
        strategy: str = "weighted"

    @hookimpl
    def read_config(text, source, options):            # a file with a path and a weight in each line
        if not source.endswith(".list"):
            return None
        rows = [line.split() for line in text.splitlines() if line.strip()]
        models = [{"path": row[0], "weight": float(row[1])} for row in rows]
        notes = [Problem("a list says nothing of where the model goes", source, severity="note")]
        return ReadConfig({"strategy": options.strategy, "models": models}, notes)
    ```
    """

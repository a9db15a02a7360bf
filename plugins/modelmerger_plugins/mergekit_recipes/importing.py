"""Write a recipe of mergekit as a config of ours."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from modelmerger import OutputError, Problem, hookimpl, shown

from modelmerger_plugins.mergekit_recipes.documents import looks_like_one, read_documents

if TYPE_CHECKING:
    from collections.abc import Sequence


@hookimpl
def add_commands(cli: click.Group) -> None:
    """Adds `import-recipe`."""
    cli.add_command(import_recipe)


@click.command("import-recipe")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="File to write; without it, the config is printed.")
@click.option("--intent", is_flag=True, help="Do what the recipe means where mergekit would not read it.")
def import_recipe(file: Path, output: Path | None, intent: bool) -> None:
    """Write the recipe in FILE as a config of modelmerger, with what is to be said of it in comments."""
    from modelmerger import ConfigError, MergeConfig

    config = MergeConfig.from_file(file, read={"intent": True} if intent else None)
    text = file.read_text(encoding="utf-8-sig")
    if not looks_like_one(text) or read_documents(text, str(file)) is None:
        raise ConfigError(Problem("is no recipe of mergekit. It can be merged as it is", str(file)))
    written = _commented(file, config.notes or (), config.to_yaml())
    if output is None:
        click.echo(written, nl=False)
        return
    try:
        with output.open("x", encoding="utf-8") as opened:
            opened.write(written)
    except FileExistsError:
        raise OutputError(Problem("exists already. Give another name, or remove it", str(output))) from None
    except OSError as error:
        raise OutputError(Problem(f"cannot be written ({error.strerror}). Give another one", str(output))) from error
    click.echo(f"wrote {shown(output)}")


def _commented(file: Path, notes: "Sequence[Problem]", config: str) -> str:
    """The config behind a heading, with every note as a comment."""
    lines = [f"From mergekit's recipe {file.name}.", *(f"{note.severity}: {note}" for note in notes)]
    return "".join(f"# {line}\n" for said in lines for line in said.splitlines()) + config

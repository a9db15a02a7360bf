"""Write the project of a distribution of plugins."""

import click
from modelmerger import hookimpl


@hookimpl
def add_commands(cli: click.Group) -> None:
    """Adds `new-plugin`."""
    cli.add_command(new_plugin)


@click.command("new-plugin")
@click.argument("name")
def new_plugin(name: str) -> None:
    """Write the project of a distribution of plugins to the folder NAME, with tests that pass.

    NAME is that of the distribution, such as merge-by-median.
    """
    from modelmerger_plugins.new_plugin.project_files import write_project

    package = write_project(name)
    click.echo(f"wrote {name}, with the strategy {package}. Go on with:")
    click.echo(f'  cd {name}\n  pip install -e ".[test]"\n  pytest\n  modelmerger plugins {package}')

"""`osteonode`: the command line. Exit status: 0 done, 1 failed, 2 used wrongly, 3 the study was refused."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer
from rich.console import Console

from config.settings import ConfigurationError
from node import __version__
from node.commands import check, demo, phantom, process, serve, studies

app = typer.Typer(
    name="osteonode",
    help="Turns lumbar quantitative CT into a calibrated bone report, by DICOM.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("demo")(demo.demo)
app.command("serve")(serve.serve)
app.command("worker")(serve.worker)
app.command("process")(process.process)
app.command("phantom")(phantom.phantom)
app.add_typer(studies.app, name="studies")
app.command("check")(check.check)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"osteonode {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Say which."
    ),
) -> None:
    pass


def main() -> NoReturn:
    """Entry point of the console script."""
    try:
        app()
    except ConfigurationError as error:
        Console(stderr=True).print(f"[red]{error}[/red]", highlight=False)
        sys.exit(2)
    raise AssertionError("typer exits by itself")


if __name__ == "__main__":
    main()

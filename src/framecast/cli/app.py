"""The tree of commands. Torch and the other heavy packages are imported inside the verbs that need them."""

from __future__ import annotations

from typing import Annotated

import typer

import framecast
from framecast.cli import (
    adaptation,
    asking,
    catalogue,
    data,
    demonstration,
    prediction,
    profiling,
    stability,
    streaming,
    training,
)
from framecast.cli.robustness import CorruptionsAlone

app = typer.Typer(
    name="framecast",
    help="Efficient image and video understanding and forecasting.",
    epilog="Start with `framecast demo`, or `framecast predict video.mp4 --unsupervised`.\n\n"
    "Exit codes: 0 done; 1 failed, with one line on standard error; 2 wrong usage; "
    "75 stopped by a signal and saved, start the same command again; "
    "130 stopped by Ctrl-C, after which a training goes on in the same way.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"framecast {framecast.__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Efficient image and video understanding and forecasting."""


app.command("demo")(demonstration.demo)
app.command("list")(catalogue.list_)
app.command("info")(catalogue.info)
app.command("doctor")(catalogue.doctor)
app.command("check-data")(data.check_data)
app.command("prepare")(data.prepare)
app.command("features")(data.features)
app.command("train")(training.train)
app.command("evaluate", cls=CorruptionsAlone)(training.evaluate)
app.command("predict")(prediction.predict)
app.command("stream")(streaming.stream)
app.command("chat")(asking.chat)
app.command("profile")(profiling.profile)
app.command("adapt")(adaptation.adapt)
app.command("import-weights")(data.import_weights)
app.command("stability")(stability.stability)
app.command("submit")(training.submit)

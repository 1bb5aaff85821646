"""``rapidin ingest``."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from rapidin.commands.heavy_imports import importing
from rapidin.commands.options import Json, StorePath, TokensPerBatch, TrustRemoteCode
from rapidin.commands.output import output, stderr
from rapidin.settings import OnError

_BEFORE_SETTINGS = 3
"""Number of parameters of `ingest` that the help shows before the settings: the context, the store and the
data."""


class IngestCommand(TyperCommand):
    """``rapidin ingest`` with an option for each setting of a store, made from the table of settings.

    These options are made when they are first needed, because the table imports pydantic, and ``rapidin --help``
    need not wait for that. Their values reach `ingest` as the context's object, by the settings' keys.
    """

    _own: list[Any]
    _complete: bool

    @property
    def params(self) -> list[Any]:
        """All arguments and options of the command; always the same list, because typer appends the help to it."""
        if not self._complete:
            self._complete = True
            self._own[_BEFORE_SETTINGS:_BEFORE_SETTINGS] = self._of_settings()
        return self._own

    @params.setter
    def params(self, own: list[Any]) -> None:
        self._own, self._complete = own, False

    def _of_settings(self) -> list[Any]:
        from rapidin.settings import STORE_SETTINGS

        def requested(**settings: object) -> None:
            """Stand for a function that has an option for each setting."""

        options = []
        for setting in STORE_SETTINGS.values():
            flag = setting.flag
            option = typer.Option(flag.name, metavar=flag.metavar, help=flag.help)
            kind, default = (bool, False) if flag.switches_off else (setting.type | None, None)
            options.append(
                inspect.Parameter(
                    setting.key,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=default,
                    annotation=Annotated[kind, option],
                )
            )
        requested.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        app = typer.Typer(add_completion=False)
        app.command()(requested)
        return [option for option in typer.main.get_command(app).params if option.name in STORE_SETTINGS]

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        from rapidin.settings import STORE_SETTINGS

        values = {key: ctx.params.pop(key) for key in STORE_SETTINGS}
        for key, setting in STORE_SETTINGS.items():
            if setting.flag.switches_off:
                values[key] = False if values[key] else None
        ctx.obj = values
        return super().invoke(ctx)


def ingest(
    context: typer.Context,
    store: StorePath,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Data file: JSON Lines, JSON, CSV or Parquet. Repeat it, or list several files after it.",
        ),
    ] = None,
    more: Annotated[list[Path] | None, typer.Argument(metavar="FILE", help="More data files.")] = None,
    device: Annotated[
        str,
        typer.Option(
            help="Device that computes: auto, cpu, cuda, cuda:0, or cuda:0,1 for several GPUs, each with the "
            "whole model. With fewer --workers than GPUs, each worker spreads the model's layers over its share "
            "of the GPUs. auto takes all GPUs, or the CPU if there is none."
        ),
    ] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of processes that compute, each with the model in memory. Default: one for each GPU of "
            "--device, or a single one on the CPU, which uses all cores.",
        ),
    ] = None,
    tokens_per_batch: TokensPerBatch = None,
    trust_remote_code: TrustRemoteCode = False,
    on_error: Annotated[
        OnError, typer.Option(help="What happens at a row that cannot be used: fail stops, skip leaves it out.")
    ] = "fail",
    no_curvature: Annotated[
        bool,
        typer.Option(
            "--no-curvature",
            help="Do not compute the curvature at the end. Searches without it compare gradients only, see "
            "'rapidin curvature'.",
        ),
    ] = False,
    probes: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="M",
            help="Number of probes of the curvature; each costs about as much as one sample's gradient. Default: "
            "as many as before, or 2,000, but at most four for each sample.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Read the data and tell what would be done, but compute and change nothing."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Add the gradients of training samples to a store.

    Example: rapidin ingest my-store --data train.jsonl --model my-model

    If there is no store, it is created. It remembers the model and all other settings, so later runs need only
    --data. Running the command again adds new samples, replaces changed ones, and continues an interrupted run.

    At the end the curvature is computed, unless the store has it. It costs a few thousand gradients more, and with
    it searches predict what retraining would do.

    Rows are recognised by their fields: instruction, input, output; prompt, completion; messages; or text. The
    field 'id' names the sample; all other fields become metadata, by which --where filters.
    """
    with importing():
        from rapidin.commands.views.store_view import ProgressListener, ingest_summary
        from rapidin.ingest import ingest_files

    with ProgressListener(stderr()) as listener:
        try:
            report = ingest_files(
                store,
                [*(data or []), *(more or [])],
                device=device,
                workers=workers,
                tokens_per_batch=tokens_per_batch,
                on_error=on_error,
                dry_run=dry_run,
                curvature=not no_curvature,
                probes=probes,
                listener=listener,
                trust_remote_code=trust_remote_code,
                **context.obj,
            )
        except KeyboardInterrupt:
            stderr().print(f"{listener.stored:,} samples are stored; run the same command to go on")
            raise
    output(report, ingest_summary(report, dry_run), as_json)

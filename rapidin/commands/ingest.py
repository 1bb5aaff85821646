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
"""Parameters of `ingest` that the help shows before those of the table of settings: the store and the data."""


class IngestCommand(TyperCommand):
    """``rapidin ingest`` with an option for each setting of a store, made from the table of settings.

    They are made when somebody asks for them, because the table imports pydantic, and ``rapidin --help`` need not
    wait for that. Their values reach `ingest` as the context's object, by the settings' keys.
    """

    _own: list[Any]
    _complete: bool

    @property
    def params(self) -> list[Any]:
        """All arguments and options of the command: always one list, because the help is put into it."""
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
            """Stands for a function with an option for each setting."""

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
        typer.Option(metavar="FILE", help="JSON Lines, JSON, CSV or Parquet; repeat, or list several after it."),
    ] = None,
    more: Annotated[list[Path] | None, typer.Argument(metavar="FILE", help="More data files.")] = None,
    device: Annotated[
        str,
        typer.Option(
            help="auto, cpu, cuda, cuda:0, or cuda:0,1 to compute on several GPUs, each with the whole model. "
            "With fewer --workers than GPUs, each of them spreads the model's layers over its share. auto takes "
            "all GPUs that there are."
        ),
    ] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Processes that compute, each with the model in memory. Unless given, one for each GPU of "
            "--device, and one on the CPU, which uses all cores.",
        ),
    ] = None,
    tokens_per_batch: TokensPerBatch = None,
    trust_remote_code: TrustRemoteCode = False,
    on_error: Annotated[OnError, typer.Option(help="Stop at an unusable row, or skip it.")] = "fail",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the data, but compute and change nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compute the gradients of training samples and add them to a store.

    The store is created where there is none and remembers model, template and projection, so later runs need only
    --data. Running it again adds what is new, replaces what changed, and continues what was interrupted.

    Rows are recognised by their fields: instruction, input, output; prompt, completion; messages; text. A field
    'id' names the sample; all other fields become metadata to filter by.
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
                listener=listener,
                trust_remote_code=trust_remote_code,
                **context.obj,
            )
        except KeyboardInterrupt:
            stderr().print(f"{listener.stored:,} samples are stored; run the same command to go on")
            raise
    output(report, ingest_summary(report, dry_run), as_json)

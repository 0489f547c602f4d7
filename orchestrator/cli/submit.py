"""`orch submit`: its flags are the fields of JobSpec, generated from the model."""

import inspect
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_origin

import typer
from pydantic.fields import FieldInfo

from orchestrator.cli import options, render, words
from orchestrator.core import specs

app = typer.Typer(add_completion=False)

#: The panel of the help that each field stands under: the first whose fields it is one of.
_PANELS = {
    "Data": ("data", "data_sha256", "image_size", "crop_scale", "flip", "mean", "std", "loader_workers"),
    "Network": ("network", "growth_rate", "blocks", "reduction", "stem"),
}
_TRAINING = "Training"

_EXAMPLES = """
Examples:

orch submit --data digits --epochs 5

orch submit --data photos.zip --image-size 64 --batch-size 16 --lr 1e-4

orch submit job.toml --lr 3e-4 --wait

JOB=$(orch submit -q job.yaml)
"""


def _with_spec_flags(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each field of JobSpec, collected as texts in its argument `fields`."""
    plain = inspect.signature(function)
    own = [parameter for name, parameter in plain.parameters.items() if name != "fields"]
    flags = [_flag(name, info) for name, info in specs.JobSpec.model_fields.items()]

    def command(**arguments: Any) -> None:
        context: typer.Context = arguments["context"]
        values = {name: arguments.pop(name) for name in specs.JobSpec.model_fields}
        fields = {name: _value(name, value) for name, value in values.items() if options.given(context, name)}
        function(**arguments, fields=fields)

    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *flags)}
    command.__signature__ = plain.replace(parameters=[*own, *flags])  # type: ignore[attr-defined] # what inspect reads
    return command


def _flag(name: str, info: FieldInfo) -> inspect.Parameter:
    spelling = f"--{name.replace('_', '-')}"
    panel = next((panel for panel, names in _PANELS.items() if name in names), _TRAINING)
    if info.annotation is bool:
        annotation: Any = Annotated[
            bool,
            typer.Option(f"{spelling}/--no-{name.replace('_', '-')}", help=info.description, rich_help_panel=panel),
        ]
        default: Any = info.default
    else:  # text: JobSpec judges it, so that flags and job files are told the same
        annotation = Annotated[
            str | None, typer.Option(spelling, metavar=_metavar(info), help=info.description, rich_help_panel=panel)
        ]
        default = None if info.default is None else _as_text(info.default)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _metavar(info: FieldInfo) -> str:
    if get_origin(info.annotation) is tuple:
        return "A,B,…"
    kind = str(info.annotation)
    return "N" if "int" in kind else "X" if "float" in kind else "TEXT"


def _as_text(value: object) -> str:
    return ",".join(str(item) for item in value) if isinstance(value, tuple) else str(value)


def _value(name: str, value: Any) -> Any:
    of_several = get_origin(specs.JobSpec.model_fields[name].annotation) is tuple
    return [part.strip() for part in value.split(",")] if of_several else value


@app.command(epilog=_EXAMPLES)
@_with_spec_flags
def submit(
    *,
    context: typer.Context,
    jobfile: Annotated[
        str | None, typer.Argument(metavar="[JOBFILE]", help="TOML or YAML; - reads stdin. Flags override it.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name to find it by.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be given again.")] = None,
    priority: Annotated[int | None, typer.Option(metavar="N", help="One point is worth an hour of waiting.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="A second submit with this key returns the same job.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the job has ended, with its code.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Watch the job until it has ended.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run; queue nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the id alone.")] = False,
    require_broker: Annotated[bool, typer.Option("--require-broker", help="Fail where no worker is told.")] = False,
    as_json: options.AsJson = False,
    fields: Mapping[str, Any],
) -> None:
    """Queue a training job.

    Without any option it is the job of the reference notebook. The row is in the database before the id is printed.
    """
    from orchestrator.core.jobs import NewJob  # noqa: PLC0415 - imports below cost 0.3 s, and help needs none of them
    from orchestrator.service import jobfile as jobfiles  # noqa: PLC0415
    from orchestrator.service import query  # noqa: PLC0415
    from orchestrator.service import submit as service  # noqa: PLC0415

    file = _read(jobfile) if jobfile else jobfiles.JobFile(origin="")
    resolved = jobfiles.resolve(flags=fields, file=file)
    if dry_run:
        _show_dry_run(resolved, as_json=as_json)
        return
    with options.opened(context) as opened:
        settings, store = opened.settings, opened.store
        new = NewJob(
            spec=resolved.spec,
            user=service.user(settings),
            name=name or file.name,
            tags=tuple(dict.fromkeys([*file.tags, *(tag or [])])),
            priority=priority if priority is not None else file.priority or 0,
            idempotency_key=idempotency_key,
        )
        done = service.submit(settings, store, new, require_broker=require_broker)
        workers = query.living(store)
        notes = list(_notes(done, workers, settings.sweep))
        notes += _advice(resolved.spec, workers, jobfile, fields)
        _show(done, notes, quiet=quiet, to=render.mode(as_json=as_json))
        if follow:
            from orchestrator.cli import watch  # noqa: PLC0415

            watch.follow(store, done.job.id, to=render.mode(as_json=as_json))
        elif wait:
            from orchestrator.cli import wait as waiting  # noqa: PLC0415

            waiting.until_ended(store, [done.job.id], to=render.mode(as_json=as_json))


def _read(jobfile: str) -> Any:
    from orchestrator.service import jobfile as jobfiles  # noqa: PLC0415

    if jobfile == "-":
        return jobfiles.parse(sys.stdin.buffer.read(jobfiles.MAX_BYTES + 1), origin="stdin")
    return jobfiles.load(Path(jobfile))


def _notes(done: Any, workers: tuple[Any, ...], sweep: float) -> Iterator[str]:
    if not done.is_new:
        yield f"The idempotency key is known: this is the job of {words.moment(done.job.submitted_at)}."
    if not workers:
        yield "No worker is running: the job waits. `orch up -d` starts one here."
    elif done.broker is not None:
        yield f"The broker is away ({done.broker.why}). The job is kept: workers find it within {sweep:g} s or so."
    if workers == () and done.broker is not None:
        return


def _advice(
    spec: specs.JobSpec, workers: tuple[Any, ...], jobfile: str | None, fields: Mapping[str, Any]
) -> Iterator[str]:
    from orchestrator.service import advice  # noqa: PLC0415

    said = advice.for_cpu(spec) if advice.on_cpu(workers) else None
    if said is None:
        return
    yield said.warning
    if said.changes:
        flags = {**fields, **said.changes}
        command = ["orch", "submit", *([jobfile] if jobfile and jobfile != "-" else [])]
        for name, value in flags.items():
            flag = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                command.append(flag if value else f"--no-{flag[2:]}")
            else:
                command += [flag, ",".join(value) if isinstance(value, list) else str(value)]
        yield f"Minutes instead of hours: {shlex.join(command)}"


def _show(done: Any, notes: list[str], *, quiet: bool, to: render.Mode) -> None:
    if quiet:
        render.line(done.job.id)
    elif to is render.Mode.JSON:
        from orchestrator.service import views  # noqa: PLC0415

        render.document(
            views.SubmittedPayload(job=views.job(done.job), is_new=done.is_new, ahead=done.ahead, notes=tuple(notes))
        )
    elif to is render.Mode.PIPE:
        render.line(done.job.id, done.job.state, done.ahead)
    else:
        place = words.place(done.ahead) if done.job.state == "queued" else ""
        render.console().print(render.state(f"{done.job.state}  {done.job.id}  {place}", of=done.job.state))
    sys.stdout.flush()  # the id is out before anything that may take time
    for note in notes if to is not render.Mode.JSON else []:
        render.note(note)
    if to is render.Mode.TERMINAL and not quiet:
        job_id = done.job.id
        render.following([f"orch watch {job_id}", f"orch logs -f {job_id}", f"orch cancel {job_id}"])


def _show_dry_run(resolved: Any, *, as_json: bool) -> None:
    to = render.mode(as_json=as_json)
    values = resolved.spec.model_dump(mode="json")
    notes = list(_advice(resolved.spec, (), None, {}))
    if to is render.Mode.JSON:
        from orchestrator.service import views  # noqa: PLC0415

        render.document(
            views.ResolvedPayload(
                spec=resolved.spec, spec_hash=resolved.spec.digest(), origins=resolved.origins, notes=tuple(notes)
            )
        )
        return
    columns = [
        render.Column[str](title="FIELD", value=lambda name: name),
        render.Column[str](title="VALUE", value=lambda name: values[name]),
        render.Column[str](title="FROM", value=lambda name: resolved.origins[name]),
    ]
    render.table(columns, values, to=to)
    for note in notes:
        render.note(note)

"""`orch config`."""

from typing import Annotated, Any

import typer

from orchestrator.cli import options, render

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Show the settings in force.")


@app.command(epilog="Examples:\n\norch config show --origin\n\norch config show --json")
def show(
    context: typer.Context,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Print every setting in force; secrets are masked."""
    from orchestrator import config
    from orchestrator.service import careviews

    settings = options.settings(context)
    origins = config.origins(**options.root_flags(context))
    rows = [
        careviews.SettingPart(
            name=name,
            value=_shown(settings, name),
            origin=origins.get(name, "default"),
            variable=config.variable(name),
            description=field.description or "",
        )
        for name, field in config.Settings.model_fields.items()
    ]
    to = render.mode(as_json=as_json)
    if to is render.Mode.JSON:
        render.document(careviews.SettingsPayload(settings=tuple(rows)))
        return
    columns = [
        render.Column[careviews.SettingPart](title="SETTING", value=lambda row: row.name),
        render.Column[careviews.SettingPart](title="VALUE", value=lambda row: row.value),
    ]
    if origin or to is render.Mode.PIPE:
        columns.append(render.Column[careviews.SettingPart](title="FROM", value=lambda row: row.origin))
    else:
        columns.append(render.Column[careviews.SettingPart](title="WHAT", value=lambda row: row.description, wide=True))
    render.table(columns, rows, to=to)


@app.command(epilog="Example:\n\ncd \"$(orch config paths | sed -n 's/^artifacts\\t//p')\"")
def paths(context: typer.Context) -> None:
    """Print where orch keeps and looks for things."""
    from orchestrator import config
    from orchestrator.service import health

    settings = options.settings(context)
    found = {
        "home": settings.home,
        "database": health.database(settings),
        "artifacts": settings.artifact_dir,
        "data": settings.data_dir,
        "run": settings.run_dir,
        "locks": settings.lock_dir,
        "user settings": config.user_file() or "",
        "project settings": config.PROJECT_FILE,
    }
    if render.mode() is render.Mode.PIPE:
        for name, path in found.items():
            render.line(name.replace(" ", "_"), path)
    else:
        render.console().print(render.pairs((name, str(path)) for name, path in found.items()))


def _shown(settings: Any, name: str) -> Any:
    from orchestrator import config
    from orchestrator.core import masking

    value = getattr(settings, name)
    if value is not None and name in config.SECRETS:
        secret = value.get_secret_value()
        return " ".join(map(masking.target, secret.split())) if name == "notify" else masking.server(secret)
    if isinstance(value, tuple):
        return [str(item) for item in value]
    if isinstance(value, dict):
        return config.as_text(value)
    return value if value is None or isinstance(value, int | float) else str(value)

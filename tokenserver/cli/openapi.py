"""`tokenserver openapi`: the description of the API, as the server answers it at `/openapi.json`."""

import json
from pathlib import Path
from typing import Any

import click

from tokenserver.config import Settings


@click.command(short_help="Print the description of the API (OpenAPI 3.1).")
@click.option(
    "--output", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Write to this file instead."
)
@click.option("--check", is_flag=True, help="Print nothing; fail when it is not valid OpenAPI.")
def openapi(output: Path | None, check: bool) -> None:
    """Print the description of the API: OpenAPI 3.1, as JSON.

    It needs neither database nor Redis, and is the one that a server with these settings has at /openapi.json.
    """
    document = _document()
    if check:
        _validate(document)
        return
    text = json.dumps(document, indent=2, ensure_ascii=False)
    if output is None:
        click.echo(text)
        return
    try:
        output.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{output}: {error.strerror}") from None


def _document() -> dict[str, Any]:
    from tokenserver.app import create_app, rooms_of

    app = create_app(Settings.load())
    try:
        answer = app.test_client().get("/openapi.json")
    finally:
        rooms_of(app).database.engine.dispose()
        rooms_of(app).store.close()
    if answer.status_code != 200:
        raise click.ClickException(answer.text)
    return dict(json.loads(answer.data))


def _validate(document: dict[str, Any]) -> None:
    try:
        from openapi_spec_validator import OpenAPIV31SpecValidator
    except ModuleNotFoundError:
        raise click.ClickException("--check needs the extra: tokenserver[lint]") from None
    faults = [
        f"{'/'.join(map(str, fault.absolute_path))}: {fault.message}"
        for fault in OpenAPIV31SpecValidator(document).iter_errors()
    ]
    if faults:
        raise click.ClickException("the description is not valid OpenAPI: " + "; ".join(faults))

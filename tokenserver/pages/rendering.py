"""From a template to an answer: escaped, never stored, and with a policy (CSP level 3) of what the page may do."""

import re
import secrets
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from flask import Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from tokenserver.pages import assets
from tokenserver.web import language
from tokenserver.web.request_context import current

TEMPLATES: Final = Environment(
    loader=PackageLoader("tokenserver.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=("jinja2.ext.i18n",),
)
TEMPLATES.policies["ext.i18n.trimmed"] = True
TEMPLATES.install_gettext_callables(language.translated, language.plural, newstyle=True)  # type: ignore[attr-defined]
TEMPLATES.globals |= {"asset": assets.address, "refusal": None}


# RFC 3339, in UTC.
INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|\+00:00)")


def _time(moment: datetime, text: str) -> Markup:
    return Markup('<time datetime="{}">{}</time>').format(f"{moment:%Y-%m-%dT%H:%MZ}", text)


def _instant(moment: datetime | str, *, seconds: bool = False) -> Markup:
    """`moment`: one of RFC 3339 when it is a text."""
    at = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return _time(at, language.instant(at, seconds=seconds))


def _said(sentence: str) -> Markup:
    """A sentence of an endpoint, translated where it can be; else marked as English (WCAG 2.2, 3.1.2)."""
    found = INSTANT.search(sentence)
    known = sentence.replace(found[0], "{at}") if found else sentence
    if not language.is_translated(known):
        return Markup('<span lang="en">{}</span>').format(sentence)
    text = escape(language.translated(known))
    return text.format(at=_instant(found[0], seconds=True)) if found else text


TEMPLATES.filters |= {
    "day": lambda moment: _time(moment, language.day(moment)),
    "minute": lambda moment: _time(moment, language.minute(moment)),
    "instant": _instant,
    "number": language.number,
    "translated": language.translated,
    "said": _said,
}


def render(
    template: str,
    status: int = 200,
    *,
    images: Iterable[str] = (),
    forms: Iterable[str] = (),
    frames: Iterable[str] = (),
    connects: Iterable[str] = (),
    has_script: bool = False,
    has_assets: bool = False,
    **values: Any,
) -> Response:
    """`images`: origins that pictures come from. `forms`: where forms lead, none when there are none. `frames`:
    origins of pages that are embedded. `connects`: what scripts may ask. `has_script`: the template has an inline
    script, with the attribute `nonce="{{ nonce }}"`. `has_assets`: it has one of ours, by its address."""
    nonce = secrets.token_urlsafe(16) if has_script else ""
    spoken = language.current_language()
    known = {"nonce": nonce, "request_id": current().request_id, "language": spoken}
    text = TEMPLATES.get_template(template).render(known | values)
    response = Response(text, status, mimetype="text/html")
    response.headers["Content-Language"] = spoken
    response.vary.add("Accept-Language")
    sources = {
        "default-src": ("'none'",),
        "style-src": ("'self'",),
        "img-src": ("'self'", *images),
        "script-src": (
            *([f"'nonce-{nonce}'"] if has_script else []),
            *(["'self'"] if has_assets else []),
        )
        or ("'none'",),
        "connect-src": tuple(connects) or ("'none'",),
        "frame-src": tuple(frames) or ("'none'",),
        "form-action": tuple(forms) or ("'none'",),
        "frame-ancestors": ("'none'",),
        "base-uri": ("'none'",),
    }
    policy = "; ".join(" ".join((name, *dict.fromkeys(values))) for name, values in sources.items())
    response.headers["Content-Security-Policy"] = policy
    return personal(response)


def go_on(path: str) -> Response:
    """RFC 9700 section 4.12: after a form with credentials 303, which sends them nowhere again. `path`: never from
    the request."""
    return personal(Response(status=303, headers={"Location": path}))


def personal(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    response.vary.add("Cookie")  # GHSA-68rp-wp8r-4726: caches that keep it nevertheless
    return response

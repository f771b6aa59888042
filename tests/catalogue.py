"""`make catalogue`: what people read, gathered from the sources by Babel, merged into each catalogue, and compiled.

What is new there is empty until somebody translates it, and `tests/pages/test_language.py` fails until then.
"""

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

import tokenserver
from tokenserver.access.permissions import BUILTIN_ROLES, PERMISSIONS
from tokenserver.web.language import LANGUAGES, SOURCE

ROOT: Final = Path(tokenserver.__file__).parent
# What only REST and OAuth say is read by programs, and English.
METHODS: Final = [
    ("pages/**.py", "python"),
    ("pages/templates/**.html", "jinja2"),
    *(
        (f"{name}.py", "python")
        for name in (
            "access/explain",
            "access/guards",
            "access/rights",
            "access/roles",
            "access/routes",
            "auth/registration",
            "clients/reach",
            "clients/registry",
            "identity/letters",
            "identity/links",
            "identity/notices",
            "identity/own_account",
            "identity/passwords",
            "identity/people",
            "identity/recovery",
            "identity/second_factors/factors",
            "identity/second_factors/passkeys",
            "identity/user_session_routes",
            "web/language",
        )
    ),
]
OPTIONS: Final = {
    "pages/templates/**.html": {
        "trimmed": "true",
        "trim_blocks": "true",
        "lstrip_blocks": "true",
        "newstyle_gettext": "true",
    }
}
# Of errors those that a page shows: the first argument, or the second of a field's.
KEYWORDS: Final = {
    "_": None,
    "gettext": None,
    "ngettext": (1, 2),
    "marked": None,
    "marked_plural": (1, 2),
    "FieldError": (2,),
    "NotFound": None,
    "Forbidden": None,
    "Conflict": None,
}


HEADER: Final = """\
# What people read: `make catalogue` keeps it in step with the sources.
msgid ""
msgstr ""
"Language: {language}\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"Plural-Forms: {plurals}\\n"

"""


def extracted() -> Catalog:
    """All that people may read, with the files that it comes from."""
    catalog = Catalog(charset="utf-8")
    for file, _, message, comments, context in extract_from_dir(ROOT, METHODS, OPTIONS, KEYWORDS, comment_tags=()):
        catalog.add(message, locations=[(file, None)], auto_comments=comments, context=context)
    for sentence in (*PERMISSIONS.values(), *(about for about, _ in BUILTIN_ROLES.values())):
        catalog.add(sentence, locations=[("access/permissions.py", None)])
    return catalog


def path_of(language: str) -> Path:
    return ROOT / "locale" / language / "LC_MESSAGES" / "tokenserver.po"


def read(language: str) -> Catalog:
    path = path_of(language)
    if not path.exists():
        return Catalog(locale=language, charset="utf-8")
    with path.open("rb") as file:
        return read_po(file, locale=language)


def merged(language: str) -> Catalog:
    catalog = read(language)
    catalog.update(extracted(), no_fuzzy_matching=True)
    catalog.obsolete.clear()
    return catalog


def written(catalog: Catalog) -> bytes:
    """The same for the same sources, whenever it is written."""
    text = io.BytesIO()
    write_po(
        text, catalog, width=100, omit_header=True, sort_output=True, ignore_obsolete=True, include_lineno=False
    )
    header = HEADER.format(language=catalog.locale, plurals=catalog.plural_forms)
    return header.encode() + text.getvalue()


def compiled(catalog: Catalog) -> bytes:
    file = io.BytesIO()
    catalog.creation_date = catalog.revision_date = datetime(2026, 1, 1, tzinfo=UTC)
    write_mo(file, catalog)
    return file.getvalue()


def main() -> None:
    for language in LANGUAGES:
        if language != SOURCE:
            path = path_of(language)
            path.parent.mkdir(parents=True, exist_ok=True)
            catalog = merged(language)
            path.write_bytes(written(catalog))
            path.with_suffix(".mo").write_bytes(compiled(catalog))
            missing = [message.id for message in catalog if message.id and not message.string]
            print(f"{path}: {len(catalog)} messages, {len(missing)} without a translation")


if __name__ == "__main__":
    main()

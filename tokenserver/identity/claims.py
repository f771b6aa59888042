"""Claims about people (OpenID Connect Core section 5.1): what may be said, and which scope asks for what."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from tokenserver.identity.people import Person

# OpenID Connect Core section 5.4: the scopes, and the claims that each asks for.
BY_SCOPE: Final[Mapping[str, tuple[str, ...]]] = {
    "profile": (
        "name",
        "family_name",
        "given_name",
        "middle_name",
        "nickname",
        "preferred_username",
        "profile",
        "picture",
        "website",
        "gender",
        "birthdate",
        "zoneinfo",
        "locale",
        "updated_at",
    ),
    "email": ("email", "email_verified"),
    "address": ("address",),
    "phone": ("phone_number", "phone_number_verified"),
}
NAMES: Final = tuple(name for names in BY_SCOPE.values() for name in names)
SCOPE_OF: Final[Mapping[str, str]] = {name: scope for scope, names in BY_SCOPE.items() for name in names}


def claims_of(person: Person, scope: Collection[str], names: Collection[str] = ()) -> dict[str, Any]:
    """Those that the scopes ask for, and those asked for by name (section 5.5), as far as they are known.

    Section 5.3.2: a claim that is not returned is left out, never null or an empty string.
    """
    wanted = {*names, *(name for each in scope for name in BY_SCOPE.get(each, ()))}
    return {name: value for name, value in _known(person) if name in wanted}


def _known(person: Person) -> Iterator[tuple[str, Any]]:
    # A name is free text; whoever reads the claim should not have to tell a blank one or "null" from none.
    if person.name and person.name.strip() and person.name != "null":
        yield "name", person.name
    yield "preferred_username", person.username
    yield "updated_at", int(person.updated_at.timestamp())
    yield "email", person.email
    yield "email_verified", person.email_verified
    yield from person.claims.items()
    if "phone_number" in person.claims:
        yield "phone_number_verified", person.phone_number_verified

"""Who asks: what a page shows of the client that sent the user here (OIDC Registration section 2)."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from tokenserver.clients.registry import Client, Clients
from tokenserver.oauth.interaction import Interaction

# Whatever was registered, only this becomes a link or a picture, and part of a header.
WEB_LINK: Final = re.compile(r"(https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?)(?:[/?#][!-~]*)?")
SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*):")


@dataclass(frozen=True, slots=True)
class Asking:
    """`destination`: where the user is sent back to, as people read it. `forms`, `images`: what the page's policy
    has to allow (`rendering.render`)."""

    name: str
    logo: str | None
    home: str | None
    policy: str | None
    terms: str | None
    destination: str | None
    forms: tuple[str, ...]
    images: tuple[str, ...]


def asking(clients: Clients, interaction: Interaction | None) -> Asking | None:
    """None where no client sent the user, or it was deleted meanwhile. As of the last `Feed.sync`."""
    client = clients.find(interaction.client_id) if interaction and interaction.client_id else None
    return _shown(client, interaction.data.get("redirect_uri")) if client and interaction else None


def _shown(client: Client, redirect_uri: object) -> Asking:
    metadata = client.metadata
    logo = shown_link(metadata.logo_uri)
    origin = WEB_LINK.fullmatch(logo) if logo else None
    target = redirect_uri if isinstance(redirect_uri, str) else ""
    scheme = SCHEME.match(target)
    return Asking(
        name=client.client_name or client.client_id,
        logo=logo,
        home=shown_link(metadata.client_uri),
        policy=shown_link(metadata.policy_uri),
        terms=shown_link(metadata.tos_uri),
        destination=(urlsplit(target).hostname if WEB_LINK.fullmatch(target) else None),
        # Chromium asks the policy about every redirect that follows a form, on past the client: one that hands its
        # user on to another host, as a broker does, would be stuck. So it is the scheme, not the origin.
        forms=("'self'", *([f"{scheme[1]}:"] if scheme else [])),
        images=(_source(origin[1]),) if origin else (),
    )


def shown_link(uri: str | None) -> str | None:
    return uri if uri and WEB_LINK.fullmatch(uri) else None


def _source(origin: str) -> str:
    """A policy can't spell an IPv6 address (CSP level 3 section 2.3.1)."""
    return origin.partition("//")[0] if "[" in origin else origin

"""What the site shows at its side: pages by what people want. A page that is named nowhere comes last."""

from typing import Final

# The name of a page is its path in docs/, without ".md". Those that aren't there yet are left out.
NAVIGATION: Final = {
    "Start": ("first-ten-minutes", "validate", "grants"),
    "Let people in": ("pages", "accounts", "second-factors", "clients", "logout", "refresh-tokens"),
    "Decide what they may do": ("permissions", "roles", "console", "revocation", "verifier", "status-list"),
    "Look up": ("configuration", "errors", "limits", "rfc-map"),
    "Operate": (
        "deployment",
        "runbooks",
        "metrics",
        "databases",
        "redis",
        "nodes",
        "backup",
        "audit",
        "sizing",
        "keys",
    ),
    "Judge": (
        "reliability",
        "performance",
        "performance-profile",
        "security",
        "threat-model",
        "web-defences",
        "conformance",
        "comparison",
    ),
    "Change": ("development", "adr/index", "changelog"),
}
# These aren't in docs/: where they are, and what they are called in the site.
OUTSIDE: Final = {
    "README.md": "index",
    "CHANGELOG.md": "changelog",
    "SECURITY.md": "security",
    "keys/README.md": "keys",
}


def sections(pages: set[str]) -> dict[str, list[str]]:
    """Caption to pages. What is named nowhere, but for the decisions, is under "More"."""
    named = {caption: [page for page in asked if page in pages] for caption, asked in NAVIGATION.items()}
    shown = {page for asked in named.values() for page in asked} | {"index"}
    more = sorted(page for page in pages - shown if "/" not in page)
    return named | ({"More": more} if more else {})

"""Fenced blocks of our Markdown files, and the links in them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = (README, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md")))
FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[a-z]+: [a-z]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\[[^\]\n]+\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Fence:
    """`mark`: what the HTML comment above it says, as in `<!-- run: session -->`."""

    mark: str | None
    language: str
    text: str


def read(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def fences(document: Path) -> list[Fence]:
    found = FENCE.finditer(read(document))
    return [Fence(match["mark"], match["language"], match["text"]) for match in found]


def marked(document: Path, mark: str) -> str:
    """The text of the one block with this mark."""
    (text,) = [fence.text for fence in fences(document) if fence.mark == mark]
    return text


def prose(document: Path) -> str:
    """Without the fenced blocks."""
    return FENCE.sub("", read(document))


def links(document: Path) -> list[str]:
    return LINK.findall(prose(document))


def anchors(document: Path) -> set[str]:
    """The fragments that headings get where Markdown is rendered."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in HEADING.findall(prose(document))}

#!/usr/bin/env python3
"""Builds the site, `make docs`: gathers the documents in build/pages, and lets Sphinx make build/site of them. An
argument names another folder than build/.

The documents are written for the code host, where they link to each other and to files. In the site each file that
is linked is a page of its own.
"""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from navigation import OUTSIDE, sections
from sphinx.cmd.build import main as sphinx

ROOT: Final = Path(__file__).resolve().parents[2]
FENCE: Final = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
LINK: Final = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]+)?\)")
LANGUAGES: Final = {".yaml": "yaml", ".yml": "yaml", ".sql": "sql", ".sh": "sh", ".py": "python", ".js": "js"}
IMAGES: Final = {".png", ".svg", ".jpg"}
FOLDER: Final = "index"


class Site:
    """`pages`: name to Markdown. `files`: what else is linked, still to be shown."""

    def __init__(self) -> None:
        self.sources = {path.relative_to(ROOT).as_posix(): name for path, name in _documents()}
        self.pages = {name: (ROOT / path).read_text(encoding="utf-8") for path, name in self.sources.items()}
        self.files: set[Path] = set()

    def gather(self, folder: Path) -> None:
        """Writes what has changed, and takes away what is gone."""
        for path, name in self.sources.items():
            self.pages[name] = self._rewritten(path, name)
        self.pages["adr/index"] = _decisions(self.pages)
        self.pages["index"] += _navigation(set(self.pages))
        for path in self.files:
            self.pages[_page_of(path)] = _shown(path)
        written = {_write(folder / f"{name}.md", text) for name, text in self.pages.items()}
        for image in (ROOT / "docs").rglob("*"):
            if image.suffix in IMAGES:
                written.add(_copy(image, folder / image.relative_to(ROOT / "docs")))
        for stale in {each for each in folder.rglob("*") if each.is_file()} - written:
            stale.unlink()

    def _rewritten(self, path: str, name: str) -> str:
        here = (ROOT / path).parent

        def link(match: re.Match[str]) -> str:
            target = (here / match[1]).resolve()
            if target.suffix in IMAGES:
                return f"]({_relative(target.relative_to(ROOT / 'docs').as_posix(), name)})"
            return f"]({_relative(self._page(target) + '.md', name)}{match[2] or ''})"

        parts = FENCE.split(self.pages[name])
        return "".join(part if place % 2 else LINK.sub(link, part) for place, part in enumerate(parts))

    def _page(self, target: Path) -> str:
        relative = target.relative_to(ROOT).as_posix()
        if relative in self.sources:
            return self.sources[relative]
        if relative == "docs/adr":
            return "adr/index"
        if not target.exists():
            raise SystemExit(f"a link leads to {relative}, which isn't there")
        self.files |= {target} if target.is_file() else {target, *_within(target)}
        return _page_of(target)


def _documents() -> Iterator[tuple[Path, str]]:
    yield from ((ROOT / path, name) for path, name in OUTSIDE.items())
    for path in sorted((ROOT / "docs").rglob("*.md")):
        yield path, path.relative_to(ROOT / "docs").with_suffix("").as_posix()


def _within(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _page_of(path: Path) -> str:
    """`files/Dockerfile`; a folder is the page `index` in it. Dots end no name, and none is hidden."""
    relative = path.relative_to(ROOT).as_posix().replace(".", "-")
    return f"files/{relative}" + (f"/{FOLDER}" if path.is_dir() else "")


def _shown(path: Path) -> str:
    title = f"---\norphan: true\n---\n\n# {path.relative_to(ROOT).as_posix()}\n\n"
    if path.is_dir():
        rows = (
            f"* [{each.relative_to(path)}]({_relative(_page_of(each), _page_of(path))}.md)"
            for each in _within(path)
        )
        return title + "\n".join(rows) + "\n"
    text = path.read_text(encoding="utf-8")
    return f"{title}````{LANGUAGES.get(path.suffix, 'text')}\n{text.rstrip()}\n````\n"


def _decisions(pages: dict[str, str]) -> str:
    names = sorted(name.removeprefix("adr/") for name in pages if re.match(r"adr/\d", name))
    return "# Decisions\n\n" + _toctree(names)


def _navigation(pages: set[str]) -> str:
    return "\n" + "\n".join(_toctree(names, caption) for caption, names in sections(pages).items())


def _toctree(names: list[str], caption: str = "") -> str:
    options = [":maxdepth: 1", *([":hidden:", f":caption: {caption}"] if caption else [])]
    return "\n".join(["```{toctree}", *options, "", *names, "```", ""])


def _relative(target: str, page: str) -> str:
    return PurePosixPath(os.path.relpath(target, str(PurePosixPath(page).parent))).as_posix()


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return path


def _copy(source: Path, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(source.read_bytes())
    return path


def main(folder: Path) -> int:
    pages, site = folder / "pages", folder / "site"
    Site().gather(pages)
    options = ["--fail-on-warning", "--quiet", "--builder", "html", "--conf-dir", str(Path(__file__).parent)]
    status = sphinx([*options, str(pages), str(site)])
    if not status:
        print(site / "index.html")
    return status


if __name__ == "__main__":
    sys.exit(main(Path(*sys.argv[1:]) if sys.argv[1:] else ROOT / "build"))

"""Links lead somewhere, and the commands that the documents name exist."""

import re
import shlex

import pytest
from click.testing import CliRunner

from tests.docs.fences import DOCUMENTS, ROOT, anchors, fences, links, prose
from tokenserver.cli import program

PLACEHOLDER = re.compile(r"[…<>]")


def identify(document):
    return str(document.relative_to(ROOT))


def commands():
    """Each `tokenserver …` of the documents once: lines of shell blocks, and code within sentences."""
    found = set()
    for document in DOCUMENTS:
        shell = "\n".join(fence.text for fence in fences(document) if fence.language == "sh").replace("\\\n", "")
        found |= set(re.findall(r"(?:^|\$\()(tokenserver [^)\n]+)", shell, re.MULTILINE))
        found |= set(re.findall(r"`(tokenserver [^`]+)`", prose(document)))
    return sorted(command for command in found if not PLACEHOLDER.search(command))


@pytest.mark.parametrize("document", DOCUMENTS, ids=identify)
def test_relative_links_exist(document):
    for link in links(document):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if fragment:
            assert fragment in anchors(target), link


def test_the_documents_name_commands():
    assert {"tokenserver --help", "tokenserver doctor"} <= set(commands())


@pytest.mark.parametrize("command", commands())
def test_commands_parse(command):
    """Its own help is shown, which click does only after it has understood the options before."""
    arguments = [*shlex.split(command)[1:], "--help"]
    done = CliRunner().invoke(program, arguments, prog_name="tokenserver")
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"Usage: tokenserver {' '.join(_words(arguments))}".rstrip())


def _words(arguments):
    """The names of group and command: the first words, before options and arguments."""
    return (
        []
        if arguments[0].startswith("-")
        else arguments[: 1 + (arguments[0] not in {"init", "serve", "doctor", "openapi"})]
    )

"""Documents whose shell blocks a reader pastes one after the other, as one session."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Timer

from tests.docs.fences import fences
from tests.live_server import LiveServer
from tests.ports import free_port

PRINTED_ADDRESS = "http://127.0.0.1:8000"
PRINTED_CALLBACK = "127.0.0.1:9999"
# For a whole page, on a machine that is far too busy.
SECONDS = 600
APART = "run: apart"
END = "-- end of block --"


def blocks(document: Path) -> list[tuple[str, str]]:
    """Each block of shell, and what the block of text after it says that it prints: "" where there is none. "…"
    stands for anything. Those marked `run: apart` are left to other tests.
    """
    found: list[tuple[str, str]] = []
    last = ""
    for fence in fences(document):
        if fence.language == "sh" and fence.mark != APART:
            found.append((fence.text, ""))
        elif fence.language == "text" and last == "sh":
            found[-1] = (found[-1][0], fence.text)
        last = fence.language if fence.mark != APART else ""
    return found


def paste(
    document: Path, live_server: LiveServer, act: Callable[[str], None] | None = None
) -> list[tuple[str, str]]:
    """What is promised and what is printed, for each block. `act` does what a block tells the reader to do, before
    the next one is pasted.
    """
    addresses = {PRINTED_ADDRESS: live_server.url, PRINTED_CALLBACK: f"127.0.0.1:{free_port()}"}

    def here(text: str) -> str:
        for printed, ours in addresses.items():
            text = text.replace(printed, ours).replace(
                printed.replace(":9999", '", 9999'), ours.replace(":", '", ')
            )
        return text

    found = []
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with subprocess.Popen(
        ["bash", "-u", "-o", "pipefail"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=live_server.folder,
        env=live_server.environment | {"PATH": path},
        text=True,
    ) as shell:
        assert shell.stdin
        assert shell.stdout
        watch = Timer(SECONDS, shell.kill)
        watch.start()
        try:
            for text, promised in blocks(document):
                shell.stdin.write(f"{here(text)}\necho '{END}'\n")
                shell.stdin.flush()
                printed = ""
                while not printed.endswith(f"{END}\n"):
                    line = shell.stdout.readline()
                    assert line, f"the shell ended:\n{printed}"
                    printed += line
                printed = printed.removesuffix(f"{END}\n")
                found.append((here(promised), printed))
                if act:
                    act(printed)
            shell.stdin.close()
        finally:
            watch.cancel()
            shell.kill()
    return found


def keeps(promised: str, printed: str) -> bool:
    """Whether a block printed what it should."""
    form = ".*?".join(re.escape(part) for part in promised.split("…"))
    return re.fullmatch(form, printed, re.DOTALL) is not None

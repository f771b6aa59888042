"""axe-core on the page that is shown: what it finds against WCAG 2.2, levels A and AA."""

from importlib.resources import files
from typing import Any, Final

TAGS: Final = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")
SOURCE: Final = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


class World:
    """An isolated world of a page's main frame, by DevTools: it sees the page as it is, and the page's policy
    doesn't hold there, though it stays as it is. Gone with the next page."""

    def __init__(self, devtools: Any) -> None:
        self._devtools = devtools
        frame = self._devtools.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
        made = self._devtools.send("Page.createIsolatedWorld", {"frameId": frame, "worldName": "tests"})
        self._id = made["executionContextId"]

    def run(self, expression: str) -> Any:
        """Its value, waited for; JSON can hold it."""
        asked = {"expression": expression, "contextId": self._id, "awaitPromise": True, "returnByValue": True}
        answer = self._devtools.send("Runtime.evaluate", asked)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")


def prepare(world: World) -> None:
    world.run(SOURCE + ";0")


def violations(world: World, rules: str = "") -> list[str]:
    """One line for each; `rules`: of one tag of axe alone, such as "cat.color"."""
    wanted = TAGS if not rules else (rules,)
    # It may fetch nothing: style sheets are read where they are.
    options = f"{{runOnly: {list(wanted)!r}, preload: false, iframes: false, resultTypes: ['violations']}}"
    found = world.run(f"axe.run(document, {options}).then((r) => r.violations)")
    return [
        f"{rule['id']}: {rule['help']}: {node['html'][:300]}: {node.get('failureSummary', '')}"
        for rule in found
        if set(rule["tags"]) & set(TAGS)
        for node in rule["nodes"]
    ]

"""The table of the manual: a run of some experiments replaces only their rows."""

from tests.faults.plan import Experiment, Finding
from tests.faults.report import BEGIN, END, Row, write


def row(number, *, broken=(), not_run="", **figures):
    found = Finding(broken=list(broken))
    found.tell(**figures)
    experiment = Experiment(number, "a | b", "it holds", lambda run: found)
    return Row.of(experiment, found, 12.4, 7, "abc1234", not_run)


def test_rows_are_kept_replaced_and_sorted(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# By hand\n\n{BEGIN}\n{END}\n\nafter\n", encoding="utf-8")
    write(page, [row("E09", double_spends=0), row("E02", broken=["no"])])
    write(page, [row("E05", not_run="no tmpfs"), row("E09", double_spends=1, broken=["yes"])])
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# By hand\n")
    assert text.endswith(f"{END}\n\nafter\n")
    rows = [line for line in text.splitlines() if line.startswith("| E")]
    assert [line.split(" | ")[0] for line in rows] == ["| E02", "| E05", "| E09"]
    assert "double spends: 1" in rows[2]
    assert "**broken**" in rows[2]
    assert "not run: no tmpfs" in rows[1]
    assert "a / b" in rows[0]
    assert "abc1234, seed 7" in rows[0]

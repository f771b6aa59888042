"""The watch notices what it is there for: each fault that a page could have, on pages that have it."""

import pytest

from tests.browser.visitor import Visitor

POLICY = "default-src 'none'; style-src 'self'"
HEAD = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A page</title>'
    '<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width, initial-scale=1">'
)

CONSOLE = {
    "inline script": ("<script>window.was = 1</script>", POLICY, "Content Security Policy"),
    "inline style": ('<p style="color: red">red</p>', POLICY, "Content Security Policy"),
    "console error": ("<script>console.error('broken')</script>", "", "broken"),
    "error in a script": ("<script>nothing.there()</script>", "", "nothing is not defined"),
    "another host": ('<img alt="" src="https://elsewhere.example/a.png">', "", "request to another host"),
    "missing picture": ('<img alt="" src="/missing.png">', "", "404 from"),
}
AXE = {
    "contrast": ("<style>p { color: #aaa; background: #fff }</style><p>faint</p>", "color-contrast"),
    "contrast at night": (
        "<style>@media (prefers-color-scheme: dark) { p { color: #444; background: #000 } }</style><p>dim</p>",
        "dark: color-contrast",
    ),
    "label": ("<form><input name='a'></form>", "label"),
    "too wide": ("<style>p { width: 40rem }</style><p>wide</p>", "at 320 px it is"),
}


@pytest.mark.parametrize("fault", CONSOLE)
def test_a_fault_of_a_page_is_noticed(browsers, fault):
    visitor: Visitor = browsers()
    body, policy, said = CONSOLE[fault]
    headers = {"Content_Security_Policy": policy} if policy else {}
    visitor.open(visitor.site.application.show(f"/{fault.replace(' ', '-')}", f"{HEAD}</head>{body}", **headers))
    visitor.page.wait_for_load_state("networkidle")
    assert said in "\n".join(visitor.faults)
    visitor.forget_faults()


@pytest.mark.parametrize("fault", AXE)
def test_what_keeps_people_out_is_noticed(visitor, fault):
    body, said = AXE[fault]
    page = f"{HEAD}</head><main><h1>A page</h1>{body}</main>"
    visitor.open(visitor.site.application.show(f"/{fault.replace(' ', '-')}", page))
    with pytest.raises(AssertionError) as noticed:
        visitor.check(fault)
    assert said in str(noticed.value)


def test_axe_works_under_a_strict_policy_and_without_scripts(browsers):
    visitor = browsers(scripts=False)
    visitor.open("/forgot-password")
    visitor.check("forgot-password-without-scripts")
    page = f"{HEAD}</head><main><input name='a'><p id='p'></p><script>p.innerText = 'ran'</script></main>"
    for path in ("/unlabelled", "/unlabelled/again"):
        visitor.open(visitor.site.application.show(path, page))
        with pytest.raises(AssertionError, match="label"):
            visitor.check("unlabelled")
        assert not visitor.text("#p")


def test_a_page_that_is_refused_is_no_fault(visitor):
    assert visitor.open("/login?interaction=unknown").status == 404
    visitor.check("error")
    assert visitor.faults == []

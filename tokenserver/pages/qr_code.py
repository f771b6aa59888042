"""A QR code as an inline SVG, which no policy of a page minds."""

from markupsafe import Markup

from tokenserver.web.language import marked, translated

TITLE = marked("QR code for your authenticator app")


def drawn(text: str) -> Markup:
    """Dark on light in either colour scheme, with the quiet zone that scanners need (ISO/IEC 18004)."""
    import segno  # few people need it, and each process would hold it

    code = segno.make_qr(text, error="m")
    return Markup(  # noqa: S704 - numbers, paths and our own title, nothing of the text
        code.svg_inline(scale=5, border=4, dark="#000", light="#fff", title=translated(TITLE))
    )

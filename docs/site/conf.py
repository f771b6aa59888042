"""How Sphinx builds the site from what `build.py` has gathered. Every warning is an error there."""

project = "tokenserver"
root_doc = "index"
extensions = ["myst_parser"]
# As the code host makes them, so that one link serves both.
myst_heading_anchors = 4
myst_enable_extensions = ["tasklist"]
# Examples are abridged by "…", which is no JSON.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = "tokenserver"
html_favicon = "static/favicon.svg"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
# No general index: there are no entries for one.
html_use_index = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"

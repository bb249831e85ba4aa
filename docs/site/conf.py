"""Settings of Sphinx for the site. `docs.site.build` runs it on the staged pages.

The site works offline: Furo takes the fonts of the reader's system, and nothing here adds a script
or a style from outside.
"""

project = "meshd"
html_title = "meshd"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 6  # like GitHub, so that links work in both places
myst_links_external_new_tab = False
suppress_warnings = ["misc.highlighting_failure"]  # an abridged example in a language is fine
highlight_language = "none"
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

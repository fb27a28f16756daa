"""The documentation site: Sphinx, pages in MyST Markdown. `sphinx-build -W docs build/docs` makes it.

Pictures and the table of options are made from the code before pages are read, into `made/`.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from tfkfin import __version__  # noqa: E402

project, author, version, release = "tfkfin", "the tfkfin authors", __version__, __version__
copyright = "the tfkfin authors, Apache-2.0"  # noqa: A001
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["README.md", "made/options.md"]
html_theme, html_title = "furo", f"tfkfin {__version__}"
html_static_path = ["style"]
html_css_files = ["tables.css"]
html_show_sphinx = False
nb_execution_mode = "off"  # notebooks are run by the tests
myst_heading_anchors = 3
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_ivar = True


def setup(app):
    import options
    import pictures

    options.write(HERE / "made" / "options.md")
    pictures.draw(HERE / "made")

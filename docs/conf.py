"""The documentation site: Sphinx, pages in MyST Markdown. `sphinx-build -W docs build/docs` makes it.

The table of options is made from the code before pages are read, into `made/`. Pictures are committed:
`python docs/pictures.py` draws them.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from numpy.typing import ArrayLike  # noqa: E402
from sphinx.util.typing import stringify_annotation  # noqa: E402

from tfkfin import __version__  # noqa: E402

project, author, version, release = "tfkfin", "the tfkfin authors", __version__, __version__
copyright = "the tfkfin authors, Apache-2.0"  # noqa: A001
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["README.md", "made/options.md"]
html_theme, html_title = "furo", f"tfkfin {__version__}"
if "TFKFIN_REPOSITORY" in os.environ:  # its address: pages then link to it
    html_theme_options = {"source_repository": os.environ["TFKFIN_REPOSITORY"], "source_branch": "main",
                          "source_directory": "docs/"}
html_static_path = ["style"]
html_css_files = ["site.css"]
html_show_sphinx = False
nb_execution_mode, nb_execution_in_temp, nb_execution_timeout = "auto", True, 600  # of notebooks without outputs
nb_execution_raise_on_error, nb_output_stderr = True, "remove"
myst_heading_anchors = 3
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_ivar = True
copybutton_prompt_text = "$ "
copybutton_line_continuation_character = "\\"

CONTENTS = {  # of the side bar. It is not written into index.md, which code hosts show as it is
    "Using it": ("start", "recordings", "api", "live", "serving", "lasting", "scale"),
    "Understanding it": ("results", "people", "paper", "fins", "plots", "glossary"),
    "Changing it": ("options", "extending", "inside"),
    "Notebooks": ("notebooks/start", "notebooks/own_data", "notebooks/serving"),
}
MADE = {  # classes that you get from a function or method, and never construct
    "tfkfin.Decoder", "tfkfin.recordings.recording.Recording", "tfkfin.serving.client.Client", "tfkfin.fit.run.Run",
    "tfkfin.decoder.decision.Decision", "tfkfin.nets.one_stride.Live", "tfkfin.nets.heads.Head",
    "tfkfin.api.OnlineSession",
}


def with_contents(app, page: str, source: list[str]) -> None:
    if page == "index":
        source[0] += "".join(f"\n```{{toctree}}\n:caption: {caption}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"
                             for caption, pages in CONTENTS.items())


def short_signature(app, what, name, thing, options, signature, answer):
    """None for classes that nobody constructs; NumPy's union of all that makes an array by its name."""
    arrays = stringify_annotation(ArrayLike, "smart")
    return "" if name in MADE else signature and signature.replace(arrays, "ArrayLike"), answer


def setup(app):
    import options

    options.write(HERE / "made" / "options.md")
    app.connect("source-read", with_contents)
    app.connect("autodoc-process-signature", short_signature)

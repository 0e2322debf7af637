"""How the documentation is built: `python -m sphinx -W --keep-going -q -b html docs OUT`. It needs no network."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from streamq import __version__

project = "streamq"
author = "the streamq authors"
release = version = __version__

extensions = ["myst_parser", "streamq_docs"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_ext", "_build"]
nitpicky = True
smartquotes = False  # "--app" must stay what can be typed

myst_heading_anchors = 4  # every heading down to #### can be linked to, by the name that GitHub gives it

html_theme = "furo"
html_title = f"streamq {release}"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False

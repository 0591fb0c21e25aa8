"""The built book serves itself: npm's scripts and fonts are copied in.

A page loads only what it shows.

`make` lets npm put them into the environment's ``node_modules``. Where they are missing, the pages
name public servers instead, as the theme does by default, and the build says so.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

NODE_MODULES = Path(sys.prefix) / "node_modules"
# What npm fetched, and where the built book has it (below _static).
COPIES = {
    "requirejs/require.js": "scripts/require.js",
    "@jupyter-widgets/html-manager/dist/embed-amd.js": "scripts/widgets.js",
    "mathjax/es5/tex-chtml.js": "mathjax/tex-chtml.js",
    "mathjax/es5/input/tex/extensions": "mathjax/input/tex/extensions",
    "mathjax/es5/output/chtml/fonts": "mathjax/output/chtml/fonts",
}
FONTS = {
    "source-serif-4/files/source-serif-4-latin-wght-normal.woff2": "serif.woff2",
    "source-serif-4/files/source-serif-4-latin-wght-italic.woff2": "serif-italic.woff2",
    "inter/files/inter-latin-wght-normal.woff2": "sans.woff2",
    "jetbrains-mono/files/jetbrains-mono-latin-wght-normal.woff2": "mono.woff2",
}
COPIES |= {f"@fontsource-variable/{source}": f"fonts/{name}" for source, name in FONTS.items()}
LAB_SECTION = "how-to-read-run"
LATER = "text/later"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

NO_SCRIPTS = (
    "npm's scripts are missing: formulae and controls will need a connection. "
    "Install npm, then run make again."
)

logger = logging.getLogger(__name__)


def has_scripts() -> bool:
    """Return whether npm fetched everything that the pages would serve."""
    return all((NODE_MODULES / source).exists() for source in COPIES)


def choose_scripts(app: Sphinx, config: Config) -> None:
    """Let pages name the book's own copies of MathJax, the widget scripts and the fonts, if npm
    fetched them."""
    if not has_scripts():
        logger.info(NO_SCRIPTS)
        return
    config.mathjax_path = "mathjax/tex-chtml.js"
    config.nb_ipywidgets_js = {"scripts/require.js": {}, "scripts/widgets.js": {}}
    config.html_css_files.insert(0, "fonts.css")


def copy_scripts(app: Sphinx) -> None:
    """Copy what npm fetched into the built book."""
    if app.builder.format != "html" or not has_scripts():
        return
    for source, target in COPIES.items():
        place = Path(app.outdir) / "_static" / target
        place.parent.mkdir(parents=True, exist_ok=True)
        if (NODE_MODULES / source).is_dir():
            shutil.copytree(NODE_MODULES / source, place, dirs_exist_ok=True)
        else:
            shutil.copyfile(NODE_MODULES / source, place)


def without_explorers(state: str) -> str:
    """Return a page's stored widget state without the explorers, which need no kernel and no widget
    manager."""
    stored = json.loads(state.replace(r"<\/script>", "</script>"))
    kept = {
        name: model
        for name, model in stored["state"].items()
        if model["model_module"] != "anywidget"
    }
    return json.dumps(stored | {"state": kept}).replace("</script>", r"<\/script>")


def load_only_what_is_shown(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Leave out the scripts that a page has no use for, and let large ones wait.

    Thebe is never used. Jupyter's widgets load when a control comes near; MathJax is fetched ahead
    by pages without formulae, so that the next page has it at once. ``later.js`` does both.
    """
    body, widget_scripts = context.get("body", ""), app.config.nb_ipywidgets_js
    shows_math, shows_widgets = 'class="math ' in body, WIDGET_VIEW in body
    kept = []
    for script in context["script_files"]:
        name, text = (
            str(script.filename or "").removeprefix("_static/"),
            script.attributes.get("body", ""),
        )
        is_state, is_widgets = script.attributes.get("type") == WIDGET_STATE, name in widget_scripts
        is_math = name == app.config.mathjax_path or text.startswith("window.MathJax")
        no_use_here = (is_math and not shows_math) or (
            (is_state or is_widgets) and not shows_widgets
        )
        if no_use_here or "thebe" in name or "THEBE" in text:
            continue
        if is_state:
            script.attributes["body"] = without_explorers(text)
        if is_widgets:
            script.attributes["type"] = LATER
        kept.append(script)
    context["script_files"][:] = kept
    app.add_js_file("later.js")
    if has_scripts() and not shows_math:
        app.add_js_file(app.config.mathjax_path, type=LATER, **{"data-prefetch": ""})


def choose_buttons(app: Sphinx, config: Config) -> None:
    """Offer Colab and the repository only where ``_config.yml`` names one; the theme breaks on an
    empty address."""
    options = config.html_theme_options
    if options.get("repository_url"):
        options["use_repository_button"] = True
    else:
        options.pop("launch_buttons", None)


def add_lab_button(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Give each chapter a button that says how to open it in JupyterLab, beside Colab's if there is
    one."""
    if "kernelspec" not in app.env.metadata.get(pagename, {}):
        return
    tip, address = (
        "Run this chapter in JupyterLab on your machine",
        f"{context['pathto']('how_to_read')}#{LAB_SECTION}",
    )
    lab = {
        "type": "link",
        "text": "JupyterLab",
        "tooltip": tip,
        "icon": "fas fa-flask",
        "url": address,
    }
    groups = [
        button for button in context["header_buttons"] if button.get("label") == "launch-buttons"
    ]
    if groups:
        groups[0]["buttons"].insert(0, lab)
    else:
        group = {
            "type": "group",
            "tooltip": "Run this chapter",
            "icon": "fas fa-rocket",
            "label": "launch-buttons",
        }
        context["header_buttons"].append(group | {"buttons": [lab]})


def mend_roles(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Take back roles that screen readers no longer know, and a name that differs from the words on
    the fold."""
    if "body" in context:
        plain = context["body"].replace(
            '<div role="list" class="citation-list">', '<div class="citation-list">'
        )
        plain = plain.replace(' role="doc-biblioentry"', "")
        context["body"] = plain.replace('<summary aria-label="Toggle hidden content">', "<summary>")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the steps above to the build."""
    app.connect("config-inited", choose_scripts, priority=100)
    app.connect("config-inited", choose_buttons, priority=100)
    app.connect("builder-inited", copy_scripts)
    app.connect("html-page-context", load_only_what_is_shown, priority=900)
    app.connect("html-page-context", add_lab_button, priority=600)
    app.connect("html-page-context", mend_roles)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

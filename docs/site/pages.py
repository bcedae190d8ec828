"""Sphinx extension: the sidebar's sections, formulas as MathML, and pages that show a file of the repository."""

from __future__ import annotations

import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from docutils import nodes
from latex2mathml.converter import convert
from pygments.lexers import get_lexer_for_filename
from sphinx.addnodes import download_reference, pending_xref
from sphinx.util.osutil import relative_uri

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

SHOWN = "shown_files"  # attribute of the environment: files that a page leads to
SUFFIXES, LARGEST = {".py", ".yaml", ".toml", ".json", ".jsonl"}, 200_000  # of what is shown; bytes


def setup(app: Sphinx) -> dict[str, bool]:
    """Register everything here."""
    app.add_config_value("site_sections", {}, "env", dict)
    app.add_config_value("site_modules", [], "env", list)
    app.add_html_math_renderer("mathml", (_inline_formula, None), (_formula, None))
    app.connect("builder-inited", keep_outputs_inside, priority=600)  # after MyST-NB
    app.connect("source-read", add_generated_parts)
    app.connect("autodoc-process-docstring", escape_bars)
    app.connect("doctree-resolved", show_linked_files)
    app.connect("html-collect-pages", file_pages)
    app.connect("build-finished", copy_front_page)
    return {"parallel_read_safe": True, "parallel_write_safe": False}


def keep_outputs_inside(app: Sphinx) -> None:
    """MyST-NB writes the notebooks' pictures beside the site's folder, which is the repository."""
    app.env.mystnb_config = app.env.mystnb_config.copy(output_folder=str(pathlib.Path(app.outdir, ".notebooks")))


def _inline_formula(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _formula(translator: HTML5Translator, node: nodes.math_block) -> None:
    style = "margin: 0.5rem 0; padding: 0.5rem 0; overflow: auto hidden"
    translator.body.append(f'<div style="{style}">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def add_generated_parts(app: Sphinx, docname: str, source: list[str]) -> None:
    """The sections below the front page, the modules below the API page, the title of a table: GitHub shows none."""
    if docname == app.config.root_doc:
        for caption, names in app.config.site_sections.items():
            pages = "\n".join(f"/{name}" for name in names)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}\n\n{pages}\n```\n"
    elif docname == "docs/site/api":
        for module in app.config.site_modules:
            title = module.removeprefix("fedmrg_core.")
            entry = f".. automodule:: {module}\n   :members:\n   :show-inheritance:\n"
            source[0] += f"\n## {title}\n\n```{{eval-rst}}\n{entry}```\n"
    elif not source[0].startswith(("#", "{")):  # {: a notebook
        source[0] = f"# {pathlib.PurePath(docname).name.replace('_', ' ')}\n\n{source[0]}"


def escape_bars(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """A bar outside code is one: docstrings write |x|, which would be a substitution."""
    lines[:] = [re.sub(r"(`[^`]*`)|\|", lambda found: found[1] or r"\|", line) for line in lines]


def show_linked_files(app: Sphinx, document: nodes.document, docname: str) -> None:
    """Files of the repository that a page links to, or names in code, lead to pages that show them."""
    if app.builder.format != "html":
        return
    root = pathlib.Path(app.srcdir)
    for link in list(document.findall(download_reference)):
        path = (root / docname).parent / link["reftarget"]
        if address := _page_of(app, docname, path.resolve()):
            link.replace_self(nodes.reference("", "", *link.children, internal=True, refuri=address))
    for code in list(document.findall(nodes.literal)):
        linked = isinstance(code.parent, nodes.reference | pending_xref)
        named = [root / code.astext(), root / "fedmrg_core" / code.astext()]
        path = next((path for path in named if re.fullmatch(r"[\w./]+\.\w+", code.astext()) and path.is_file()), None)
        if path and not linked and (address := _page_of(app, docname, path)):
            code.replace_self(nodes.reference("", "", code.deepcopy(), internal=True, refuri=address))


def _page_of(app: Sphinx, docname: str, path: pathlib.Path) -> str | None:
    """The address, from a page, of what shows a file; None: it is large or of another kind, and stays as it is."""
    name = path.relative_to(app.srcdir).as_posix()
    page = name.rpartition(".")[0]
    if page not in app.env.found_docs:
        if path.suffix not in SUFFIXES or path.stat().st_size > LARGEST:
            return None
        app.env.__dict__.setdefault(SHOWN, set()).add(name)
        page = f"files/{name}"
    return relative_uri(app.builder.get_target_uri(docname), app.builder.get_target_uri(page))


def file_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, str], str]]:
    """One page for each file that a page leads to, with its lines in colour."""
    for name in sorted(getattr(app.env, SHOWN, ())):
        text = pathlib.Path(app.srcdir, name).read_text(encoding="utf-8")
        lexer = get_lexer_for_filename(name).aliases[0]
        body = app.builder.highlighter.highlight_block(text, lexer, linenos=False)
        yield f"files/{name}", {"title": name, "body": f"<h1>{name}</h1>{body}"}, "page.html"


def copy_front_page(app: Sphinx, failure: Exception | None) -> None:
    """A browser that is given the folder opens index.html."""
    if failure is None and app.builder.format == "html":
        shutil.copyfile(pathlib.Path(app.outdir, "README.html"), pathlib.Path(app.outdir, "index.html"))

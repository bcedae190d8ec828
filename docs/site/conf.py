"""The site: which pages it has, in which order, and how they look. `make docs` builds it."""

from __future__ import annotations

import os
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Pages by section of the sidebar, as paths below the repository without ending.
site_sections = {
    "Use it": ["docs/running", "docs/deployment", "docs/reproducibility"],
    "Understand it": [
        "docs/glossary",
        "docs/layout",
        "docs/hospitals",
        "docs/what_leaves_a_hospital",
        "docs/promised",
        "docs/contracts",
        "docs/prompts",
        "docs/medical_qa",
        "docs/visual_prompts",
        "docs/identity",
        "docs/what_updates_give_away",
        "docs/privacy",
        "docs/attack_tolerance",
        "notebooks/*",
        "docs/site/api",
    ],
    "Results": [
        *("docs/results", "docs/tried", "docs/labeller", "figures/reference/README"),
        *("data_cards/README", "data_cards/iu_xray", "data_cards/phantom_cxr"),
        *("data_cards/medical_world", "data_cards/medical_questions"),
        *("data_cards/phantom_pictures", "data_cards/pictures"),
    ],
    "Tables of the benchmark": ["figures/reference/standard/benchmark/*"],
}
# Modules of the API page, in the order in which a reader of the paper meets them.
site_modules = [
    "fedmrg_core.runs.methods",
    "fedmrg_core.encoder",
    "fedmrg_core.contrast",
    "fedmrg_core.training.batch_statistics",
    "fedmrg_core.prompts",
    "fedmrg_core.prompts.static",
    "fedmrg_core.prompts.prompt_wise",
    "fedmrg_core.prompts.promptbook_wise",
    "fedmrg_core.prompts.generator",
    "fedmrg_core.adapters",
    "fedmrg_core.report_generator",
    "fedmrg_core.tasks.reports.local_training",
    "fedmrg_core.training.client_rules",
    "fedmrg_core.federation.task",
    "fedmrg_core.federation.declaration",
    "fedmrg_core.federation.compression",
    "fedmrg_core.federation.rounds",
    "fedmrg_core.federation.server_rules",
    "fedmrg_core.federation.curious.inversion",
    "fedmrg_core.federation.privacy",
    "fedmrg_core.federation.robust_rules",
    "fedmrg_core.tasks.reports.adaptation",
    "fedmrg_core.tasks.medical_qa.scoring",
    "fedmrg_core.tasks.medical_qa.question_model",
    "fedmrg_core.tasks.reports.attacks.words",
    "fedmrg_core.tasks.visual_prompts.prompted_model",
    "fedmrg_core.tasks.visual_prompts.sam",
]

project = html_title = "FedMRG companion"
language = "en"
root_doc = "README"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "pages"]

# The repository is the source folder, so that every link between files is the one that GitHub follows.
include_patterns = [
    "README.md",
    "docs/**.md",
    "data_cards/*.md",
    "notebooks/*.ipynb",
    "figures/reference/README.md",
    "figures/reference/standard/benchmark/*.md",
]
exclude_patterns = [".*", "results", "prepared", "base_models", "report", "site", "tests", "fedmrg_core", "profiles"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}

napoleon_use_ivar = True  # an attribute that is also annotated would be there twice
nb_execution_mode = "off"  # outputs are the committed ones
nb_ipywidgets_js = {}
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
html_math_renderer = "mathml"

default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_google_docstring, napoleon_numpy_docstring = True, False

html_theme = "sphinx_book_theme"
html_theme_options = {
    "show_navbar_depth": 1,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "use_source_button": False,
    "navigation_with_keys": False,
    "navbar_persistent": [],  # the search field stands in the sidebar
    "home_page_in_toc": True,
}
html_copy_source = html_show_sourcelink = False
html_show_copyright = False

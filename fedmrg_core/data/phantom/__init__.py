"""[ours] PhantomCXR: a synthetic chest radiograph data set made in memory, with its truth. It is a phantom, not
patients.
"""

from fedmrg_core.data.phantom.centres import CENTRES, PUBLIC_SITE, UNSEEN_CENTRE, PhantomSettings
from fedmrg_core.data.phantom.studies import (
    GENERATOR_VERSION,
    PhantomStudy,
    draw_study,
    load_phantom,
    public_corpus,
    public_part,
    public_texts,
    study_text,
)
from fedmrg_core.data.phantom.truth import DRAWN_FINDINGS

__all__ = [
    "CENTRES",
    "DRAWN_FINDINGS",
    "GENERATOR_VERSION",
    "PUBLIC_SITE",
    "UNSEEN_CENTRE",
    "PhantomSettings",
    "PhantomStudy",
    "draw_study",
    "load_phantom",
    "public_corpus",
    "public_part",
    "public_texts",
    "study_text",
]

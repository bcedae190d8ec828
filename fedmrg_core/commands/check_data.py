"""A dry run of preparing: what a data set holds, without storing it."""

from __future__ import annotations

import pathlib

from fedmrg_core.data.sources import call_loader, corpus_name
from fedmrg_core.data.study import LoadedStudies
from fedmrg_core.runs.configuration import load_profile


def load_studies(data: str, root: pathlib.Path | str | None, profile: str = "smoke") -> LoadedStudies:
    """Load a data set at a profile's image size and counts without storing it: a dry run of `prepare`.

    Raises:
        InputError: as `prepare`.
    """
    settings = load_profile(profile, data)
    options = settings.phantom.model_dump() if corpus_name(data) == "phantom" else {}
    return call_loader(data, root, settings.image_size, 0, **options)

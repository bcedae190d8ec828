"""One picture with its truth, what all pictures of a data set are asked, and what every data set keeps to."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal

import numpy

from fedmrg_core.data.site_names import check_site_name
from fedmrg_core.data.study import SPLITS, LeftOut
from fedmrg_core.errors import InputError

Kind = Literal["one", "several", "masks"]


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is asked of every picture of a data set.

    Attributes:
        kind: one: exactly one of the names is right; several: each is there or not, by itself; masks: a region each.
        names: of classes, findings or regions, K of them.
        channels: of a picture: 1 grey, 3 colours.
    """

    kind: Kind
    names: tuple[str, ...]
    channels: int = 1

    def described(self) -> dict[str, Any]:
        """As JSON."""
        return {"kind": self.kind, "names": list(self.names), "channels": self.channels}

    @classmethod
    def read(cls, content: dict[str, Any]) -> Subject:
        """The inverse of `described`."""
        return cls(content["kind"], tuple(content["names"]), content["channels"])


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        picture_id: occurs once in a data set.
        group: pictures that belong together, such as a patient's or a film's; a group lies in one split.
        site: where it was taken.
        split: train, validation or test.
        pixels: uint8 (C, H, W).
        truth: uint8 of zeros and ones: (K,) of classes and findings, (K, H, W) of regions.
    """

    picture_id: str
    group: str
    site: str
    split: str
    pixels: numpy.ndarray
    truth: numpy.ndarray


@dataclasses.dataclass
class LoadedPictures:
    """What a data set of pictures hands back.

    Attributes:
        pictures: those in use.
        subject: what is asked of them.
        left_out: every one left out, with a reason.
        notes: sentences that a person should read.
    """

    pictures: list[Picture]
    subject: Subject
    left_out: list[LeftOut] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def check_pictures(loaded: LoadedPictures, source: str, unseen: Collection[str] = ()) -> None:
    """Hold a data set against the schema.

    Args:
        loaded: to be checked.
        source: begins the sentences.
        unseen: sites that never train: they need test pictures alone.

    Raises:
        InputError: an id occurs twice, a split is unknown, a group lies in two, a site lacks a part or has a name
            that tables use, or the training pictures of a site are all of one class.
    """
    seen: set[str] = set()
    split_of: dict[str, str] = {}
    for picture in loaded.pictures:
        place = f"{source}: picture {picture.picture_id!r}"
        if picture.picture_id in seen:
            raise InputError(f"{place} occurs twice; give every picture an id of its own.")
        seen.add(picture.picture_id)
        check_site_name(picture.site, place)
        if picture.split not in SPLITS:
            raise InputError(f"{place} has split {picture.split!r}; expected one of {', '.join(SPLITS)}.")
        if split_of.setdefault(picture.group, picture.split) != picture.split:
            raise InputError(
                f"{place}: its group {picture.group!r} is in {picture.split} and in {split_of[picture.group]}; keep a "
                "group in one split."
            )
    for site, pictures in by_site(loaded.pictures).items():
        _check_site(site, pictures, loaded.subject, source, needed=("test",) if site in unseen else SPLITS)


def by_site(pictures: Iterable[Picture]) -> dict[str, list[Picture]]:
    """Pictures by site, sites sorted by name."""
    found: dict[str, list[Picture]] = collections.defaultdict(list)
    for picture in pictures:
        found[picture.site].append(picture)
    return dict(sorted(found.items()))


def _check_site(site: str, pictures: Sequence[Picture], subject: Subject, source: str, needed: Collection[str]) -> None:
    for split in needed:
        if not any(picture.split == split for picture in pictures):
            raise InputError(f"{source}: site {site!r} has no {split} picture; give it some, or leave the site out.")
    train = [picture.truth for picture in pictures if picture.split == "train"]
    if subject.kind == "masks" or not train or "train" not in needed:
        return
    there = numpy.stack(train)
    if not ((there.min(axis=0) == 0) & (there.max(axis=0) == 1)).any():
        names = ", ".join(repr(name) for name, held in zip(subject.names, there[0], strict=True) if held)
        raise InputError(
            f"{source}: site {site!r} has one class alone among its training pictures, {names or 'none at all'}; "
            "nothing can be told apart there: give it pictures of another class, or hold the site out as unseen."
        )

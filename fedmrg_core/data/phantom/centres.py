"""[ours] The six centres of PhantomCXR: every number of their styles, and how far they are blended with a common
style.

One dataclass a centre. `PhantomSettings` dials both heterogeneities from none (0: all centres acquire and write alike,
and differ in prevalence only) to the full difference (1).
"""

from __future__ import annotations

import dataclasses

from fedmrg_core.data.phantom import vocabulary, vocabulary_more
from fedmrg_core.data.phantom.vocabulary import AT, CM, CO, EC, ED, FX, LL, LO, PE, PN, PO, PX, SD, Dialect
from fedmrg_core.errors import InputError

CENTRES: tuple[str, ...] = ("centre-a", "centre-b", "centre-c", "centre-d", "centre-e", "centre-f")
UNSEEN_CENTRE = "centre-f"
PUBLIC_SITE = "public"


@dataclasses.dataclass(frozen=True)
class PhantomSettings:
    """How strongly the centres differ; both strengths lie in 0..1.

    Raises:
        InputError: a strength outside 0..1.
    """

    image_strength: float = 1.0
    wording_strength: float = 1.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise InputError(f"PhantomCXR: {field.name} is {value!r}; give a number from 0 to 1.")


@dataclasses.dataclass(frozen=True)
class ImageStyle:
    """How a centre acquires and processes its radiographs; lengths in centimetres in the detector plane."""

    contrast: float = 1.0  # slope of the characteristic curve at its middle
    brightness: float = 0.0  # shift of the characteristic curve
    gamma: float = 1.0  # exponent after the curve; above 1 darkens the middle greys
    photons: float = 20000.0  # per pixel before the patient: quantum noise falls with its root
    scatter: float = 0.05  # share of the open-field intensity added by scattered radiation
    blur: float = 0.15  # standard deviation of the focal-spot and detector blur
    pixel: float = 0.2  # native pixel size; coarser than the output's pixel loses detail
    edge: float = 0.0  # weight of unsharp masking at 0.6 cm
    equalise: float = 0.0  # weight of the removal of the local mean at 5 cm
    share_ap: float = 0.2  # share of antero-posterior bedside films (the others are postero-anterior)
    zoom: float = 1.0  # magnification of the patient on the film
    tilt: float = 1.5  # standard deviation of the patient's rotation in the plane, degrees
    collimation: float = 0.0  # width of the black border
    marker: tuple[float, float] = (0.0, 0.0)  # place of the side marker from the centre; (0, 0) has none
    marker_size: float = 0.0


@dataclasses.dataclass(frozen=True)
class ReportStyle:
    """How a centre reports."""

    dialect: Dialect
    order: tuple[str, ...]  # of the sections
    denial: dict[str, float]  # chance that an absent finding is denied rather than left unsaid
    hedging: float  # chance that a visible moderate finding is hedged (mild 1.6 times, severe and moderate 0.7 times)
    false_hedge: float = 0.01  # chance that an absent finding is hedged
    completeness: float = 0.96  # chance that a visible finding is mentioned
    joined_denials: float = 0.5  # chance that the denials of a section share a sentence
    ready_made: float = 0.5  # chance of a ready-made normal sentence where the dialect has one
    denials_first: bool = False


@dataclasses.dataclass(frozen=True)
class Centre:
    """Everything that tells one centre from another."""

    name: str
    image: ImageStyle
    report: ReportStyle
    prevalence: dict[str, float]


def _rates(default: float, **by_finding: float) -> dict[str, float]:
    """A number for each finding; keywords are the short names of the vocabulary."""
    short = {
        "EC": EC,
        "CM": CM,
        "LO": LO,
        "LL": LL,
        "ED": ED,
        "CO": CO,
        "PN": PN,
        "AT": AT,
        "PX": PX,
        "PE": PE,
        "PO": PO,
        "FX": FX,
        "SD": SD,
    }
    return {name: by_finding.get(key, default) for key, name in short.items()}


COMMON_IMAGE = ImageStyle()
COMMON_REPORT = ReportStyle(
    dialect=vocabulary.COMMON,
    order=("heart", "lungs", "pleura", "bones", "devices"),
    denial=_rates(0.35, CM=0.8, EC=0.4, CO=0.6, PX=0.8, PE=0.8, FX=0.3, SD=0.02, LO=0.5, PO=0.1),
    hedging=0.12,
)
COMMON_PREVALENCE = _rates(0.14, CM=0.25, PE=0.22, CO=0.2, PN=0.6, SD=0.25, PO=0.1, FX=0.1)

_STYLES: tuple[Centre, ...] = (
    Centre(  # a university hospital: modern detector, long complete reports
        "centre-a",
        ImageStyle(
            contrast=1.15,
            photons=60000,
            blur=0.1,
            edge=0.5,
            share_ap=0.3,
            zoom=1.0,
            marker=(-16.5, -16.0),
            marker_size=1.6,
        ),
        ReportStyle(
            vocabulary.CENTRE_A,
            ("devices", "lungs", "pleura", "heart", "bones"),
            _rates(0.35, CM=0.8, EC=0.45, CO=0.7, PX=0.9, PE=0.9, FX=0.35, SD=0.0, LO=0.3, PO=0.05),
            hedging=0.18,
            joined_denials=0.7,
        ),
        _rates(0.15, CM=0.28, PE=0.25, CO=0.18, PN=0.6, ED=0.18, SD=0.35, PO=0.08, FX=0.08),
    ),
    Centre(  # an outpatient practice: film scanner, telegraphic reports
        "centre-b",
        ImageStyle(
            contrast=0.9,
            brightness=0.25,
            gamma=0.8,
            photons=9000,
            scatter=0.1,
            blur=0.28,
            pixel=0.4,
            share_ap=0.0,
            zoom=0.94,
            tilt=1.0,
            marker=(15.0, -15.5),
            marker_size=2.4,
        ),
        ReportStyle(
            vocabulary.CENTRE_B,
            ("heart", "lungs", "pleura", "bones", "devices"),
            _rates(0.4, CM=0.95, EC=0.6, CO=0.5, PX=0.7, PE=0.9, FX=0.6, SD=0.0, LO=0.7, PO=0.05),
            hedging=0.06,
            joined_denials=0.3,
            ready_made=0.9,
        ),
        _rates(0.12, CM=0.22, PE=0.14, LL=0.22, CO=0.15, PN=0.75, ED=0.1, PX=0.1, SD=0.15, PO=0.12, FX=0.12),
    ),
    Centre(  # a chest clinic, British wording: hard copy with strong local contrast
        "centre-c",
        ImageStyle(
            contrast=1.0,
            gamma=1.25,
            photons=25000,
            equalise=0.55,
            blur=0.15,
            share_ap=0.1,
            zoom=1.05,
            collimation=1.2,
            marker=(-16.0, 12.0),
            marker_size=1.3,
        ),
        ReportStyle(
            vocabulary.CENTRE_C,
            ("bones", "heart", "pleura", "lungs", "devices"),
            _rates(0.3, CM=0.75, EC=0.5, CO=0.4, PX=0.5, PE=0.6, FX=0.4, SD=0.0, LO=0.6, PO=0.3),
            hedging=0.14,
            joined_denials=0.5,
            denials_first=True,
        ),
        _rates(0.14, CM=0.2, PE=0.25, LL=0.2, CO=0.25, PN=0.5, AT=0.2, PO=0.2, SD=0.12, FX=0.1, EC=0.18),
    ),
    Centre(  # an emergency department: bedside films, structured template
        "centre-d",
        ImageStyle(
            contrast=1.35,
            brightness=-0.3,
            photons=7000,
            scatter=0.14,
            blur=0.2,
            share_ap=0.75,
            zoom=1.1,
            tilt=4.0,
            collimation=0.6,
            marker=(16.5, 14.0),
            marker_size=2.0,
        ),
        ReportStyle(
            vocabulary_more.CENTRE_D,
            ("lungs", "pleura", "heart", "bones", "devices"),
            _rates(0.5, CM=0.95, EC=0.7, CO=0.8, PX=0.95, PE=0.95, FX=0.8, SD=0.5, LO=0.4, PO=0.1),
            hedging=0.1,
            joined_denials=0.8,
            ready_made=0.8,
        ),
        _rates(0.14, CM=0.3, PE=0.22, PX=0.22, CO=0.22, PN=0.65, ED=0.22, FX=0.22, SD=0.4, PO=0.05),
    ),
    Centre(  # a teleradiology reader of several small hospitals: smooth images, wordy and hedging
        "centre-e",
        ImageStyle(
            contrast=0.9,
            brightness=-0.15,
            gamma=1.1,
            photons=40000,
            scatter=0.08,
            blur=0.35,
            edge=1.2,
            pixel=0.3,
            share_ap=0.4,
            zoom=0.98,
            collimation=2.2,
            marker=(0.0, -13.5),
            marker_size=1.5,
        ),
        ReportStyle(
            vocabulary_more.CENTRE_E,
            ("lungs", "heart", "bones", "pleura", "devices"),
            _rates(0.2, CM=0.6, EC=0.3, CO=0.3, PX=0.6, PE=0.65, FX=0.3, SD=0.0, LO=0.4, PO=0.05),
            hedging=0.28,
            false_hedge=0.02,
            joined_denials=0.9,
        ),
        _rates(0.15, CM=0.25, PE=0.2, CO=0.2, PN=0.55, LO=0.22, SD=0.2, PO=0.12, FX=0.1),
    ),
    Centre(  # never seen in training: another detector, another language background
        "centre-f",
        ImageStyle(
            contrast=1.05,
            brightness=0.15,
            gamma=0.95,
            photons=12000,
            scatter=0.07,
            blur=0.22,
            equalise=0.25,
            edge=0.3,
            share_ap=0.35,
            zoom=1.02,
            tilt=2.5,
            collimation=0.9,
            marker=(-15.5, -9.0),
            marker_size=1.8,
        ),
        ReportStyle(
            vocabulary_more.CENTRE_F,
            ("pleura", "lungs", "heart", "devices", "bones"),
            _rates(0.3, CM=0.7, EC=0.4, CO=0.5, PX=0.7, PE=0.8, FX=0.3, SD=0.0, LO=0.4, PO=0.1),
            hedging=0.12,
        ),
        _rates(0.15, CM=0.25, PE=0.22, CO=0.2, PN=0.6, SD=0.25, PO=0.12, FX=0.12),
    ),
)


def centre(name: str) -> Centre:
    """The centre called `name`.

    Raises:
        InputError: no centre has that name.
    """
    for candidate in _STYLES:
        if candidate.name == name:
            return candidate
    raise InputError(f"PhantomCXR: there is no centre {name!r}; choose one of {', '.join(CENTRES)}.")


def blended_image_style(style: ImageStyle, strength: float) -> ImageStyle:
    """The style `strength` of the way from the common one: (1 - s) common + s own, number by number; the marker is
    all or none.
    """
    values = {}
    for field in dataclasses.fields(ImageStyle):
        common, own = getattr(COMMON_IMAGE, field.name), getattr(style, field.name)
        values[field.name] = own if isinstance(own, tuple) else (1 - strength) * common + strength * own
    return ImageStyle(**values)


def blended_report_style(style: ReportStyle, strength: float) -> ReportStyle:
    """Numbers are interpolated; orders switch to the centre's own above one half; `write_report` mixes the
    sentences themselves.
    """
    values = {}
    for field in dataclasses.fields(ReportStyle):
        common, own = getattr(COMMON_REPORT, field.name), getattr(style, field.name)
        if isinstance(own, float):
            values[field.name] = (1 - strength) * common + strength * own
        elif field.name == "denial":
            values[field.name] = {name: (1 - strength) * common[name] + strength * own[name] for name in own}
        else:
            values[field.name] = own if field.name == "dialect" or strength > 0.5 else common
    return ReportStyle(**values)

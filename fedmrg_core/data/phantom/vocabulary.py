"""[ours] The words of each reporting dialect of PhantomCXR: what it calls each finding and how it says it.

A dialect knows, for each finding, noun phrases for a finding that is there (with the slots {side}, {zone}, {size}; a
leading `*` marks a plural) and a bare noun for denials. Frames turn phrases into sentences; `normal` holds ready-made
denials. No phrase names a second finding of the list unless the sentence really says it, so that the states of a
report can be read off its words.
"""

from __future__ import annotations

import dataclasses

from fedmrg_core.data.findings import FINDINGS


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How one reporting style words its statements; `phrases`, `nouns` and `normal` are keyed by finding."""

    positive: tuple[str, ...]  # frames around {phrase}, with {is_} for is/are and {was} for has been/have been
    uncertain: tuple[str, ...]
    negative: tuple[str, ...]  # frames around {nouns}: one noun or a list joined by "or"
    phrases: dict[str, tuple[str, ...]]
    nouns: dict[str, tuple[str, ...]]
    normal: dict[str, tuple[str, ...]]
    infection: tuple[str, str]  # pneumonia affirmed, pneumonia left open; both follow a consolidation
    zones: tuple[str, str, str]  # upper, middle, lower
    sizes: tuple[str, str, str]  # of something that can be measured
    grades: tuple[str, str, str]  # of something diffuse
    clear: tuple[str, ...]  # the impression of a report without a positive statement
    impression: tuple[str, ...]  # frames of the impression around {list}
    headings: dict[str, str] = dataclasses.field(default_factory=dict)  # of the sections, where the dialect has any


# Short names for the tables below; "no finding" is never worded.
EC, CM, LO, LL, ED, CO, PN, AT, PX, PE, PO, FX, SD = FINDINGS[:-1]

# Both sides at once, and devices by kind, are written apart from the one-sided phrases: "pleural effusion/both",
# "support devices/pacemaker".
COMMON = Dialect(
    positive=("There {is_} {phrase}.", "{phrase} {is_} present."),
    uncertain=("Possible {bare}.", "{phrase} cannot be excluded."),
    negative=("There is no {nouns}.", "No {nouns}.", "No {nouns} is seen."),
    phrases={
        EC: ("widening of the mediastinum", "{grade} enlargement of the cardiomediastinal silhouette"),
        CM: ("{grade} cardiomegaly", "{grade} enlargement of the heart"),
        LO: ("a hazy opacity in the {side} {zone} lung", "{grade} hazy {side} {zone} lung opacity"),
        LL: ("a {size} nodule in the {side} {zone} lung", "a {size} {side} {zone} lung mass"),
        ED: ("{grade} pulmonary edema", "{grade} interstitial edema"),
        CO: ("consolidation in the {side} {zone} lung", "{grade} {side} {zone} lung consolidation"),
        AT: ("{side} {zone} lung atelectasis", "linear atelectasis in the {side} {zone} lung"),
        PX: ("a {size} {side} pneumothorax",),
        PE: ("a {size} {side} pleural effusion", "{side} pleural fluid"),
        PE + "/both": ("*{size} bilateral pleural effusions",),
        PO: ("{side} pleural thickening", "{grade} thickening of the {side} pleura"),
        FX: ("*{side} rib fractures", "a displaced fracture of a {side} rib"),
        SD + "/tube": ("an endotracheal tube", "an endotracheal tube above the carina"),
        SD + "/pacemaker": ("a {side} chest wall pacemaker", "a cardiac pacemaker with leads in place"),
        SD + "/wires": ("*sternal wires", "*median sternotomy wires"),
        SD + "/line": ("a {side} central venous catheter", "a {side} central line"),
    },
    nouns={
        EC: ("mediastinal widening",),
        CM: ("cardiomegaly",),
        LO: ("lung opacity", "airspace opacity"),
        LL: ("nodule", "mass"),
        ED: ("pulmonary edema",),
        CO: ("consolidation", "focal consolidation"),
        PN: ("pneumonia",),
        AT: ("atelectasis",),
        PX: ("pneumothorax",),
        PE: ("pleural effusion", "effusion"),
        PO: ("pleural thickening",),
        FX: ("fracture", "rib fracture"),
        SD: ("support device",),
    },
    normal={
        CM: ("The heart size is normal.", "Heart size is within normal limits."),
        EC: ("The mediastinum is not widened.", "The mediastinal contours are normal."),
        LO: ("The lungs are clear.", "Both lungs are clear."),
        FX: ("The ribs are intact without fracture.", "No fracture of the bones is seen."),
    },
    infection=("This is consistent with pneumonia.", "Pneumonia is possible."),
    zones=("upper", "mid", "lower"),
    sizes=("small", "moderate", "large"),
    grades=("mild", "moderate", "severe"),
    clear=("No acute abnormality.", "Normal chest."),
    impression=("{list}.",),
)

CENTRE_A = Dialect(
    positive=("There {is_} {phrase}.", "{phrase} {is_} seen.", "There is evidence of {phrase}."),
    uncertain=("There may be {phrase}.", "Findings raise the possibility of {phrase}."),
    negative=("There is no {nouns}.", "There is no evidence of {nouns}."),
    phrases={
        EC: ("widening of the superior mediastinum", "{grade} enlargement of the mediastinal silhouette"),
        CM: ("{grade} cardiomegaly", "{grade} enlargement of the cardiac silhouette"),
        LO: (
            "an ill-defined hazy opacity within the {side} {zone}",
            "a {grade} ground-glass opacity projecting over the {side} {zone}",
        ),
        LL: (
            "a {size} rounded nodule projecting over the {side} {zone}",
            "a {size} well-circumscribed mass in the {side} {zone}",
        ),
        ED: (
            "{grade} pulmonary edema with perihilar haze",
            "{grade} interstitial pulmonary edema with vascular indistinctness",
        ),
        CO: (
            "a focal consolidation within the {side} {zone}",
            "dense airspace consolidation involving the {side} {zone}",
        ),
        AT: ("plate-like atelectasis at the {side} {zone}", "linear atelectasis with volume loss in the {side} {zone}"),
        PX: ("a {size} {side} apical pneumothorax", "a {size} {side} pneumothorax with a visible pleural line"),
        PE: ("a {size} {side} pleural effusion", "a {size} {side} pleural effusion with meniscus formation"),
        PE + "/both": ("*{size} bilateral pleural effusions",),
        PO: ("{grade} {side} lateral pleural thickening", "smooth thickening of the {side} pleura"),
        FX: ("*displaced fractures of the {side} lateral ribs", "a displaced {side} rib fracture"),
        SD + "/tube": ("an endotracheal tube terminating above the carina",),
        SD + "/pacemaker": ("a {side} chest wall pacemaker with leads terminating over the right ventricle",),
        SD + "/wires": ("*intact median sternotomy wires",),
        SD + "/line": ("a {side} internal jugular central venous catheter terminating in the superior vena cava",),
    },
    nouns={
        EC: ("mediastinal widening",),
        CM: ("cardiomegaly",),
        LO: ("pulmonary opacity",),
        LL: ("suspicious nodule or mass",),
        ED: ("pulmonary edema",),
        CO: ("focal consolidation",),
        PN: ("pneumonia",),
        AT: ("atelectasis",),
        PX: ("pneumothorax",),
        PE: ("pleural effusion",),
        PO: ("pleural thickening",),
        FX: ("displaced rib fracture",),
        SD: ("support device",),
    },
    normal={
        CM: ("The cardiac silhouette is normal in size.", "The heart is normal in size."),
        EC: ("The mediastinal contours are within normal limits.",),
        LO: ("The lungs are clear bilaterally.",),
        FX: ("There is no acute fracture of the visualized ribs.",),
    },
    infection=(
        "In the appropriate clinical setting this is consistent with pneumonia.",
        "This may represent pneumonia.",
    ),
    zones=("upper lobe", "mid lung", "lower lobe"),
    sizes=("small", "moderate", "large"),
    grades=("mild", "moderate", "severe"),
    clear=("No acute cardiopulmonary process.",),
    impression=("{list}.", "Findings of {list}."),
)

CENTRE_B = Dialect(
    positive=("{bare}.",),
    uncertain=("Possible {bare}.", "Questionable {bare}."),
    negative=("No {nouns}.",),
    phrases={
        EC: ("widened mediastinum", "mediastinal widening"),
        CM: ("{grade} cardiomegaly", "enlarged heart"),
        LO: ("{grade} {side} {zone} opacity", "hazy opacity {side} {zone}"),
        LL: ("{size} nodule {side} {zone}", "{size} {side} {zone} mass"),
        ED: ("{grade} edema", "{grade} pulmonary edema"),
        CO: ("{side} {zone} consolidation", "{grade} consolidation {side} {zone}"),
        AT: ("{side} {zone} atelectasis", "{side} {zone} discoid atelectasis"),
        PX: ("{size} {side} pneumothorax",),
        PE: ("{size} {side} effusion", "{size} {side} pleural effusion"),
        PE + "/both": ("{size} bilateral effusions",),
        PO: ("{side} pleural thickening",),
        FX: ("{side} rib fractures", "displaced {side} rib fracture"),
        SD + "/tube": ("ET tube in place",),
        SD + "/pacemaker": ("pacemaker in place {side}",),
        SD + "/wires": ("sternotomy wires",),
        SD + "/line": ("{side} central line in place",),
    },
    nouns={
        EC: ("widened mediastinum",),
        CM: ("cardiomegaly",),
        LO: ("opacity",),
        LL: ("nodule", "mass"),
        ED: ("edema",),
        CO: ("consolidation",),
        PN: ("pneumonia",),
        AT: ("atelectasis",),
        PX: ("pneumothorax",),
        PE: ("effusion",),
        PO: ("pleural thickening",),
        FX: ("fracture",),
        SD: ("devices",),
    },
    normal={
        CM: ("Heart size normal.", "Normal heart size."),
        EC: ("Mediastinum normal.",),
        LO: ("Lungs clear.",),
        FX: ("Bones intact, no fracture.",),
    },
    infection=("Consistent with pneumonia.", "Possible pneumonia."),
    zones=("apex", "midlung", "base"),
    sizes=("tiny", "medium", "large"),
    grades=("mild", "moderate", "marked"),
    clear=("Negative chest.", "No acute disease."),
    impression=("{list}.",),
)

CENTRE_C = Dialect(
    positive=("There {is_} {phrase}.", "{phrase} {is_} noted.", "{phrase} {is_} visible on this film."),
    uncertain=("{phrase} cannot be excluded.", "Appearances raise the question of {phrase}."),
    negative=("No {nouns} is visible.", "No {nouns} demonstrated."),
    phrases={
        EC: ("widening of the upper mediastinum", "a widened mediastinal shadow"),
        CM: ("{grade} cardiac enlargement", "an increased cardiothoracic ratio with {grade} cardiomegaly"),
        LO: (
            "{grade} hazy shadowing and opacity in the {side} {zone}",
            "an area of hazy opacification in the {side} {zone}",
        ),
        LL: ("a {size} rounded nodule in the {side} {zone}", "a {size} mass lesion in the {side} {zone}"),
        ED: ("{grade} pulmonary oedema", "{grade} interstitial oedema with septal lines"),
        CO: ("consolidation in the {side} {zone}", "an area of dense consolidation in the {side} {zone}"),
        AT: (
            "a band of atelectasis in the {side} {zone}",
            "plate atelectasis in the {side} {zone} with loss of volume",
        ),
        PX: ("a {size} {side}-sided pneumothorax",),
        PE: ("a {size} {side}-sided pleural effusion", "{side} basal pleural fluid"),
        PE + "/both": ("*{size} pleural effusions on both sides",),
        PO: ("{grade} pleural thickening on the {side}", "{side}-sided pleural thickening"),
        FX: ("*fractures of several {side} ribs", "a displaced {side}-sided rib fracture"),
        SD + "/tube": ("an endotracheal tube in satisfactory position",),
        SD + "/pacemaker": ("a {side}-sided permanent pacemaker in situ",),
        SD + "/wires": ("*sternal wires from previous surgery",),
        SD + "/line": ("a {side}-sided central line in situ",),
    },
    nouns={
        EC: ("mediastinal widening",),
        CM: ("cardiac enlargement",),
        LO: ("opacification",),
        LL: ("mass lesion",),
        ED: ("pulmonary oedema",),
        CO: ("consolidation",),
        PN: ("pneumonia",),
        AT: ("atelectasis",),
        PX: ("pneumothorax",),
        PE: ("pleural effusion",),
        PO: ("pleural thickening",),
        FX: ("rib fracture",),
        SD: ("support device",),
    },
    normal={
        CM: ("The heart is not enlarged.", "The cardiothoracic ratio is normal."),
        EC: ("The mediastinum is of normal width.", "Normal mediastinal contour."),
        LO: ("The lung fields are clear.",),
        FX: ("The ribs appear intact without fracture.",),
    },
    infection=("Appearances are in keeping with pneumonia.", "An underlying pneumonia cannot be excluded."),
    zones=("upper zone", "mid zone", "lower zone"),
    sizes=("small", "moderate-sized", "large"),
    grades=("slight", "moderate", "gross"),
    clear=("Normal appearances.", "No active chest disease."),
    impression=("{list}.", "Appearances of {list}."),
)

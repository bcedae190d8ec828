"""Step 3: the phrases that name a finding. Earlier rows win; rows without a finding shield the words inside them.

The phrases follow NegBio's and CheXpert's idea [related]; the words are written for this package [ours].
"""

from __future__ import annotations

import dataclasses

from fedmrg_core.data.findings import FINDINGS
from fedmrg_core.data.labeller.words import ANY_WORD, compile_table, few_words, one_of

LARGE = r"(?:enlarged|widened|wide|large|increased|dilated)"
DEVICE_PART = r"(?:wires?|leads?|catheters?|stents?|screws?|rods?|sutures?|tubes?|plates?|cerclage)"
ABSENT_ANSWER = r"(?:none|absent|nil|no\b|negative|not\b)"
OTHER_PLACE = one_of(
    """thyroid|liver|hepatic|kidneys?|renal|adrenals?|spleen|splenic|pancrea(?:s|tic)|o?esophag(?:us|eal)|breasts?
    |skin|cutaneous|soft tissues?|subcutaneous|abdom(?:en|inal)|neck|cervical|bowel|colonic|gastric|stomach|brain
    |cerebral|humer(?:us|al)|clavic(?:le|ular)|scapular?|shoulder|vertebral?|vertebral bod(?:y|ies)|spin(?:e|al)|ribs?
    |stern(?:um|al)|bones?|bony|osseous|skeletal|axilla(?:ry)?|prostate|ovar(?:y|ian)|uterine|pelvi(?:s|c)|scalp"""
)
SPACE_WORD = r"(?:mass(?:es)?|nodul\w+|lesions?|tumou?rs?|metasta\w+|densit\w+|opacit\w+|neoplasms?|carcinomas?)"

NOT_FINDINGS: tuple[str, ...] = (
    r"(?<!pleural\sand\s)(?<!pleural\sor\s)(?<!pleural/)pericardial (?:effusions?|fluid|thickening)",
    r"joint effusions?|effusions? (?:of|in|within) (?:the )?(?:left |right )?(?:knee|joint|pericardi\w+"
    r"|shoulder|hip)",
    r"(?:lytic|blastic|sclerotic|destructive)(?: (?:bone|bony|osseous|rib|vertebral))? "
    r"(?:lesions?|mass(?:es)?|nodul\w+|metasta\w+|densit\w+|opacit\w+)",
    rf"{OTHER_PLACE}(?: (?:lytic|sclerotic|blastic|bone|bony|osseous|body|gland|wall|calcified"
    rf"|benign))* {SPACE_WORD}",
    rf"{SPACE_WORD} (?:in|of|within|involving|overlying|at|projecting over) (?:the )?(?:left |right |upper |lower )*"
    rf"{OTHER_PLACE}",
    r"(?:bone|bony|soft tissue|breast|fat) densit\w+|(?:bone|mineral|fluid|metallic|calcific|calcified) densit\w+",
    r"(?:sinus|mastoid|maxillary|lens|corneal) opaci\w+",
    # A heading, not a statement about devices, unless it is answered.
    r"(?:(?:support|medical|indwelling|monitoring|other|and|tubes?|lines?|catheters?|drains?|devices?|hardware"
    r"|apparatus)(?: ?[,/&] ?| )){0,8}(?:tubes?|lines?|catheters?|drains?|devices?|hardware|apparatus)"
    rf"(?= ?:(?!\s{{0,9}}(?:[-*\u2022]\s{{0,3}})?{ABSENT_ANSWER}))",
    r"(?:granulomatous|tubercul\w+|fungal|histoplasm\w+|mycobacterial|old|prior|previous|remote|chronic) "
    r"(?:granulomatous )?infections?|(?:urinary tract|wound|line|sinus|skin|bladder|joint|ear|throat) infections?",
    # An infection of another day, unless the report says what became of it.
    rf"(?:sequelae? of|(?:consistent|compatible|in keeping) with|due to|secondary to|related to|from|representing"
    rf"|reflecting) (?:an? |the )?(?:old|prior|previous|remote|healed|past|treated) "
    rf"(?:(?!exam|stud|film|radiogr|ct|scan|chest|x-?ray){ANY_WORD} ){{0,3}}(?:pneumonias?|infections?)",
    r"mass effect|body mass|(?:vertebral(?: body)?|tracheal|bronchial|disc|disk|end-?plate|wedge|compression"
    r"|[tl]\d{1,2}"
    r"|spinal|bony) collapse|collapsed? (?:of )?(?:the )?(?:trachea|vertebra[el]?|end-?plate|dis[ck]|[tl]\d{1,2})"
    rf"(?: {ANY_WORD})?|collapse of (?:the )?{few_words(2)}(?:vertebra\w*|[tl]\d{{1,2}}|end-?plates?|trachea"
    rf"|bod(?:y|ies))",
    r"(?:soft tissue|body wall|chest wall|subcutaneous|peripheral|leg|ankle|pedal|laryngeal|skin|marrow|atrial"
    r"|cerebral|brain) o?edema",
    r"(?:fat|pleural|fissure|skin|paratracheal|paraspinal|kerley(?: [abc])?|septal|nipple|hair)(?:-| )lines?",
    r"leads? (?:to|up|one|us|me)|leading|(?:drains?|ports?) (?:into|to|of)|in the lead"
    r"|fracture (?:consolidation|healing)",
    # A broken device is a device; the device itself is named by its own word.
    rf"fractur(?:es?|ed)(?: (?:of|in|involving))?(?: (?!with|and|or|near|no){ANY_WORD}){{0,5}}(?= {DEVICE_PART})",
    r"(?<=wire\s)fractur(?:es?|ed)|(?<=wires\s)fractur(?:es?|ed)|(?<=lead\s)fractur(?:es?|ed)"
    r"|(?<=rod\s)fractur(?:es?|ed)"
    r"|(?<=screw\s)fractur(?:es?|ed)|(?<=catheter\s)fractur(?:es?|ed)",
)

MENTIONS: tuple[tuple[tuple[str, ...], str], ...] = (
    *(((), pattern) for pattern in NOT_FINDINGS),
    (
        ("pneumothorax", "pleural effusion"),
        r"(?:hydro|ha?emo)(?:-? ?| and | or |/)pneumo-?thora\w+|(?:pneumo)-?(?:/| and | or )(?:hydro"
        r"|ha?emo)-?thora\w+",
    ),
    # Nouns that share their head with a neighbour.
    (
        ("pleural effusion",),
        r"(?:pericardial(?: (?:and|or) |/))?pleural(?=(?: (?:and|or) |/)pericardial (?:effusion|fluid))",
    ),
    (
        ("pleural other",),
        r"(?<=effusion\sor\s)thickening|(?<=effusions\sor\s)thickening|(?<=effusion\sand\s)thickening"
        r"|(?<=effusion\sand/or\s)thickening|(?<=effusions\sand/or\s)thickening|(?<=effusion/)thickening"
        r"|(?<=effusion\sversus\s)thickening|(?<=effusion\svs\s)thickening|(?<=effusion\svs\.\s)thickening",
    ),
    # Lung lesion before lung opacity: a "nodular opacity" is a lesion.
    (
        ("lung lesion",),
        r"(?:nodular|rounded|round|mass-?like|spiculated|cavit(?:ary|ating)) "
        r"(?:opacit\w+|opacificat\w+|densit\w+|lesions?|focus|foci|shadows?|mass(?:es)?|nodules?)",
    ),
    (
        ("lung lesion",),
        r"(?:micro)?nodul(?:es?|arity)|mass(?:es)?|lesions?|tumou?rs?|neoplasms?|neoplastic|malignan(?:cy|t)"
        r"|(?:adeno)?carcinomas?|metasta(?:sis|ses|tic)|lung cancers?",
    ),
    (
        ("lung opacity",),
        r"opacit(?:y|ies)|opacificat\w+|opacified|infiltrat(?:es?|ions?|ive)|ggos?|ground[- ]glass (?:changes?"
        r"|shadowing)"
        r"|air-?\s?space (?:disease|process|changes?|shadowing|abnormalit\w+)|haziness|shadowing"
        r"|(?:increased|abnormal|asymmetric|vague|confluent) densit(?:y|ies)"
        rf"(?= (?:in|at|within|over|projecting over|throughout) {few_words(4)}(?:lungs?|lobes?|bases?"
        r"|ap(?:ex|ices)|zones?|lingula|hemithorax))"
        r"|(?:(?:hazy|patchy|focal|ill-defined|streaky|parenchymal|pulmonary|lung|basilar|linear"
        r"|airspace) )+densit(?:y|ies)"
        r"|(?:increased|prominent|coarsened|coarse|thickened|accentuated) (?:[\w-]{1,30} ){0,2}"
        r"(?:interstitial|reticular|bronchovascular|lung|pulmonary) (?:markings?|pattern|prominence)"
        r"|(?:interstitial|reticular|bronchovascular|lung|pulmonary) markings (?:are|is|appear) (?:[\w-]{1,30} )?"
        r"(?:increased|prominent|coarsened|coarse)",
    ),
    (("edema",), r"o?edema(?:tous)?"),
    (("consolidation",), r"consolidat(?:ions?|ive|ed)|consols?"),
    (
        ("pneumonia",),
        r"(?:broncho)?pneumonias?|pneumonic|pnas?|infections?"
        r"|infectious (?:process|etiology|aetiology|disease|infiltrates?)|infectious",
    ),
    (("atelectasis",), r"atelecta(?:sis|ses|tic)|atel|collapsed?"),
    (("pneumothorax",), r"pneumo-? ?thora(?:x|xes|ces)|ptxs?"),
    (
        ("pleural effusion",),
        r"effusions?|effs?|pleural fluid|(?:hydro|ha?emo)-? ?thorax|(?:inter|intra)?(?:fissural|lobar) fluid"
        r"|fluid (?:(?:is|was|present|seen|noted|tracking|layering|extending|loculated|trapped|again) ){0,3}"
        rf"(?:in|within|along|into) (?:the )?{few_words(2)}(?:fissures?|pleural (?:spaces?|cavit(?:y|ies)))",
    ),
    (
        ("pleural other",),
        r"(?:bi)?(?:pleural|apical|pleuro-?parenchymal)(?: (?:or|and)?/?(?: )?parenchymal)? (?:[\w-]{1,30} )?"
        r"(?:thickening|plaques?|scar(?:ring|s)?|calcifications?|fibrosis|caps?|capping|disease)"
        r"|fibrothorax|(?:thickening|scarring|calcification) of the (?:[\w-]{1,30} )?pleura|thickened pleura",
    ),
    (("fracture",), r"fractur(?:es?|ed)|broken ribs?|fxs?"),
    (
        ("support devices",),
        r"(?:cardiac |dual chamber |single lead )?pace-?makers?|pacer|ppms?|pacing (?:leads?|wires?|device)"
        r"|(?:a|bi-?v ?)?icds?|crt-?[dp]|defibrillators?|ett|ngt|ogt|ng|og|cv[cl]s?|iabp|balloon pump|ecmo"
        r"|lvads?|swan(?:-ganz)?"
        r"|(?:endotracheal|nasogastric|orogastric|enteric|feeding|tracheostomy|chest|ng|et|drainage|pleural|gastric"
        r"|dobb?hoff|peg) tubes?|trach(?:eostomy)?|dobb?hoff|introducers?|loop recorder|ivc filter"
        r"|tubes?|catheters?|ports?|port-?a-?caths?|(?:medi|power|chemo)-?ports?"
        r"|(?:central|central venous|venous|picc|jugular|subclavian|ij|arterial|midline|dialysis"
        r"|hemodialysis) lines?|piccs?"
        r"|lines and tubes|support (?:lines|devices?|apparatus|hardware)|(?:indwelling|implanted|medical) devices?"
        r"|(?:sternal|sternotomy|cerclage|median sternotomy) (?:wires?|sutures?)|(?:valve"
        r"|valvular) (?:replacement|prosthes[ie]s)"
        r"|prosthe(?:tic|sis)|stents?|hardware|cannulas?|drains?|electrodes?|leads?|wires?|devices?|arthroplast\w+"
        r"|spinal rods?|stimulator",
    ),
    (
        ("cardiomegaly",),
        r"cardiomegaly|(?:cardiac|heart|cardiac silhouette) enlargement|increase in (?:heart|cardiac) size"
        r"|enlargement of (?:the )?(?:heart|cardiac \w+)"
        rf"|{LARGE} (?:heart|cardio-?thoracic|cardiac)(?! (?:failure|disease|leads?))"
        r"(?: (?:silhouette|contour|shadow|size|outline|ratio))*",
    ),
    (
        ("enlarged cardiomediastinum",),
        r"(?:cardio)?mediastin(?:al|um) (?:widening|enlargement)"
        r"|(?:widening|enlargement) of (?:the )?(?:[\w-]{1,30} )?(?:cardio)?mediastin\w+"
        rf"|{LARGE} (?:(?:superior|upper|anterior) )?(?:cardio-?)?mediastin(?:um|al)"
        r"(?: (?:silhouette|contour|shadow|outline)s?)?",
    ),
)

_PATTERN = compile_table(pattern for _, pattern in MENTIONS)
_FINDINGS = [tuple(FINDINGS.index(name) for name in names) for names, _ in MENTIONS]


@dataclasses.dataclass
class Phrase:
    """A phrase of a sentence that names findings, or none where it shields its words; the cues set its state."""

    start: int
    end: int
    findings: tuple[int, ...]
    state: int
    cue: tuple[str, int, int] | None = None  # kind, start and end of the cue that set the state


def find_phrases(sentence: str, state: int) -> list[Phrase]:
    """Every phrase of a sentence in plain letters, in reading order, each in `state` so far."""
    return [
        Phrase(match.start(), match.end(), _FINDINGS[match.lastindex - 1], state)
        for match in _PATTERN.finditer(sentence)
    ]

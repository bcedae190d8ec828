"""Whether a text is a report that the labeller can read: not a placeholder, not without a word, in English [ours].

The labeller reads "no finding" from any text that names none. What is no report is therefore left out before training,
and reports of another language are told.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# What programs and people write where there is nothing, as `_plain` spells it: "N/A" and "n.a." are "na".
MISSING = frozenset(
    "nan|nat|null|none|nil|na|n a|missing|undefined|unknown|unspecified|empty|blank|pending|no report|no text|no data|"
    "no value|not available|not applicable|not given|not provided|not recorded|not reported".split("|")
)
# Of these a site's name may be one, such as "NA" or "None", but not what only programs and tables write.
MISSING_NAMES = frozenset({"nan", "nat", "null", "n/a", "n.a.", "#n/a", "#na", "<na>"})

MASK = re.compile(r"(?<![^\W\d_])x+(?![^\W\d_])", re.IGNORECASE)  # XXXX stands for a word that was taken out
LATIN_WORD = re.compile(r"[a-z\u00c0-\u024f]+")
OTHER_LETTERS = re.compile(r"[^\W\d_a-z\u00c0-\u024f]")  # one by one: some scripts put no blanks between words
NO_WORD = re.compile(r"[^\w\s]|_")

SMALLEST_SHARE = 0.2  # of English among the words that can tell: real reports have half and more
SHOWN_IDS = 3  # of a warning

# Words of English reports that German, French, Spanish, Italian, Portuguese and Dutch do not share.
ENGLISH = frozenset(
    """
    the and are were have been there this that these with without which not or but from by to be than since also
    may can could would should seen noted identified demonstrated visualized visualised shown evidence within
    limits top upper lower mid middle left right both either side sided near along above below behind between
    through small large mild mildly moderately severe slight slightly minimal minimally new old chronic unchanged
    unremarkable clear clearly intact grossly again appear appears appearing appearance likely unlikely possibly
    probably suspected suggest suggests suggesting suggestive consistent due secondary related represent represents
    representing worsened worsening improved improving improvement resolved interval changes comparison compared
    prior previous study exam examination view views finding findings impression report history patient pain cough
    follow heart cardiac size sized silhouette lung lungs chest pulmonary airspace air space spaces disease process
    effusion effusions opacity opacities density densities consolidated pneumothoraces pneumonias ptx atelectatic
    atelectases collapse collapsed scarring scars nodule nodules mass masses lesion lesions calcified granuloma
    granulomas granulomatous fracture fractured bone bones bony rib ribs spine spinal thoracic shoulder clavicle
    osseous skeletal abnormality abnormalities abnormal degenerative soft tissue tissues tip tips tube tubes line
    lines catheter pacemaker lead leads wire wires clip clips device devices surgical postsurgical vascular
    vasculature vascularity vessels congestion congestive failure overload fluid enlarged enlargement borderline
    prominence increased decreased elevated elevation blunted blunting thickening hyperinflated hyperexpanded
    hyperinflation expanded inflated inflation volumes low high basilar bibasilar bilaterally apices perihilar hila
    mediastinal contour contours cardiomediastinal costophrenic angle angles diaphragm hemidiaphragm hemidiaphragms
    aortic tortuous tortuosity cardiomegaly emphysematous copd chf markings edematous infection infectious patchy
    streaky hazy diffusely scattered subsegmental nad wnl cxr rll rml rul lll lul dz midline active overt definite
    parenchymal apparent demonstrable limited correlate clinically clinical recommend followup kyphosis
    dextroscoliosis levoscoliosis status post removed placed position positioned projects overlying exclude
    excluded further evaluation nil cardiopulmonary present deformity deformities vertebral body loss wedge age
    atherosclerotic calcification calcifications displaced areas area adenopathy lymphadenopathy midthoracic artifact
    widened widening disc remain remains shadow progressive submitted three two one otherwise consolidations breast
    arthritic significant suspicious concerning worrisome please we see sign signs opacification
    alveolar bowel pelvis marked obscured
    """.split()
)
# Words of English reports that other languages have, too: they tell nothing.
SHARED = frozenset(
    """
    a i in an no normal normally thorax pneumothorax pneumonia infiltrate infiltrates infiltration edema oedema
    atelectasis consolidation pleural pleura trachea hernia hiatal hilum hilus lateral frontal anterior posterior
    portable ap pa cm mm ct mri icu ng et picc x ray xray radiograph radiographs central sternotomy cardio fibrosis
    scoliosis osteophytes stent sarcoidosis tuberculosis bronchitis asthma abdomen acute aorta apex apical as at
    basal base bases bilateral change compatible diffuse emphysema film focal for fractures has hilar image images
    interstitial is linear lobar lobe lobes mediastinum moderate multifocal negative of on osteopenia plaques port
    positive possible probable prominent scar stable unilateral visible lingula
    """.split()
)


def has_word(text: str) -> bool:
    """Whether a text holds a word: a letter of any script, apart from the de-identification token XXXX.

    "___", "-", digits alone and invisible characters are none.
    """
    return any(letter.isalpha() for letter in MASK.sub("", text))


def is_missing(text: str) -> bool:
    """Whether a text is empty or stands for a value that is not there, such as "nan", "None", "N/A" or "NULL"."""
    plain = _plain(text)
    return not plain or plain in MISSING


def is_missing_name(text: str) -> bool:
    """Whether a name is empty or stands for a missing one; "NA" and "None" may be a site's name and do not."""
    return clean_name(text).lower() in MISSING_NAMES | {""}


def is_report(text: str) -> bool:
    """Whether a text is a report and not a placeholder or a blank for one."""
    return has_word(text) and not is_missing(text)


def why_no_report(text: str) -> str:
    """What is wrong with the text of a findings section, in a few words; "" if it is a report."""
    if not visible(text):
        return "empty findings section"
    if not has_word(text):
        return "no word in the findings section"
    return f"the findings section {text.strip()!r} stands for a missing report" if is_missing(text) else ""


def report_text(text: str) -> str:
    """The text of a section, or "" if it is no report."""
    return text if is_report(text) else ""


def visible(text: str) -> str:
    """A text without invisible characters (zero-width, byte order and direction marks) and white space around it."""
    return "".join(letter for letter in text if unicodedata.category(letter) != "Cf").strip()


def clean_name(text: str) -> str:
    """The one spelling of a name (id, site, column) however it was typed: NFC, visible, single blanks inside it."""
    return " ".join(visible(unicodedata.normalize("NFC", text)).split())


def knows_language(text: str) -> bool:
    """Whether a report reads as English, the one language of the labeller.

    Of its words that can tell, at least a fifth are common in English reports. A text without such words is not judged.
    """
    lowered = MASK.sub(" ", unicodedata.normalize("NFC", text).lower())
    words = [word for word in LATIN_WORD.findall(lowered) if word not in SHARED]
    foreign = len(OTHER_LETTERS.findall(lowered))
    known = sum(word in ENGLISH for word in words)
    return known >= SMALLEST_SHARE * (len(words) + foreign)


def language_warning(reports: Iterable[tuple[str, str]], source: str) -> str:
    """A sentence about reports that do not read as English; "" if all do.

    Args:
        reports: study id and findings section of each study; taken one by one.
        source: the file or data set they come from.
    """
    count, unread = 0, []
    for study_id, text in reports:
        count += 1
        if not knows_language(text):
            unread.append(study_id)
    if not unread:
        return ""
    shown = ", ".join(unread[:SHOWN_IDS]) + (", ..." if len(unread) > SHOWN_IDS else "")
    return (
        f"{source}: {len(unread)} of {count} reports have hardly a word that the labeller knows ({shown}); "
        "it reads English alone and takes their findings wrongly, so translate them or leave them out."
    )


def _plain(text: str) -> str:
    """Letters and digits in lower case, single blanks between words."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(NO_WORD.sub("", folded).split())

"""Words with one wrong, missing, added or exchanged letter, where no other word is meant."""

from __future__ import annotations

import functools
import re

LONG_WORD = re.compile(r"(?<![^\W\d_])[^\W\d_]{5,24}(?![^\W\d_])")

# Long words that decide a state, in the forms that reports use.
WORDS = frozenset(
    """
    absent adenocarcinoma airspace apical atelectases atelectasis atelectatic calcification carcinoma cardiac
    cardiomediastinal cardiomegaly catheter catheters collapse collapsed consolidated consolidation consolidations
    consolidative contours defibrillator edema effusion effusions endotracheal enlarged enlargement evidence fracture
    fractured fractures haemopneumothorax haemothorax hemopneumothorax hemothorax hydropneumothorax hydrothorax
    infection infections infiltrate infiltrates infiltration lesion lesions malignancy mediastinal mediastinum
    metastases metastasis metastatic nasogastric negative neoplasm nodular nodule nodules normal oedema opacification
    opacified opacities opacity pacemaker pleural pneumonia pneumonias pneumonic pneumothoraces pneumothorax possible
    probable pulmonary resolution resolved silhouette sternotomy thickening tracheostomy unremarkable widened without
    """.split()
)

# Words of their own that are one letter away from one of those.
OTHER_WORDS = frozenset(
    """
    assent adsorption cardia collapses enema evidenced evidences facture factures fictions formal hemithorax
    haemithorax inflection inflections infarction injection injections legion legions lesson lessons module modules
    modular nodulated norma normally passible plural provable resolve resolves revolved revolution dissolved
    unremarkably widener effusive opacify opacifies fractural infiltrated infiltrating pneumonitis negatives
    negatively possibly probably calcifications thickenings lesional consolidate consolidates enlarge enlarges
    neoplasms carcinomas collapsing contour silhouettes pleura infectious metastasise metastasize defibrillators
    adenocarcinomas mediastinals cardiacs malignant
    """.split()
)


@functools.lru_cache(maxsize=50_000)
def mended(word: str) -> str:
    """The word of `WORDS` that is one letter away from a lower-case word, or the word itself."""
    if word in WORDS or word in OTHER_WORDS:
        return word
    found = {known for known in _SHORTENED_WORDS.get(word, ()) if len(known) == len(word) + 1}
    for shorter in _shortened(word):
        found |= {known for known in _SHORTENED_WORDS.get(shorter, ()) if _one_letter_apart(word, known)}
        found |= {shorter} & WORDS
    stems = {known[:5] for known in found}  # "nodulee" is a nodule or nodules, one and the same finding
    return min(found, key=lambda known: (len(known), known)) if len(stems) == 1 else word


def _shortened(word: str) -> list[str]:
    return [word[:place] + word[place + 1 :] for place in range(len(word))]


def _one_letter_apart(word: str, known: str) -> bool:
    """Whether two words of equal length differ in one letter or in the order of two neighbours."""
    if len(word) != len(known):
        return False
    places = [place for place, pair in enumerate(zip(word, known, strict=True)) if pair[0] != pair[1]]
    if len(places) == 1:
        return places[0] > 0  # the first letter is hardly ever mistyped, and makes another word
    if len(places) != 2 or places[1] != places[0] + 1:
        return False
    first = places[0]
    return word[first : first + 2] == known[first : first + 2][::-1]


_SHORTENED_WORDS: dict[str, set[str]] = {}
for _word in WORDS:
    for _shorter in _shortened(_word):
        _SHORTENED_WORDS.setdefault(_shorter, set()).add(_word)

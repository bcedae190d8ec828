"""Hold the findings labeller against the IU X-ray gold labels (human MeSH indexing, published with NegBio).

Usage: python benchmarks/labeller_gold.py FOLDER
FOLDER holds negbio_gold_labels.csv and indiana_reports.csv (Kaggle layout). Prints precision, recall and F1 by finding.
Errors were read, and every choice was made, on reports with an even number only; the odd ones
are the honest measure. NegBio's published overall F1 on this standard is 0.873 [related]; reports missing from
FOLDER are left out.
"""

from __future__ import annotations

import argparse
import csv
import pathlib
import re
import sys
import time

from fedmrg_core.data.findings import NO_FINDING, POSITIVE, UNCERTAIN
from fedmrg_core.data.labeller import Mention, find_mentions, label_report, phrase_states
from fedmrg_core.errors import InputError

GOLD_FINDINGS = {
    "Atelectasis": "atelectasis",
    "Cardiomegaly": "cardiomegaly",
    "Effusion": "pleural effusion",
    "Pneumothorax": "pneumothorax",
    "Consolidation": "consolidation",
    "Edema": "edema",
    "Pneumonia": "pneumonia",
}
COLUMNS = (*GOLD_FINDINGS, "normal")
# The indexers code what is more probable than not, either of two alternatives ("atelectasis or scarring", "versus") and
# a borderline heart. They leave out what is only possible ("may represent", "question", "suggestive of"). Chosen on the
# even half: kinds of cues, and words of a cue.
HEDGES_PRESENT = ("either", "versus", "borderline")
PROBABLE = re.compile(
    r"\b(?:probabl[ey]|border-?line|normal (?:to|or)|likely|presum\w+|favou?r\w*)\b(?<!less likely)(?<!not likely)",
    re.IGNORECASE,
)

# What MeSH indexes, so that a report is not "normal", beside the 14 findings. Chosen on the even half.
OTHER_ABNORMALITIES = re.compile(
    r"\b(?:granulom\w+|calcifi\w+|calcinosis|scolio\w+|kypho\w+|levoscoliosis|dextroscoliosis|spondyl\w+"
    r"|degenerat\w+|osteophyt\w+|spur\w*"
    r"|arthrit\w+|arthropathy|osteopeni\w+|osteoporo\w+|deformit\w+|wedg\w+|compression|sclero\w+|tortuo\w+"
    r"|tortuous|ectatic|ectasia|uncoil\w+"
    r"|unfold\w+|atherosclero\w+|aneurysm\w*|dilat\w+|hyperinflat\w+|hyperexpan\w+|hyperlucen\w+|overinflat\w+"
    r"|emphysem\w+|copd|chronic obstructive|bulla\w*|bullous"
    r"|flatten\w+|scar\w*|cicatri\w+|fibro\w+|bronchiect\w+|interstitial (?:disease|prominence)|thicken\w+"
    r"|eventration|elevat\w+"
    r"|hernia\w*|blunt\w+|clips?|surgical|sutures?|postsurgical|postoperative|staples?|mastectomy|lobectomy"
    r"|pneumonectomy|resection"
    r"|lymphadenopathy|adenopathy|hypoinflat\w+|low (?:lung )?volumes?|hypoventilat\w+|congest\w+|lucenc\w+"
    r"|cysts?|foreign"
    r"|shrapnel|bullet|sarcoid\w*|tubercul\w+|implants?|sternotomy|cabg|prominent|prominence|crowding"
    r"|anomal\w+|cervical rib|pectus"
    r"|subluxation|dislocation|shift(?:ed)?|azygos|rotated|displac\w+|densit(?:y|ies)|end-?\s?plate|curvature"
    r"|curve|nipple ring|svc|cavo-?atrial|caval"
    r"|generator|shunt|tubing|(?:lung )?volumes (?:are |is )?(?:low|decreased|diminished)|nondiagnostic"
    r"|technically limited|underpenetrat\w+|limited exam"
    r"|paratracheal|fusion|bronchitis|peribronchial|cuffing|air[- ]?trapping|pneumoperitoneum|deviat\w+|cholecystectomy"
    r"|gallstones?|redistribution|cephali[sz]\w+|empyema|cavit\w+|lipoma|goit(?:er|re)|pneumatocel\w+|stranding"
    r"|infarct\w*|histoplasm\w+|asthma|reticul\w+|hypertension|obscur\w+|retract\w+|tenting|asymmetr\w+"
    r"|deminerali[sz]\w+|hypertroph\w+|chronic|healed|nonunion)\b"
)


def report_is_normal(text: str, states: tuple[int, ...]) -> bool:
    """Whether an indexer would give the report the single heading "normal".

    That is: no finding and no other abnormality is present or hedged. It is stricter than the labeller's "no
    finding", as support devices and, for instance, a granuloma or a curved spine have headings of their own.
    """
    if any(state in (POSITIVE, UNCERTAIN) for finding, state in enumerate(states) if finding != NO_FINDING):
        return False
    return not any(state in (POSITIVE, UNCERTAIN) for state in phrase_states(text, OTHER_ABNORMALITIES))


def counts_as_present(text: str, mention: Mention) -> bool:
    """Whether an indexer would code a mention: an affirmed one, or a hedged one that is more probable than not."""
    if mention.state != UNCERTAIN or mention.cue is None:
        return mention.state == POSITIVE
    kind, start, end = mention.cue
    return kind in HEDGES_PRESENT or PROBABLE.search(text, start, end) is not None


def predict(text: str) -> dict[str, bool]:
    """Which columns of the gold standard the labeller finds in a report."""
    states, mentions = label_report(text), find_mentions(text)
    found = {
        column: any(mention.finding == name and counts_as_present(text, mention) for mention in mentions)
        for column, name in GOLD_FINDINGS.items()
    }
    return found | {"normal": report_is_normal(text, states)}


def read_gold(folder: pathlib.Path) -> dict[int, tuple[str, dict[str, bool]]]:
    """Report number to (findings and impression, gold columns)."""
    rows: list[list[dict[str, str]]] = []
    for name in ("negbio_gold_labels.csv", "indiana_reports.csv"):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing; FOLDER needs the gold labels and the reports of IU X-ray.")
        with (folder / name).open(newline="", encoding="utf-8") as handle:
            rows.append(list(csv.DictReader(handle)))
    texts = {int(row["uid"]): f"{row['findings']}\n\n{row['impression']}" for row in rows[1]}
    gold = {int(row["filename"].removeprefix("CXR")): {name: row[name] == "1" for name in COLUMNS} for row in rows[0]}
    return {number: (texts[number], labels) for number, labels in gold.items() if number in texts}


def score(
    pairs: list[tuple[dict[str, bool], dict[str, bool]]], columns: tuple[str, ...]
) -> tuple[int, int, float, float, float]:
    """Gold positives, predicted positives, precision, recall and F1, micro-averaged over `columns`."""
    hits = sum(gold[name] and found[name] for gold, found in pairs for name in columns)
    positives = sum(gold[name] for gold, _ in pairs for name in columns)
    predicted = sum(found[name] for _, found in pairs for name in columns)
    return (
        positives,
        predicted,
        hits / max(predicted, 1),
        hits / max(positives, 1),
        2 * hits / max(positives + predicted, 1),
    )


def main() -> int:
    """Print the scores on both halves and on the whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    try:
        reports = read_gold(parser.parse_args().folder)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    begin = time.perf_counter()
    pairs = {number: (labels, predict(text)) for number, (text, labels) in reports.items()}
    seconds = time.perf_counter() - begin
    halves = {
        "even half (development)": [pair for number, pair in pairs.items() if number % 2 == 0],
        "odd half (held out)": [pair for number, pair in pairs.items() if number % 2 == 1],
        "both": list(pairs.values()),
    }
    for title, part in halves.items():
        print(f"{title}: {len(part)} reports\n  {'':14}{'gold':>6}{'found':>7}{'precision':>11}{'recall':>8}{'F1':>7}")
        for name, columns in [
            *((column, (column,)) for column in COLUMNS),
            ("micro", COLUMNS),
            ("micro, 7", COLUMNS[:-1]),
        ]:
            positives, predicted, precision, recall, f1 = score(part, columns)
            print(f"  {name:14}{positives:6}{predicted:7}{precision:11.3f}{recall:8.3f}{f1:7.3f}")
    print(f"{len(pairs) / seconds:.0f} reports a second on one core, this scoring included")
    return 0


if __name__ == "__main__":
    sys.exit(main())

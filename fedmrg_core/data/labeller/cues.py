"""Step 4: the words that deny, doubt or set aside what they act on. Earlier rows win.

Kinds: `negated`, `uncertain`, `history` and `procedure` act on the phrases behind them, `negated_back` and
`uncertain_back` on those before; `negated_both` and `uncertain_both` answer a heading or a form's question.
`indication` sets all of its sentence aside. `likely` doubts what it leads to, or else what stands before it.
`uncertain_list` reaches over every comma ("the differential includes ...").
`uncertain_link` stays denied behind a denial ("no opacity suspicious for pneumonia"). `either` is "A or B", `versus`
doubts both sides too; `borderline` doubts the next phrase alone; `break` ends what acts so far, `with` ends a denial or
a history; `pseudo` looks like a cue and is none.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from fedmrg_core.data.labeller.mentions import Phrase
from fedmrg_core.data.labeller.words import compile_table, few_words, one_of

SEEN = one_of(
    """seen|identified|noted|present|visuali[sz]ed|evident|demonstrated|appreciated|detected|found|apparent|observed
    |shown|visible|recogni[sz]ed|recurred|developed|suggested|suspected|discerned|discernible|confirmed|imaged"""
)
CHANGE = one_of(
    """change[ds]?|changing|increas(?:e[ds]?|ing)|decreas(?:e[ds]?|ing)|improv(?:e[ds]?|ement|ing)|worse|worsen(?:ed|ing)
    |progress(?:ed|ion|ing)?|regress(?:ed|ion)|alteration|differen(?:ce|t)|enlarged|altered|reduction|reduced
    |growth|grown
    |evolution|deteriorat(?:ed|ion)|(?:larger|smaller|bigger|better|greater) than|shrink(?:age|ing)?|shrunk"""
)
DEGREE = one_of(
    """significant|definite|interval|appreciable|substantial|convincing|new|further|much|major|significantly
    |substantially|appreciably|markedly|real|acute|gross|evidence of|other|obvious|large|marked|great|relevant
    |measurable
    |visible|radiographic|radiological|perceptible|meaningful|important|notable|particular|overall|recent|dramatic
    |discernible|detectable|clear|short-term|any|sign of|signs of|yet|longer|apparent|noticeable|really
    |demonstrable"""
)
PARTLY = one_of(
    """partial(?:ly)?|incomplete(?:ly)?|near(?:ly)?(?:[- ]complete(?:ly)?)?|largely|mostly|mainly|almost(?: completely)?
    |substantially|only|not|nor|hasn't|haven't|isn't|aren't|slow(?:ly)?|some|continued|continuing|ongoing
    |gradual(?:ly)?|no|without|lack of
    |failure of|delayed|yet to|failed to|fail(?:s|ure) to|less than complete|subtotal|subtotally|part(?:ly)?"""
)
FULLY = one_of("yet|fully|completely|entirely|totally|interval|significant|complete|full|evidence of|convincing|be")
RESOLUTION = r"(?:resol(?:ution|ved?|ves|ving)|clear(?:ing|ed|ance)|disappear(?:ed|ance))"
CANNOT = one_of(
    """can ?not|could not|can't|cant|couldn't|is not|are not|isn't|not|difficult to|hard to|unable to|impossible to
    |does not|do not|doesn't|don't"""
)
EXCLUDE = r"(?:exclude|rule[- ]?out)"
EXCLUDED = r"(?:excluded|ruled[- ]?out)"
ASSESSED = one_of(
    """assess(?:ed|able)?|evaluat(?:ed|e|able)|judged?|determined?|determinable|commented on|interpret(?:ed|able)
    |diagnosed"""
)
SETTING = r"in the (?:appropriate|proper|correct|right) (?:clinical )?(?:setting|context)"
STUDY = r"(?:stud(?:y|ies)|exam\w*|scans?|radiographs?|films?|cts?|mri|x-?rays?)"
CORRELATE = (
    r"correlat\w+ (?:clinically )?(?:for|as to|regarding"
    r"|with (?:any )?(?:clinical )?(?:(?:signs?|symptoms?|evidence|findings)(?: and | or |/)?){1,2} of)"
)
LIKELY = one_of(
    """possible|possibility|suspected|questioned|questionable|likely|unlikely|probable|considered|suggested|a concern
    |uncertain|unclear|doubtful|equivocal|debatable|conceivable|undetermined|presumed|in question|in doubt
    |favou?red|a consideration|in the differential"""
)

CUES: tuple[tuple[str, str], ...] = (
    # "No relevant change in the effusion", "has not resolved", "partial resolution of": the finding is there.
    (
        "pseudo",
        rf"(?:no|without|not|nor|nil) (?:{DEGREE} ){{0,4}}{CHANGE}"
        r"(?: (?:in|of|to|from|compared|since|size|appearance|or|and|nor|change|improvement|worsening))*",
    ),
    ("pseudo", rf"(?:(?:has|have|had|is|are|was|were|been) ){{0,2}}{PARTLY} (?:{FULLY} ){{0,3}}{RESOLUTION}(?: of)?"),
    (
        "pseudo",
        rf"(?:(?:has|have|had|is|are|was|were|been) ){{0,2}}{RESOLUTION} (?:(?:only|very) )?(?:slightly|partial(?:ly)?"
        r"|somewhat|in part|minimally|incompletely|partly|a little|for the most part|to some (?:degree|extent))",
    ),
    (
        "pseudo",
        r"\? ?(?:yes|present|positive)|resolving|clearing(?! of)|not only|no longer requires|no doubt"
        r"|without (?:a )?doubt|doubtless",
    ),
    # "Follow-up to document resolution of the pneumonia": it is there.
    (
        "pseudo",
        r"(?:to|until) (?:(?:document|ensure|confirm|assure|demonstrate|verify|show|establish|assess) )?(?:(?:for"
        rf"|complete|full|interval) ){{0,2}}{RESOLUTION}(?: of)?",
    ),
    ("pseudo", r"to (?:suggest|indicate)|not (?:just|merely)|nothing but|no (?:less|fewer|more) than|not unlike"),
    # A form's answer.
    (
        "negated_back",
        r"[:=?] ?(?:[-*\u2022] ?)?(?:none|absent|no|nil|negative|neg|n|-ve)(?= ?(?:$|[,.;)]))"
        r"|[-\u2013\u2014] ?no(?= ?$)"
        r"|(?:[-\u2013\u2014]|\() ?(?:none|absent|nil|negative|neg|not (?:seen|present))\b|\(-\)",
    ),
    ("negated_both", r"[:=] ?(?:[-*\u2022] ?)?(?:none|absent|no|nil|negative|neg|not|without)\b"),
    (
        "uncertain_both",
        r"[:=] ?(?:[-*\u2022] ?)?(?:possible|possibly|probable|probably|questionable|suspected"
        r"|likely|unlikely"
        r"|equivocal|uncertain|indeterminate|cannot|unclear|not assess\w+|not evaluat\w+)\b",
    ),
    # Doubt about a cause.
    (
        "uncertain",
        r"(?:(?:is|are|was|were|seems?|appears?) )?(?:(?:most|more|less|very|also|all) ){0,2}"
        r"(?:possibly|probably|likely|unlikely|perhaps|presumably|questionably) (?:due|secondary|related"
        r"|attributable) to"
        # The blank behind the comma belongs to it: "in the right setting, this is pneumonia" is one statement.
        rf"|{SETTING}, ?",
    ),
    ("uncertain_back", rf"(?<!,\s){SETTING}"),
    # Doubt about exclusion.
    (
        "uncertain_back",
        rf"{CANNOT} (?:be )?{few_words(3)}{EXCLUDED}"
        rf"|(?:is|are|remains?|would be) (?:difficult|hard|not possible|impossible) to {EXCLUDE}"
        rf"|(?:should|must|needs? to|has to|have to|would (?:have|need) to|is to|are to|ought to|to) be"
        rf" {few_words(2)}(?:{EXCLUDED}|considered)",
    ),
    ("uncertain", rf"{CANNOT} {few_words(3)}{EXCLUDE}|not {few_words(1)}excluding"),
    (
        "uncertain",
        rf"{CANNOT} (?:be )?{few_words(1)}{ASSESSED} for|{CANNOT} (?:assess|evaluate|judge|determine"
        rf"|comment on)",
    ),
    (
        "uncertain",
        r"(?:possible|doubtful|unclear|unlikely|uncertain|questionable|likely|probable|conceivable"
        r"|certain|sure)"
        r" (?:that|whether|if) (?:there (?:is|are|may be))?|if any(?= \w)",
    ),
    ("uncertain", rf"(?:in order )?to (?:better |further )?{EXCLUDE}|{EXCLUDE}|r/o"),
    # Not to be seen, and not to be judged.
    (
        "uncertain_back",
        rf"(?:{CANNOT}|(?:is|are|was|were) not) (?:be )?{few_words(2)}{ASSESSED}|not {ASSESSED}",
    ),
    ("uncertain_back", rf"(?:is|are|was|were)? ?not (?:well|fully|completely|adequately|optimally) {SEEN}"),
    (
        "negated_back",
        r"(?:is|are|was|were|has been|have been|been|isn't|aren't)? ?(?:no longer|not) "
        rf"(?:(?:definitely|clearly|currently|be|been|readily|any longer) )*{SEEN}|(?:isn't|aren't|wasn't"
        rf"|weren't) {SEEN}",
    ),
    (
        "negated_back",
        r"(?:has|have|had|is|are|now)(?: (?:now|since|completely|been|interval|entirely|fully|subsequently|all))* "
        rf"(?:resolved|cleared|absent|disappeared|{EXCLUDED}|removed|withdrawn|discontinued|evacuated|gone|negative)"
        r"|(?:was|were) (?:removed|withdrawn|discontinued|evacuated|excluded|ruled[- ]?out)"
        r"|resolved|has gone|(?:nil|none|not) (?:seen|identified|noted|present|evident|found|visuali[sz]ed)"
        r"|absent(?= ?(?:$|[,.)]))|removal(?! of)|removed(?! from)"
        r"|(?:has|have|was|were)(?: (?:now|since|been|all)){0,2} pulled(?! (?:back|out|up))",
    ),
    (
        "uncertain_back",
        r"(?:suspected|questioned|considered)(?= ?(?:$|,|clinically))|favou?red(?= over)"
        r"|(?:is |are )?not out of the question"
        r"|if (?:any|present|at all|there)"
        r"|\?(?= ?$)|\(\?\)",
    ),
    (
        "likely",
        r"(?:is|are|was|were|remains?|seems?|appears?) (?:(?:thought|felt|also|most|more|less|very|still|all) ){0,3}"
        r"(?:un)?likely(?! (?:to|that|whether|if)\b)|(?:less|more) likely(?! (?:to|that)\b)",
    ),
    (
        "uncertain",
        r"(?:(?:is|are|was|were|seems?|appears?) )?(?:(?:thought|felt|considered|less|more|most|very|also) ){0,2}"
        r"(?:un)?likely to (?:be(?! (?:present|there|due|related|acute|old|chronic|new|large|small))|represent|reflect"
        r"|indicate)",
    ),
    (
        "uncertain_back",
        r"(?:is|are|was|were|would be|remains?|being|also|seems?|appears?) (?:(?:also|thought|felt|to be|less|more"
        r"|most|very|still"
        rf"|a|the|un|considered|not|entirely|certainly) )*{LIKELY}(?! (?:that|whether|if))"
        r"|(?:less|more) likely|(?:may|might|could) (?:also )?be (?:present|considered|possible|suspected)"
        r"|(?:is|are) not (?:certain|definite|sure|clear)",
    ),
    (
        "negated",
        r"(?:no|nil|nothing|without|w/o|w/out|negative for|neg\.? for|-ve for|absence of|absent|free of|free from"
        r"|clear of|clear (?=(?:air-? ?space|focal|infiltrat\w+))|lack of|lacking"
        r"|neither|nor|never|denies|devoid of|zero|rather than|instead of|(?:\w{1,30}ly )?resolution of"
        r"|resolved|clearing of"
        rf"|clearance of|disappearance of|removal of|inconsistent with|incompatible with|excludes|excluding"
        rf"|{EXCLUDED}|rules out|exclusion of|against)\b"
        r"|non[- ]?(?=pneumonic|infectious|o?edematous|consolidat|malignant|neoplastic|enlarged)|neg(?= )",
    ),
    (
        "negated",
        r"(?:not|fails? to|unable to|isn't|aren't|doesn't|don't) (?:(?:definitely|clearly|currently|to|any|be) )*"
        rf"(?:demonstrate|show|see|identify|reveal|have|represent|contain|suggest|indicate|(?:compatible"
        rf"|consistent|in keeping|associated) with|due to|{SEEN})\w*"
        r"|not|isn't|aren't",
    ),
    ("indication", r"\A(?:clinical )?(?:indications?|reason for (?:exam\w*|study|test)|history)(?= ?:)"),
    ("procedure", r"status[- ]post|s/p|post(?:-|\s)?(?:op|operative)? (?=removal|placement|cabg|sternotomy|surgery)"),
    (
        "history",
        r"(?:history|hx|h/o|evidence of prior|evidence of previous) of(?: (?:prior|previous|remote))?|h/o|hx"
        r"|treated for"
        r"|treatment (?:for|of)|follow-?up (?:for|of)|therapy for|known history of|clinical history|indication"
        r"|reason for exam\w*"
        # "On the prior CT, there was an effusion" tells of another day.
        rf"|\Aon (?:the |an? )?(?:previous|prior|old|outside|earlier|last) {few_words(4)}{STUDY}"
        rf"(?: \([^)]{{0,40}}\))?,? (?:the |an? )?{few_words(4)}(?:was|were|had|showed|demonstrated)",
    ),
    (
        "uncertain_link",
        r"(?:may|might|could|would|can) (?:(?:also|well|possibly|potentially|all|simply|partially|partly|still"
        r"|reasonably"
        r"|likely|be) )*(?:represent|reflect|be|indicate|suggest|relate|due|related|secondary|correspond|mimic"
        r"|obscure|mask"
        r"|have)\w*|(?:suspicious|concerning|worrisome) (?:for|of)|suggest(?:s|ed|ing|ive|ion)?|suspicion"
        r"|suspected|suspects?"
        r"|concern|concerns|favou?rs?(?:ed|ing)?|(?:thought|felt|believed) to|hint of|query|queries",
    ),
    (
        "uncertain",
        r"possib(?:le|ly|ility|ilities)|probab(?:le|ly)|(?:un)?likely|questionabl[ey]|question(?:ed|s)?|may"
        r"|might|could|perhaps"
        r"|maybe|presum(?:ed|ably|ptive)|potential(?:ly)?|equivocal|apparent|evaluat(?:e|ion) for"
        rf"|assess(?:ment)? for|uncertain|unclear|{CORRELATE}|vague suggestion|doubtful|doubt|doubts"
        r"|conceivabl[ey]|debatable"
        r"|conceivabl[ey]|consider|consideration of|raises?(?= )|\+/-|unsure|not (?:certain|sure"
        r"|definite) (?:for|of|if|whether)",
    ),
    ("uncertain", r"(?<=favored\s)over|(?<=favoured\s)over"),
    ("uncertain_list", r"differential|ddx?"),
    ("versus", r"versus|vs\.?"),
    ("uncertain", r"(?<!\w)\?+ ?(?=\w)"),
    ("borderline", r"border-?line"),
    ("either", r"and/or|or(?! (?:more|less))"),
    (
        "break",
        r"but|however|although|though|except|aside from|other than|apart from|besides|yet|nevertheless|whereas"
        r"|while|which"
        r"|because|otherwise|there (?:is|are|has|have|was|were)|again (?:seen|noted)|demonstrat(?:es?|ing)|shows?"
        r"|secondary to|due to|as well as a|now(?= (?:with|has|have|an?|there|shows?|demonstrates?|new"
        r"|presents?|presenting))"
        rf"|(?:after|following|since) (?={few_words(4)}(?:placement|insertion|removal|exchange|(?:re)?positioning)\b)"
        r"|(?:in whom|who) (?:now )?(?:has|have|had)|presents? with|presenting with",
    ),
    ("with", r"(?:with|w/(?!o\b|out\b))(?! (?:no|respect))"),
    ("break", rf"(?:is|are|was|were|has been|have been|be) {SEEN}(?=,? and\b)"),
)

UNCERTAIN_AHEAD = ("uncertain", "uncertain_both", "uncertain_list")
_PATTERN = compile_table(pattern for _, pattern in CUES)
_KINDS = [kind for kind, _ in CUES]
FORWARD = frozenset(
    {"negated", "versus", "indication", "negated_both", *UNCERTAIN_AHEAD, "uncertain_link", "history", "procedure"}
)


# "or early right lower lobe pneumonia": five words at most, none of them a verb or preposition.
ATTRIBUTES = re.compile(
    r"\s*(?:(?!(?:is|are|was|were|has|have|had|be|in|on|at|of|over|under|by|near|and|or|no|not|the|there|with|but|which"
    r"|however|although|for|from|to|as)\b)[\w-]{1,30}\s+){0,5}"
)


@dataclasses.dataclass(frozen=True)
class Cue:
    """A cue at its place in a sentence."""

    start: int
    end: int
    kind: str


def find_cues(sentence: str, phrases: Sequence[Phrase]) -> list[Cue]:
    """Every cue of a sentence in plain letters outside its phrases, in reading order."""
    cues, position, start = [], 0, 0
    while match := _PATTERN.search(sentence, start):
        start = max(match.end(), match.start() + 1)
        while position < len(phrases) and phrases[position].end <= match.start():
            position += 1
        following = phrases[position] if position < len(phrases) else None
        if following is not None and match.start() >= following.start:
            continue
        if following is not None and match.end() > following.start:
            # "No increased markings" denies the markings and not their increase.
            start = following.start
            match = _PATTERN.match(sentence, match.start(), following.start) or match
        cues.append(Cue(match.start(), match.end(), _kind(sentence, match, following)))
    return cues


def _kind(sentence: str, match: re.Match[str], following: Phrase | None) -> str:
    """The kind of a cue; "is likely" acts forward where it leads to the next phrase."""
    kind = _KINDS[match.lastindex - 1]
    if kind != "likely":
        return kind
    leads = following is not None and ATTRIBUTES.fullmatch(sentence, match.end(), following.start) is not None
    return "uncertain" if leads else "uncertain_back"

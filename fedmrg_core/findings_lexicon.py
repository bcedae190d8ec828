"""The words of the findings labeller: what names a finding, negates it, makes it uncertain, and what ends a scope.
 Regular-expression fragments for lower-case text, matched as whole words, earlier entries first; a blank stands
for any white space. The phases they feed follow NegBio and CheXpert [related]; the word lists are written for
this package [ours].
"""

from __future__ import annotations

MOD = r"(?:[\w-]+ ){0,3}"
LARGE = r"(?:enlarged|widened|wide|large|increased|dilated)"

# --- 1. Phrases that name a finding, or two. Entries with () name none: they shield the words inside them.
MENTIONS: tuple[tuple[tuple[str, ...], str], ...] = (
    # Not findings, though they contain a finding's word.
    ((), r"pericardial (?:effusions?|fluid|thickening)|joint effusions?|effusion of (?:the )?(?:knee|joint)"),
    (
        (),
        r"(?:bony?|osseous|skeletal|lytic|blastic|sclerotic|rib|breast|skin|vertebral|destructive)"
        r"(?: (?:lytic|sclerotic|blastic|bone|bony|osseous))? (?:lesions?|mass(?:es)?|nodul\w+|metasta\w+"
        r"|densit\w+|opacit\w+)",
    ),
    (
        (),
        r"(?:bone|bony|soft tissue|breast|fat) densit\w+|(?:bone|mineral|fluid|metallic|calcific"
        r"|calcified) densit\w+",
    ),
    # A section heading.
    ((), r"(?:[\w/]+ )?(?:devices?|hardware|tubes?|lines and tubes|lines/tubes)(?=:(?! (?:none|absent)))"),
    (
        (),
        r"(?:granulomatous|tubercul\w+|fungal|histoplasm\w+|mycobacterial|old|prior|previous|remote"
        r"|chronic) (?:granulomatous )?infections?",
    ),
    (
        (),
        r"mass effect|body mass|(?:vertebral(?: body)?|tracheal|disc) collapse|(?:soft tissue"
        r"|body wall) edema|atrial edema",
    ),
    ((), r"(?:fat|pleural|fissure|skin|paratracheal|paraspinal|kerley(?: [abc])?|septal|nipple|hair)(?:-| )lines?"),
    (("pneumothorax", "pleural effusion"), r"hydro-?pneumothora\w+|hemo-?pneumothora\w+"),
    # Lung lesion before lung opacity: a "nodular opacity" is a lesion.
    (
        ("lung lesion",),
        r"(?:nodular|rounded|round|mass-?like|spiculated|cavit(?:ary|ating)) "
        r"(?:opacit\w+|opacificat\w+|densit\w+|lesions?|focus|foci|shadows?|mass(?:es)?|nodules?)",
    ),
    (
        ("lung lesion",),
        r"(?:micro)?nodul(?:es?|arity)|mass(?:es)?|lesions?|tumou?rs?|neoplasms?|neoplastic"
        r"|malignan(?:cy|t)"
        r"|(?:adeno)?carcinomas?|metasta(?:sis|ses|tic)|lung cancers?",
    ),
    (
        ("lung opacity",),
        r"opacit(?:y|ies)|opacificat\w+|opacified|infiltrat(?:es?|ions?|ive)"
        r"|air-?\s?space (?:disease|process|changes?|shadowing|abnormalit\w+)|haziness"
        r"|(?:(?:hazy|patchy|focal|ill-defined|streaky|parenchymal|pulmonary|lung|basilar"
        r"|linear|airspace) )+densit(?:y|ies)"
        r"|(?:increased|prominent|coarsened|coarse|thickened|accentuated) (?:[\w-]+ ){0,2}"
        r"(?:interstitial|reticular|bronchovascular|lung|pulmonary) (?:markings?|pattern|prominence)"
        r"|(?:interstitial|reticular|bronchovascular|lung|pulmonary) markings (?:are|is"
        r"|appear) (?:[\w-]+ )?"
        r"(?:increased|prominent|coarsened|coarse)",
    ),
    (("edema",), r"o?edema(?:tous)?"),
    (("consolidation",), r"consolidat(?:ions?|ive|ed)"),
    (
        ("pneumonia",),
        r"(?:broncho)?pneumonias?|pneumonic|infections?|infectious (?:process|etiology|disease"
        r"|infiltrates?)|infectious",
    ),
    (("atelectasis",), r"atelecta(?:sis|ses|tic)|collapsed?"),
    (("pneumothorax",), r"pneumothora(?:x|xes|ces)|ptx"),
    (("pleural effusion",), r"effusions?|pleural fluid|hydrothorax|hemothorax|haemothorax"),
    (
        ("pleural other",),
        r"(?:bi)?(?:pleural|apical|pleuro-?parenchymal)(?: (?:or|and)?/?(?: )?parenchymal)? "
        r"(?:[\w-]+ )?(?:thickening|plaques?|scar(?:ring|s)?|calcifications?|fibrosis|caps?"
        r"|capping|disease)"
        r"|fibrothorax|(?:thickening|scarring|calcification) of the (?:[\w-]+ )?pleura"
        r"|thickened pleura",
    ),
    (("fracture",), r"fractur(?:es?|ed)|broken ribs?"),
    (
        ("support devices",),
        r"(?:cardiac |dual chamber |single lead )?pace-?makers?|pacer|pacing (?:leads?"
        r"|wires?|device)|icd|aicd|defibrillators?"
        r"|(?:endotracheal|nasogastric|orogastric|enteric|feeding|tracheostomy|chest|ng|et"
        r"|drainage|pleural|gastric|dobhoff) tubes?"
        r"|tubes?|catheters?|port-?a-?caths?|mediports?|(?:chest|infusion|subclavian"
        r"|jugular) ports?"
        r"|(?:central|central venous|venous|picc|jugular|subclavian|ij|arterial"
        r"|midline) lines?|piccs?|picc"
        r"|lines and tubes|support (?:lines|devices?|apparatus|hardware)|(?:indwelling"
        r"|implanted|medical) devices?"
        r"|(?:sternal|sternotomy|cerclage|median sternotomy) (?:wires?|sutures?)|(?:valve"
        r"|valvular) (?:replacement|prosthes[ie]s)"
        r"|prosthe(?:tic|sis)|stents?|hardware|cannulas?|drains?|electrodes?|leads?|wires?"
        r"|devices?|arthroplast\w+|spinal rods?|stimulator",
    ),
    (
        ("cardiomegaly",),
        r"cardiomegaly|(?:cardiac|heart|cardiac silhouette) enlargement|increase in (?:heart"
        r"|cardiac) size"
        r"|enlargement of (?:the )?(?:heart|cardiac \w+)"
        rf"|{LARGE} (?:heart|cardio-?thoracic|cardiac)(?! (?:failure|disease"
        rf"|leads?))(?: (?:silhouette|contour|shadow|size|outline|ratio))*",
    ),
    (
        ("enlarged cardiomediastinum",),
        r"(?:cardio)?mediastin(?:al|um) (?:widening|enlargement)"
        r"|(?:widening|enlargement) of (?:the )?(?:[\w-]+ )?(?:cardio)?mediastin\w+"
        rf"|{LARGE} (?:cardio-?)?mediastin(?:um|al)(?: (?:silhouette|contour"
        rf"|shadow|outline)s?)?",
    ),
)

# --- 2. Cues, by kind; earlier entries win. `pseudo` looks like a cue and is none; `_back` acts on the phrases
# before it, the others on those after it; `uncertain_link` stays negated behind a negation ("no opacity
# suspicious for pneumonia"); `either` is "A or B"; `history` blanks; `break` ends a scope, `with` that of a
# negation. MOD allows a few words in between.
SEEN = (
    r"(?:seen|identified|noted|present|visuali[sz]ed|evident|demonstrated|appreciated|detected|found|apparent"
    r"|observed|"
    r"shown|visible|recognized|recurred|developed|suggested|suspected|discerned)"
)
CHANGE = (
    r"(?:change[ds]?|changing|increased?|decreased?|improve(?:d|ment)|worsen(?:ed|ing)|progress(?:ed|ion)"
    r"|alteration|differen(?:ce|t)|enlarged"
    r"|altered)"
)
CUES: tuple[tuple[str, str], ...] = (
    (
        "pseudo",
        rf"(?:no|without|not) (?:(?:significant|definite|interval|appreciable|substantial|convincing"
        rf"|new|further|much|major|"
        rf"significantly|substantially|appreciably|markedly|real|acute|gross|evidence of|other|obvious"
        rf"|large|marked|great) )*{CHANGE}"
        rf"(?: (?:in|of|to|from|compared|since|size|appearance))*",
    ),
    ("pseudo", r"not only|no longer requires|no doubt|to (?:suggest|indicate)|near(?:ly)?[- ]complete resolution of"),
    (
        "uncertain_back",
        rf"(?:(?:can ?not|could not|can't|is not|are not|not|difficult to|hard to"
        rf"|cannot entirely) )(?:be )?(?:{MOD})?"
        r"(?:excluded|ruled out)|(?:is|are|remains?) (?:difficult|hard|not possible"
        r"|impossible) to (?:exclude|rule out)",
    ),
    (
        "uncertain",
        rf"(?:can ?not|could not|can't|does not|do not|not|difficult to|hard to|unable to"
        rf"|impossible to) (?:{MOD})?"
        r"(?:exclude|rule out)",
    ),
    ("uncertain_back", rf"(?:is|are|was|were)? ?not (?:well|fully|completely|adequately|optimally) {SEEN}"),
    (
        "negated_back",
        rf"(?:is|are|was|were|has been|have been|been)? ?(?:no longer|not) (?:(?:definitely"
        rf"|clearly|currently|be|been|"
        rf"readily|any longer) )*{SEEN}",
    ),
    (
        "negated_back",
        r"(?:has|have|had|is|are|now)(?: (?:now|since|completely|been|interval|entirely"
        r"|subsequently))* (?:resolved|cleared|absent"
        r"|disappeared|excluded|ruled out|removed|withdrawn|discontinued)|resolved|has gone"
        r"|: ?(?:none|absent|no|negative)(?=\s*(?:$|[,.]))",
    ),
    ("uncertain_back", r"(?:suspected|questioned)(?=\s*(?:$|,))"),
    (
        "uncertain_back",
        r"(?:is|are|was|were|would be|remains?|being|also) (?:(?:also|thought|felt|less|more"
        r"|most|very|still|a|the|un|considered) )*"
        r"(?:possible|possibility|suspected|questioned|questionable|likely|unlikely|probable"
        r"|considered|suggested|a concern|uncertain"
        r"|favou?red)|less likely|more likely|(?:may|might|could) (?:also )?be (?:present"
        r"|considered|possible|suspected)",
    ),
    (
        "negated",
        r"(?:no|without|negative for|absence of|absent|free of|free from|clear of|lack of|lacking"
        r"|neither|nor|never|denies|"
        r"rather than|instead of|resolution of|resolved|clearing of|removal of|excludes|ruled out|non)\b",
    ),
    (
        "negated",
        rf"(?:not|fails? to|unable to) (?:(?:definitely|clearly|currently|to|any) )*(?:demonstrate"
        rf"|show|see|identify|reveal|have|represent|"
        rf"contain|suggest|indicate|{SEEN})\w*|not",
    ),
    (
        "history",
        r"(?:history|hx|evidence of prior|evidence of previous) of(?: (?:prior|previous|remote))?"
        r"|status post|s/p|treated for",
    ),
    (
        "uncertain_link",
        r"(?:may|might|could|would|can) (?:(?:also|well|possibly|potentially|all|simply"
        r"|partially|partly|still|reasonably|likely|be) )*"
        r"(?:represent|reflect|be|indicate|suggest|relate|due|related|secondary|correspond"
        r"|mimic|obscure|mask|have)\w*"
        r"|(?:suspicious|concerning|worrisome) (?:for|of)|suggest(?:s|ed|ing|ive|ion)?"
        r"|suspicion|suspected|suspects?|concern|concerns"
        r"|favou?rs?(?:ed|ing)?|thought to",
    ),
    (
        "uncertain",
        r"possib(?:le|ly|ility|ilities)|probab(?:le|ly)|(?:un)?likely|questionabl[ey]|question(?:ed"
        r"|s)?|may|might|could|perhaps|presum(?:ed|ably)|"
        r"potential(?:ly)?|versus|vs\.?|differential|equivocal|apparent|evaluat(?:e|ion) for"
        r"|assess(?:ment)? for|rule out|r/o|uncertain|"
        r"correlat\w+ for|vague suggestion",
    ),
    ("either", r"and/or|or(?! (?:more|less))"),
    (
        "break",
        r"but|however|although|though|except|aside from|other than|apart from|besides|yet|nevertheless"
        r"|whereas|while|which|"
        r"because|otherwise|there (?:is|are|has|have|was|were)|again (?:seen|noted)|demonstrat(?:es?|ing)|"
        r"shows?|secondary to|due to|as well as a",
    ),
    ("with", r"with(?! (?:no|respect))"),
    ("break", rf"(?:is|are|was|were|has been|have been|be) {SEEN}(?=,? and\b)"),
    (
        "break",
        r"and (?=(?:an?|the|there|mild|mildly|moderate|small|tiny|stable|large|minimal|trace|subtle"
        r"|patchy|unchanged|persistent|"
        r"increased|enlarged|left|right|bilateral|bibasilar|scattered)\b)",
    ),
)
# After a comma, these words begin a new statement and end a scope: "no large effusion, small pneumothorax".
COMMA_BREAK = (
    r", (?=(?:an?|the|there|it|this|these|heart|lungs|mild|mildly|moderate|small|tiny|stable|minimal|trace"
    r"|subtle|unchanged|persistent|"
    r"increased|enlarged|scattered|then|and (?:an?|the|there|mild|moderate|small|stable))\b)"
)

# --- 3. Anatomy that becomes a finding through its predicate: "heart size is normal", "enlarged heart", "clear lungs".
ANATOMY: tuple[tuple[str, str], ...] = (
    (
        "enlarged cardiomediastinum",
        r"cardiac[- ]mediastinal (?:silhouettes?|contours?|outlines?|shadows?)"
        r"|cardio-?\s?mediastin(?:al|um)"
        r"(?: (?:silhouettes?|contours?|outlines?|shadows?|structures?|size|width"
        r"|borders?|margins?))*",
    ),
    (
        "enlarged cardiomediastinum",
        r"mediastin(?:al|um)(?:(?: and|/|,) (?:pulmonary )?hilar)?"
        r"(?: (?:silhouettes?|contours?|outlines?|shadows?|structures?|size|width"
        r"|borders?|margins?))*",
    ),
    (
        "cardiomegaly",
        r"(?:the )?(?:heart|cardiac|cardio-?thoracic)(?! (?:failure|disease|surgery|monitor"
        r"|leads?|valve|pacemaker|enlargement|apex))"
        r"(?: (?:silhouettes?|contours?|outlines?|shadows?|size|borders?|ratio))*",
    ),
    (
        "lung opacity",
        r"(?:lungs?(?: (?:fields?|zones?|bases?|parenchyma|apices))?|pulmonary parenchyma)"
        r"(?! (?:volumes?|markings?|cancer|nodules?|mass|lesions?|disease|apex|opacit\w+"
        r"|densit\w+|base))",
    ),
)
NOT_MORE = (
    r"(?:not|nor|no longer) (?:(?:significantly|definitely|grossly|appreciably|clearly|markedly|overtly"
    r"|frankly|be|appear|abnormally) )*"
)
PREDICATES: tuple[tuple[str, str], ...] = (
    (
        "uncertain",
        r"border-?line(?: (?:normal|enlarged|in size|size|prominent|enlargement))*"
        r"|normal to (?:mildly|slightly|minimally|borderline) enlarged"
        r"|(?:may be|possibly|probably|questionabl[ey]|likely|might be|could be"
        r"|suspected to be) (?:[\w-]+ ){0,2}(?:enlarged|widened|large)",
    ),
    (
        "negative",
        r"(?:at |near |on )*(?:the )?upper limits? (?:of |for )?normal|(?:near )?top[- ]normal|high normal"
        rf"|{NOT_MORE}(?:enlarged|widened|large|dilated|increased)|normal(?:ly|-sized)?"
        rf"|within (?:[\w-]+ )?limits|unremarkable"
        r"|(?:without|no) (?:(?:significant|definite|evidence of|gross|focal) )?(?:enlargement"
        r"|widening|abnormalit\w+)"
        r"|(?:not|in)? ?(?:below|under|less than) (?:0\.5|50)\S*",
    ),
    (
        "positive",
        r"enlarged?|widened|wide|increased(?: in)?(?: size)?|dilated|(?:too )?(?:large|big)"
        r"|(?:exceeds|above|over|greater than) (?:0\.5|50)\S*",
    ),
    ("clear", r"clear(?:ed)?"),
    (
        "neutral",
        r"(?:stable|unchanged|obscured|not (?:well )?(?:seen|evaluated|assessed))(?!,? (?:and|but"
        r"|in (?:size|appearance) and) (?:within|normal|enlarged|in size))",
    ),
    (
        "break",
        r"but(?! (?:otherwise )?(?:clear|normal|stable))|however|although|with(?! (?:normal|clear) )"
        r"|which|there (?:is|are)|without|no",
    ),
)

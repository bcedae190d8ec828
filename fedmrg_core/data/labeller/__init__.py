"""The labeller: it reads the states of the 14 findings from a report, by rules, one step a module.

1. `text`: plain letters. 2. `sentences`. 3. `mentions`: the phrases that name a finding. 4. `cues`: what denies,
doubts or sets aside. 5. `statements`: how far a cue may reach. 6. `scope`: the state of each phrase. 7. `anatomy`:
"heart size is normal". 8. `reading`: all together; over the report positive > uncertain > negative > blank.

The steps follow NegBio and CheXpert [related]. Choices of our own [ours]:

- Every finding is read from its own phrases only: a positive consolidation does not make the lung opacity positive.
  Vascular congestion and heart failure are not edema, a blunted costophrenic angle is not an effusion, a granuloma is
  not a lesion. A nodule, mass or edema of another organ is none of the lung; a broken wire is a device, no fracture.
- "Likely", "possible", "unlikely", "A or B" and "A versus B" outside a denial are uncertain. So are a borderline heart,
  a finding that cannot be assessed, one that a view is advised to exclude, and "if any"; "consistent with" affirms.
  An opacity that "is likely atelectasis" is there; the atelectasis is uncertain.
- "History of", an indication and "on the prior CT there was" say nothing, "status post" nothing except of a device. A
  resolved finding and a removed device are negative, a partly resolved one is positive.
- A denied list goes on over commas to its closing "or". Without one, a comma before a size, side or course begins a
  new statement: "No effusion, small nodule".
- A long word with one wrong letter is read as the word meant, unless it is another word.
- "No finding" is positive exactly if the text has a word and nothing but support devices is positive or uncertain
  (CheXpert's rule [related]); otherwise blank.
"""

from fedmrg_core.data.labeller.reading import Mention, find_mentions, label_report, phrase_states

__all__ = ["Mention", "find_mentions", "label_report", "phrase_states"]

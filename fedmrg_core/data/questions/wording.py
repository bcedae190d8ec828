"""What is known in the synthetic world, and how it is asked and stated, in a clinical and a plain register.

Every statement ends in its answer, so that it can also be asked as a sentence to complete. `{subject}` and `{other}`
are names.
"""

from __future__ import annotations

import dataclasses

REGISTERS = ("clinical", "plain")


@dataclasses.dataclass(frozen=True)
class Relation:
    """One kind of fact.

    Attributes:
        name: first part of a fact's id.
        subject: kind of what is asked about.
        answer: kind of the answer; a verdict is yes, no or maybe.
        ask: questions by register; in both equally many.
        state: beginnings of statements by register.
    """

    name: str
    subject: str
    answer: str
    ask: dict[str, tuple[str, ...]]
    state: dict[str, tuple[str, ...]]


RELATIONS = (
    Relation(
        "first_drug",
        "condition",
        "drug",
        {
            "clinical": (
                "Which agent is first-line in {subject}?",
                "A patient is diagnosed with {subject}. What is the initial pharmacotherapy?",
                "Guidelines on {subject} recommend starting with which compound?",
                "In newly confirmed {subject}, the treatment of choice is what?",
                "What should be prescribed at presentation of {subject}?",
            ),
            "plain": (
                "Which medicine do people with {subject} get first?",
                "My doctor says that I have {subject}. What will I be put on?",
                "Against {subject}, what does one normally take to begin with?",
                "Somebody in my family has {subject}. Which pills usually come first?",
                "How do doctors begin to treat {subject}?",
            ),
        },
        {
            "clinical": ("First-line treatment of {subject} is", "In {subject}, therapy is initiated with"),
            "plain": ("People with {subject} are first given", "Against {subject}, doctors begin with"),
        },
    ),
    Relation(
        "dose",
        "drug",
        "dose",
        {
            "clinical": (
                "What is the daily dose of {subject} in adults?",
                "An adult is started on {subject}. How much is prescribed per day?",
                "The recommended maintenance of {subject} amounts to what?",
                "Which quantity of {subject} is to be administered over 24 hours?",
                "State the standard adult dosage of {subject}.",
            ),
            "plain": (
                "How much {subject} should I take each day?",
                "My prescription is for {subject}. What is the usual amount?",
                "What strength of {subject} do grown-ups get?",
                "For one day, how many milligrams of {subject} are right?",
                "I take {subject}. How much of it is normal?",
            ),
        },
        {
            "clinical": ("The daily adult dose of {subject} is", "In adults, {subject} is administered at"),
            "plain": ("Each day, people on {subject} take", "The usual amount of {subject} is"),
        },
    ),
    Relation(
        "leading_sign",
        "condition",
        "leading sign",
        {
            "clinical": (
                "What is the leading sign of {subject}?",
                "On examination, {subject} typically presents with which finding?",
                "Which manifestation is most characteristic of {subject}?",
                "A clinician suspects {subject}. Which sign should be looked for?",
                "The cardinal symptom in {subject} is which?",
            ),
            "plain": (
                "How does {subject} usually show itself?",
                "What would I notice first if I had {subject}?",
                "People who get {subject} mostly complain of what?",
                "Tell me the main symptom of {subject}.",
                "I am afraid that I have {subject}. What should I watch out for?",
            ),
        },
        {
            "clinical": ("The leading sign of {subject} is", "Typically, {subject} presents with"),
            "plain": ("What people with {subject} notice first is", "The main symptom of {subject} is"),
        },
    ),
    Relation(
        "contraindication",
        "drug",
        "condition",
        {
            "clinical": (
                "In which disorder is {subject} contraindicated?",
                "Before prescribing {subject}, which diagnosis must be excluded?",
                "The use of {subject} is prohibited in patients with what?",
                "Which comorbidity precludes treatment with {subject}?",
                "Name the absolute contraindication to {subject}.",
            ),
            "plain": (
                "Which illness rules out {subject}?",
                "With which illness is {subject} dangerous?",
                "I was told to stay away from {subject}. Which disease could be why?",
                "Which health problem means that {subject} is not for me?",
                "Having what should one never be given {subject}?",
            ),
        },
        {
            "clinical": ("A contraindication to {subject} is", "Treatment with {subject} is precluded by"),
            "plain": ("You must not take {subject} if you have", "An illness that forbids {subject} is"),
        },
    ),
    Relation(
        "pointing_sign",
        "late sign",
        "condition",
        {
            "clinical": (
                "Which disorder does {subject} point to?",
                "A patient develops {subject}. What is the most likely diagnosis?",
                "The finding of {subject} is pathognomonic of what?",
                "Which disease should be suspected in the presence of {subject}?",
                "On the ward {subject} is observed. What underlies it?",
            ),
            "plain": (
                "What illness do I have if I get {subject}?",
                "My neighbour suddenly has {subject}. Which disease could it be?",
                "What does {subject} mean?",
                "Where does {subject} come from?",
                "If someone has {subject}, what is wrong with them?",
            ),
        },
        {
            "clinical": ("The finding of {subject} points to", "In a patient with {subject}, the diagnosis is"),
            "plain": ("Somebody who gets {subject} has", "Behind {subject} there is"),
        },
    ),
    Relation(
        "benefit",
        "drug and condition",
        "verdict",
        {
            "clinical": (
                "Does {subject} improve outcomes in {other}?",
                "Is there proven benefit of {subject} for patients with {other}?",
                "Should {subject} be added to the treatment of {other}?",
                "In trials on {other}, was {subject} effective?",
                "Can {subject} be recommended when {other} is present?",
            ),
            "plain": (
                "Is {subject} given for {other}?",
                "Does it help to take {subject} when one has {other}?",
                "I have {other}. Will {subject} make me feel better?",
                "Is {subject} any good against {other}?",
                "Would a doctor hand out {subject} to somebody with {other}?",
            ),
        },
        {
            "clinical": (
                "Whether {subject} is of benefit in {other} is answered by",
                "Efficacy of {subject} in {other}:",
            ),
            "plain": ("Ask whether {subject} helps with {other} and hear", "Taking {subject} for {other}:"),
        },
    ),
)
ASKED = 2 * len(RELATIONS[0].ask["plain"])  # ways in which each fact can be asked
STATED = 2 * len(RELATIONS[0].state["plain"])

"""The synthetic medical world: invented conditions, drugs, signs and doses, and what is true of them. No medicine."""

from __future__ import annotations

import collections
import dataclasses

import numpy

from fedmrg_core.data.questions.names import NameMaker, Names
from fedmrg_core.data.questions.question import VERDICTS
from fedmrg_core.data.questions.wording import ASKED, RELATIONS, STATED
from fedmrg_core.errors import InputError
from fedmrg_core.seeds import numpy_stream

WORLD_VERSION = "1"  # raise it whenever the same settings and seed give other questions
OPTIONS = 4
SMALLEST_POOL = OPTIONS + 1  # facts, so that a test question can have options that training never had together
DOSES = tuple(f"{5 * step} mg" for step in range(1, 200))


@dataclasses.dataclass(frozen=True)
class WorldSettings:
    """Sizes of the world and of its questions.

    Attributes:
        hospitals: each is one client.
        specialities_per_hospital: no speciality has two home hospitals.
        conditions_per_speciality: each brings one fact of every relation.
        shared_conditions: of each speciality; the facts of these train the next hospital, too.
        train_choice: questions with options (or yes, no, maybe) by which a hospital trains on each of its facts.
        train_open: questions without options, likewise.
        train_statements: sentences to complete, likewise.
        validation: questions for each fact of a hospital, in other words than training's.
        test: likewise, in words that neither training nor validation has for this fact.
        test_open_share: share of a hospital's facts that are also asked without options in its test.
        foreign_share: test questions on facts that only others train on, as a share of the hospital's own facts.
    """

    hospitals: int = 5
    specialities_per_hospital: int = 2
    conditions_per_speciality: int = 8
    shared_conditions: int = 3
    train_choice: int = 4
    train_open: int = 1
    train_statements: int = 2
    validation: int = 1
    test: int = 2
    test_open_share: float = 0.25
    foreign_share: float = 0.5

    @property
    def facts(self) -> int:
        """How many facts the world has."""
        specialities = self.hospitals * self.specialities_per_hospital
        return specialities * self.conditions_per_speciality * len(RELATIONS)


SMOKE = WorldSettings(
    hospitals=3,
    conditions_per_speciality=3,
    shared_conditions=0,
    train_choice=2,
    train_statements=1,
    test=1,
)
SIZES = {"smoke": SMOKE, "standard": WorldSettings()}


@dataclasses.dataclass(frozen=True)
class Fact:
    """One thing that is true of the world.

    Attributes:
        fact_id: relation and subject.
        relation: index in `RELATIONS`.
        subject: what is asked about.
        other: the condition of a verdict; else "".
        answer: the truth.
        speciality: that of the condition or drug asked about.
        holders: the clients that train on it, its home first.
    """

    fact_id: str
    relation: int
    subject: str
    other: str
    answer: str
    speciality: str
    holders: tuple[str, ...]


# Facts of one relation with the same holders: each answers one of them, and is a wrong option of others as often.
Pool = tuple[Fact, ...]


@dataclasses.dataclass(frozen=True)
class World:
    """Names, clients and facts; facts in pools."""

    names: Names
    clients: tuple[str, ...]
    pools: tuple[Pool, ...]


def check_settings(settings: WorldSettings) -> None:
    """Hold sizes against each other.

    Raises:
        InputError: one is out of its range, or a group of facts is too small for wrong options.
    """
    for name, least in _LEAST.items():
        if getattr(settings, name) < least:
            raise InputError(f"world: {name} is {getattr(settings, name)}; expected at least {least}.")
    for name in ("test_open_share", "foreign_share"):
        if not 0 <= getattr(settings, name) <= 1:
            raise InputError(f"world: {name} is {getattr(settings, name)}; expected 0 to 1.")
    asked = settings.train_choice + settings.train_open + settings.validation + settings.test
    if asked > ASKED:
        raise InputError(
            f"world: train_choice, train_open, validation and test sum up to {asked}; "
            f"a fact can be asked in {ASKED} ways, make one of them smaller."
        )
    if settings.train_statements > STATED:
        raise InputError(f"world: train_statements is {settings.train_statements}; a fact has {STATED} statements.")
    if settings.shared_conditions > settings.conditions_per_speciality:
        raise InputError(
            f"world: shared_conditions is {settings.shared_conditions} of {settings.conditions_per_speciality}; "
            "make it smaller or conditions_per_speciality larger."
        )
    own = settings.conditions_per_speciality - settings.shared_conditions
    for name, each in (("shared", settings.shared_conditions), ("unshared", own)):
        size = each * settings.specialities_per_hospital
        if 0 < size < SMALLEST_POOL or size > len(DOSES):
            raise InputError(
                f"world: a hospital has {size} {name} conditions; expected none, or {SMALLEST_POOL} to {len(DOSES)}: "
                "change conditions_per_speciality or shared_conditions."
            )


_LEAST = {
    "hospitals": 2,
    "specialities_per_hospital": 1,
    "conditions_per_speciality": 1,
    "shared_conditions": 0,
    "train_choice": 1,
    "train_open": 0,
    "train_statements": 0,
    "validation": 1,
    "test": 1,
}


def draw_names(settings: WorldSettings, seed: int) -> tuple[Names, NameMaker]:
    """All names of a world, and the maker, which goes on with names that are none of the world's."""
    maker = NameMaker(numpy_stream(seed, "questions", "names"))
    specialities = settings.hospitals * settings.specialities_per_hospital
    each = specialities * settings.conditions_per_speciality
    names = Names(
        maker.names("speciality", specialities),
        *(maker.names(kind, each) for kind in ("condition", "drug", "sign", "sign")),
    )
    return names, maker


def draw_world(settings: WorldSettings, seed: int) -> World:
    """The facts of a world.

    Raises:
        InputError: as `check_settings`.
    """
    check_settings(settings)
    names, _ = draw_names(settings, seed)
    clients = tuple(f"hospital-{number}" for number in range(1, settings.hospitals + 1))
    members: dict[tuple[str, ...], list[int]] = collections.defaultdict(list)
    for index in range(len(names.conditions)):
        members[_holders(index, settings, clients)].append(index)
    pools: list[Pool] = []
    for holders, indices in members.items():
        rng = numpy_stream(seed, "questions", "facts", *holders)
        pools += _pools(names, indices, holders, settings, rng)
    return World(names, clients, tuple(pools))


def _holders(index: int, settings: WorldSettings, clients: tuple[str, ...]) -> tuple[str, ...]:
    """The clients that train on a condition, its home first."""
    speciality, within = divmod(index, settings.conditions_per_speciality)
    home = speciality // settings.specialities_per_hospital
    if within >= settings.shared_conditions:
        return (clients[home],)
    return clients[home], clients[(home + 1) % len(clients)]


def _pools(
    names: Names, indices: list[int], holders: tuple[str, ...], settings: WorldSettings, rng: numpy.random.Generator
) -> list[Pool]:
    """One pool a relation, in the order of `RELATIONS`; the facts of each in a random order."""
    count = len(indices)
    conditions = [names.conditions[i] for i in indices]
    # Drugs and signs were named in the order of the conditions: which belongs to which is drawn here.
    drugs, leading, late = (
        [listed[indices[i]] for i in rng.permutation(count)]
        for listed in (names.drugs, names.leading_signs, names.late_signs)
    )
    doses = [DOSES[i] for i in rng.permutation(len(DOSES))[:count]]
    forbidden, judged = (_away(conditions, shift) for shift in _two_shifts(count, rng))
    first = int(rng.integers(len(VERDICTS)))  # who comes once more than others is drawn, too
    verdicts = [VERDICTS[(first + i) % len(VERDICTS)] for i in rng.permutation(count)]
    columns = (
        (conditions, [""] * count, drugs),
        (drugs, [""] * count, doses),
        (conditions, [""] * count, leading),
        (drugs, [""] * count, forbidden),
        (late, [""] * count, conditions),
        (drugs, judged, verdicts),
    )
    specialities = [names.specialities[i // settings.conditions_per_speciality] for i in indices]
    pools = []
    for number, (relation, (subjects, others, answers)) in enumerate(zip(RELATIONS, columns, strict=True)):
        facts = [
            Fact(f"{relation.name}:{subject}", number, subject, other, answer, speciality, holders)
            for subject, other, answer, speciality in zip(subjects, others, answers, specialities, strict=True)
        ]
        pools.append(tuple(facts[i] for i in rng.permutation(count)))
    return pools


def _two_shifts(count: int, rng: numpy.random.Generator) -> tuple[int, int]:
    """Two different numbers from 1 to count - 1."""
    first, second = 1 + rng.permutation(count - 1)[:2]
    return int(first), int(second)


def _away(conditions: list[str], shift: int) -> list[str]:
    """For each condition another one, each once; shifts by different numbers never name the same."""
    return [conditions[(i + shift) % len(conditions)] for i in range(len(conditions))]

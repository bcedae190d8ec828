"""Questions on the synthetic world: who trains on which fact, in which words, with which options.

Within a pool each answer is right as often as it is a wrong option three times, in every round of questions. So neither
an option nor its letter tells anything to one who does not know the fact. A test question has words, and options
together, that no training question has for its fact.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools

import numpy

from fedmrg_core.data.questions.question import LETTERS, LoadedQuestions, Question, check_questions
from fedmrg_core.data.questions.wording import REGISTERS, RELATIONS
from fedmrg_core.data.questions.world import OPTIONS, SIZES, Fact, Pool, World, WorldSettings, draw_world
from fedmrg_core.errors import InputError
from fedmrg_core.seeds import numpy_stream

Wording = tuple[str, str]  # register, template


@dataclasses.dataclass
class _Draft:
    """A question without id and letters yet; `wrong` is empty where there are no options."""

    fact: Fact
    wording: Wording
    wrong: tuple[str, ...] = ()


Drafts = dict[tuple[str, str], list[_Draft]]  # by client and split


def load_world(seed: int, size: str = "standard") -> LoadedQuestions:
    """The questions of the synthetic world in one of the sizes of `SIZES`.

    Raises:
        InputError: there is no such size.
    """
    if size not in SIZES:
        raise InputError(f"size is {size!r}; expected one of {', '.join(SIZES)}.")
    return LoadedQuestions(world_questions(SIZES[size], seed), notes=["Synthetic: every name and fact is invented."])


def world_questions(settings: WorldSettings, seed: int) -> list[Question]:
    """All questions of all clients and splits; the same for the same arguments.

    Raises:
        InputError: the settings do not go together.
    """
    world = draw_world(settings, seed)
    drafts: Drafts = collections.defaultdict(list)
    foreign: dict[Fact, list[_Draft]] = {}
    for number, pool in enumerate(world.pools):
        rng = numpy_stream(seed, "questions", "pool", number)
        foreign |= _ask_pool(pool, settings, rng, drafts)
    for client in world.clients:
        rng = numpy_stream(seed, "questions", "foreign", client)
        drafts[client, "test"] += _foreign(client, world, foreign, settings, rng)
    questions = []
    for (client, split), waiting in sorted(drafts.items()):
        questions += _finished(client, split, waiting, numpy_stream(seed, "questions", "letters", client, split))
    check_questions(questions, "world")
    return questions


def _ask_pool(pool: Pool, settings: WorldSettings, rng: numpy.random.Generator, drafts: Drafts) -> dict:
    """Add the questions of a pool to `drafts`; returns for each fact one that other hospitals may be tested with."""
    words = [_wordings(fact, settings, rng) for fact in pool]
    shown, hidden = _wrong_options(pool, settings, rng)
    also_open = set(rng.permutation(len(pool))[: round(settings.test_open_share * len(pool))].tolist())
    verdict = _is_verdict(pool[0])
    foreign = {}
    for index, (fact, (train, validation, test, statements)) in enumerate(zip(pool, words, strict=True)):
        wrong = iter(itertools.cycle(shown))
        unseen = iter(itertools.cycle(hidden))

        def choice(wording: Wording, shifts: tuple[int, ...], fact: Fact = fact, index: int = index) -> _Draft:
            options = () if verdict else tuple(pool[(index + shift) % len(pool)].answer for shift in shifts)
            return _Draft(fact, wording, options)

        for client in fact.holders:
            chosen = [choice(wording, next(wrong)) for wording in train[: settings.train_choice]]
            opened = [] if verdict else [_Draft(fact, wording) for wording in train[settings.train_choice :]]
            drafts[client, "train"] += [*chosen, *opened, *(_Draft(fact, wording) for wording in statements)]
            drafts[client, "validation"] += [choice(wording, next(wrong)) for wording in validation]
            drafts[client, "test"] += [choice(wording, next(unseen)) for wording in test]
            if index in also_open and not verdict:
                drafts[client, "test"].append(_Draft(fact, test[0]))
        foreign[fact] = [choice(wording, next(unseen)) for wording in test]
    return foreign


def _wordings(fact: Fact, settings: WorldSettings, rng: numpy.random.Generator) -> tuple[list[Wording], ...]:
    """Ways to ask a fact in training, validation and test, apart from each other, and its statements in training."""
    relation = RELATIONS[fact.relation]
    ask, state = _mixed(relation.ask, rng), _mixed(relation.state, rng)
    test, rest = ask[: settings.test], ask[settings.test :]
    validation, rest = rest[: settings.validation], rest[settings.validation :]
    return rest[: settings.train_choice + settings.train_open], validation, test, state[: settings.train_statements]


def _mixed(templates: dict[str, tuple[str, ...]], rng: numpy.random.Generator) -> list[Wording]:
    """Templates in a random order in which registers take turns."""
    first = int(rng.integers(len(REGISTERS)))
    columns = []
    for register in (*REGISTERS[first:], *REGISTERS[:first]):
        columns.append([(register, templates[register][i]) for i in rng.permutation(len(templates[register]))])
    return [wording for turn in zip(*columns, strict=True) for wording in turn]


def _wrong_options(pool: Pool, settings: WorldSettings, rng: numpy.random.Generator) -> tuple[list, list]:
    """Sets of shifts within the pool: those for training and validation, and others for tests."""
    every = list(itertools.combinations(range(1, len(pool)), OPTIONS - 1))
    every = [every[i] for i in rng.permutation(len(every))]
    wanted = 2 * settings.test + settings.test  # two holders and a foreign hospital
    hidden = min(wanted, len(every) // 2)
    return every[hidden:], every[:hidden]


def _foreign(
    client: str, world: World, foreign: dict[Fact, list[_Draft]], settings: WorldSettings, rng: numpy.random.Generator
) -> list[_Draft]:
    """Test questions of a client on facts that only others train on."""
    others = [fact for fact in foreign if client not in fact.holders]
    count = min(round(settings.foreign_share * (len(foreign) - len(others))), len(others))
    chosen = [others[i] for i in rng.permutation(len(others))[:count]]
    return [foreign[fact][int(rng.integers(settings.test))] for fact in chosen]


def _finished(client: str, split: str, drafts: list[_Draft], rng: numpy.random.Generator) -> list[Question]:
    """Questions in a random order, the letters of their answers equally often."""
    letters = _letters(len(drafts), rng)
    questions = []
    for number, place in enumerate(rng.permutation(len(drafts)), start=1):
        draft, question_id = drafts[place], f"{client}-{split}-{number:05d}"
        questions.append(_question(draft, question_id, client, split, letters, rng))
    return questions


def _letters(count: int, rng: numpy.random.Generator) -> itertools.chain:
    """Letters in blocks that hold each of them once."""
    return itertools.chain.from_iterable(rng.permutation(OPTIONS).tolist() for _ in range(count))


def _question(
    draft: _Draft, question_id: str, client: str, split: str, letters: itertools.chain, rng: numpy.random.Generator
) -> Question:
    fact, (register, template) = draft.fact, draft.wording
    answer, options, kind = fact.answer, {}, "yes-no-maybe" if _is_verdict(fact) else "open"
    if draft.wrong:
        place = next(letters)
        texts = [draft.wrong[i] for i in rng.permutation(len(draft.wrong))]
        texts.insert(place, fact.answer)
        answer, options, kind = LETTERS[place], dict(zip(LETTERS, texts, strict=False)), "choice"
    return Question(
        question_id=question_id,
        client=client,
        split=split,
        kind=kind,
        text=template.format(subject=fact.subject, other=fact.other),
        answer=answer,
        options=options,
        speciality=fact.speciality,
        language=register,
        fact=fact.fact_id,
        held_by=fact.holders,
    )


def _is_verdict(fact: Fact) -> bool:
    return RELATIONS[fact.relation].answer == "verdict"

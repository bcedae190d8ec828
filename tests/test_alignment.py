"""MRG-LLM's alignment of images with their reports: the loss, its rounds, and which round may be chosen."""

from __future__ import annotations

import math

import federation_fake
import pandas
import pytest
import torch
from federation_fake import fake_configuration, server_json
from small_model import PROFILE, small_base_models, small_model, small_studies

from fedmrg_core.errors import InputError
from fedmrg_core.federation.run import run_federation
from fedmrg_core.files.strict_yaml import validated
from fedmrg_core.runs.methods import Ownership, load_method, load_methods
from fedmrg_core.tasks.reports.client_batches import ClientBatches
from fedmrg_core.tasks.reports.local_training import train_client
from fedmrg_core.tasks.reports.methods import ReportLosses, ReportMethod

BEFORE, BESIDE = "mrg-llm-prompt-wise-aligned", "mrg-llm-prompt-wise-aligned-beside"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_base_models(tmp_path_factory.mktemp("base") / "models")


def plain_alignment(h: list[list[float]], reports: list[list[float]], texts: list[str], temperature: float) -> float:
    """Symmetric InfoNCE in plain numbers; other studies with the same words are left out."""

    def cosine(one, other):
        size = math.sqrt(sum(x * x for x in one)) * math.sqrt(sum(x * x for x in other))
        return sum(x * y for x, y in zip(one, other, strict=True)) / size

    def missed(one, others):
        total = 0.0
        for i, each in enumerate(one):
            pairs = {j: math.exp(cosine(each, other) / temperature) for j, other in enumerate(others)}
            total -= math.log(pairs[i] / sum(v for j, v in pairs.items() if j == i or texts[j] != texts[i]))
        return total / len(one)

    return (missed(h, reports) + missed(reports, h)) / 2


@pytest.mark.numerical
def test_the_loss_is_symmetric_infonce_with_the_llm_s_reading_of_the_report(folder):
    model, studies = small_model(folder, BEFORE).eval(), small_studies()
    indices = [0, 1, 2, 4, 7]  # the first and the fourth say the same
    batch = ClientBatches(model, studies, PROFILE).batch(indices)
    table = model.llm.peft.get_input_embeddings().weight.detach()
    reports = []
    for ids, mask in zip(batch.report_ids.tolist(), batch.report_mask.tolist(), strict=True):
        rows = [table[token].tolist() for token, there in zip(ids, mask, strict=True) if there]
        reports.append([sum(column) / len(rows) for column in zip(*rows, strict=True)])
    texts = [studies.texts[index] for index in indices]
    assert len(set(texts)) == 4
    expected = plain_alignment(model.features(batch.images).tolist(), reports, texts, 0.07)
    for weights in (ReportLosses(language=0, alignment=1), ReportLosses(alignment=0.5)):
        terms = model.loss_terms(batch, weights, torch.full((14,), 0.5), None)
        torch.testing.assert_close(terms["alignment"], torch.tensor(expected), atol=1e-4, rtol=1e-4)
        assert set(terms) == {"alignment"} | ({"language"} if weights.language else set())


def rounds_of(folder, name: str, count: int):
    """Updates of one client, round by round, and its model."""
    method = load_method(name)
    model, state, updates = small_model(folder, method), None, []
    shared = {key: tensor.clone() for key, tensor in model.state(Ownership.SHARED).items()}
    updates.append(shared)
    for number in range(1, count + 1):
        update = train_client(
            model, small_studies(), shared, state, {},
            client="a", round_number=number, profile=PROFILE, method=method, seed=0, progress=False,
        )  # fmt: skip
        shared, state = update.shared, update.state
        updates.append(update)
    return updates


def test_the_first_rounds_train_on_the_alignment_alone(folder):
    start, *updates = rounds_of(folder, BEFORE, 3)
    assert [set(update.metrics) for update in updates] == [
        {"train_alignment", "train_loss"},
        {"train_alignment", "train_loss"},
        {"train_language", "train_loss"},
    ]
    first, second, third = (update.shared for update in updates)
    prompts = [key for key in start if key.startswith("prompt_wise")]
    assert prompts and all(
        torch.equal(start[key], first[key]) and torch.equal(first[key], second[key]) for key in prompts
    )
    assert not any(torch.equal(second[key], third[key]) for key in prompts if "enter" not in key)
    key = "projection/0.weight"
    assert not torch.equal(start[key], first[key]) and not torch.equal(first[key], second[key])
    assert updates[1].metrics["train_alignment"] < updates[0].metrics["train_alignment"]


def test_without_rounds_it_is_a_term_beside_the_others(folder):
    _, *updates = rounds_of(folder, BESIDE, 2)
    for update in updates:
        metrics = update.metrics
        assert set(metrics) == {"train_language", "train_alignment", "train_loss"}
        assert math.isclose(
            metrics["train_loss"], metrics["train_language"] + 0.2 * metrics["train_alignment"], rel_tol=1e-5
        )


def test_weights_by_round():
    before, beside, plain = (load_method(name) for name in (BEFORE, BESIDE, "fedmrg"))
    alone = ReportLosses(language=0, alignment=1)
    assert [before.losses_in(number) for number in (1, 2, 3)] == [alone, alone, ReportLosses()]
    assert before.losses_in() == ReportLosses() and before.first_choice == 3
    assert beside.losses_in(1) == beside.losses_in() == beside.losses and beside.first_choice == 1
    assert plain.losses_in(1) is plain.losses and plain.first_choice == 1


def test_rows_without_alignment_are_stored_as_before():
    for name, row in load_methods().items():
        stored = row.model_dump(mode="json")
        assert ("alignment" in stored["losses"]) == (name in (BEFORE, BESIDE))
        assert ("alignment_rounds" in stored) == (name == BEFORE)
        assert validated(ReportMethod, stored, "stored") == row


ALIGNED = {"losses": {"alignment": 1.0}, "alignment_rounds": 2}


@pytest.mark.parametrize(
    ("changes", "clue"),
    [
        ({"losses": {}}, "alignment_rounds need losses.alignment"),
        ({"losses": {"alignment": -1.0}}, r"losses\.alignment: .*greater than or equal to 0"),
        ({"alignment_rounds": -1}, r"alignment_rounds: .*greater than or equal to 0"),
        ({"losses": {"alignment": 1.0, "language": 0.0}}, "before or beside the reports, and losses.language is 0"),
        (
            {"modules": {**dict.fromkeys(("encoder", "projection"), "frozen"), "generic_adapter": "shared"}},
            "needs an encoder or a projection that is trained",
        ),
        ({"model": "transformer", "modules": {"encoder": "shared", "decoder": "shared"}}, "needs model: llm"),
        (
            {"adapter_kind": "adalora", "modules": {**load_method("fed-lora").modules}},
            "alignment_rounds train no adapter: adapter_kind adalora",
        ),
        (
            {"client": {"alternating": True}, "modules": {**load_method("fedper").modules}},
            "alignment_rounds train no adapter: .* client.alternating",
        ),
    ],
)
def test_an_alignment_that_does_not_fit_is_told_in_one_sentence(changes, clue):
    row = {"name": "mine", "description": "", "modules": {"encoder": "shared", "projection": "shared"}}
    with pytest.raises(InputError, match=f"^row: .*{clue}") as told:
        validated(ReportMethod, {**row, **ALIGNED, **changes}, "row")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("section", "change", "clue"),
    [
        ("federation", {"rounds": 2}, "alignment_rounds: 2 leaves no round for the reports; expected less than 2"),
        ("training", {"batch_size": 1}, "and training.batch_size is 1"),
    ],
)
def test_a_profile_that_leaves_it_no_room_is_refused_before_training(folder, section, change, clue):
    part = getattr(PROFILE, section).model_copy(update=change)
    profile = PROFILE.model_copy(update={section: part})
    with pytest.raises(InputError, match=f"method '{BEFORE}': .*{clue}"):
        load_method(BEFORE).check(profile)
    with pytest.raises(InputError, match=clue):
        small_model(folder, BEFORE, profile)


def test_no_round_of_the_alignment_is_chosen(tmp_path, monkeypatch):
    """The fake federation's loss grows from round to round: its first round would be chosen, as it is without."""

    def validate(hospital, shared, state):
        state = state or federation_fake.HospitalState({})
        return {"validation_loss": float(trained[hospital.client.name])}, state, 2

    def train(hospital, round_number, *others):
        trained[hospital.client.name] = round_number
        return plain(hospital, round_number, *others)

    plain, trained = federation_fake.FakeHospital.train, {}
    monkeypatch.setattr(federation_fake.FakeHospital, "train", train)
    monkeypatch.setattr(federation_fake.FakeHospital, "validate", validate)
    usual, settings = fake_configuration(), fake_configuration()
    aligned = validated(ReportMethod, {**settings.method.model_dump(mode="json"), **ALIGNED, "name": "aligned"}, "row")
    settings = settings.model_copy(update={"method": aligned})
    run_federation(tmp_path / "usual", usual, progress=False)
    assert server_json(tmp_path / "usual")["best"]["round_number"] == 1
    run_federation(tmp_path / "aligned", settings, stop_after_round=1, progress=False)
    assert server_json(tmp_path / "aligned")["best"] is None
    run_federation(tmp_path / "aligned", settings, progress=False)
    assert server_json(tmp_path / "aligned")["best"]["round_number"] == 3
    table = pandas.read_csv(tmp_path / "aligned" / "rounds.csv")
    assert set(table["round"]) == {1, 2, 3} and (tmp_path / "aligned" / "model").is_dir()

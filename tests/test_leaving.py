"""What leaves a hospital: the declared list against what training and validation really send, for every method."""

from __future__ import annotations

import pathlib

import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from small_model import PROFILE, small_studies

from fedmrg_core.errors import InputError
from fedmrg_core.federation.declaration import Declaration
from fedmrg_core.federation.messages import module_of, to_record
from fedmrg_core.runs.methods import Ownership, load_method, load_methods
from fedmrg_core.tasks.reports.build import build_report_generator
from fedmrg_core.tasks.reports.leaving import leaving
from fedmrg_core.tasks.reports.local_training import train_client, validate_client
from fedmrg_core.training.client_rules import initial_controls


@pytest.mark.parametrize("name", sorted(load_methods()))
def test_every_method_sends_what_it_declares_and_no_more(base_models: pathlib.Path, name: str) -> None:
    """Two rounds, as some terms come with the second; the second declares the others' prototypes, too.

    Before them those of an alignment.
    """
    method = load_method(name)
    model, studies = build_report_generator(PROFILE, method, base_models, 0), small_studies()
    declared = leaving(method, model.validated, model.feature_width)
    shared = {key: tensor.clone() for key, tensor in model.state(Ownership.SHARED).items()}
    shared |= initial_controls(model) if method.client.control_variates else {}
    state, prototypes, trained = None, {}, set()
    for number in range(1, method.alignment_rounds + 3):
        update = train_client(
            model, studies, shared, state, prototypes,
            client="a", round_number=number, profile=PROFILE, method=method, seed=0, progress=False,
        )  # fmt: skip
        state, trained = update.state, trained | set(update.metrics)
        prototypes = {} if update.prototype is None else {"a": update.prototype, "b": update.prototype + 1}
        assert {module_of(key) for key in update.shared} == set(declared.modules)
        assert (0 if update.prototype is None else len(update.prototype)) == declared.prototype
    assert trained == set(declared.training)
    measures, _ = validate_client(model, studies, shared, state, client="a", profile=PROFILE, method=method)
    assert set(measures) == set(declared.validation)


DECLARED = Declaration(("encoder",), 0, ("train_loss",), ("validation_loss",))


@pytest.mark.parametrize(
    ("content", "clue"),
    [
        ({"arrays": ArrayRecord()}, None),
        ({"metrics": MetricRecord({"train_loss": 1.0, "num-examples": 3, "local-seconds": 1.0})}, None),
        ({"config": ConfigRecord({"client": "a"})}, None),
        ({"metrics": MetricRecord({"train_loss": 1.0, "oldest_patient": 91.0})}, "metrics/oldest_patient"),
        ({"metrics": MetricRecord({"validation_loss": 1.0})}, "metrics/validation_loss"),
        ({"config": ConfigRecord({"folder": "/data"})}, "config/folder"),
        ({"prototypes": ArrayRecord()}, "prototypes"),
        ({"reports": ConfigRecord({"text": "No effusion."})}, "reports"),
    ],
)
def test_what_is_not_declared_is_not_sent(content, clue):
    def check():
        DECLARED.check(RecordDict(content), DECLARED.training)

    if clue is None:
        check()
        return
    with pytest.raises(InputError, match=f"{clue} is not declared"):
        check()


def test_tensors_of_another_module_are_not_sent():
    import torch

    content = RecordDict({"arrays": to_record({"encoder/w": torch.zeros(2), "specialised_adapter/w": torch.zeros(2)})})
    with pytest.raises(InputError, match="arrays/specialised_adapter is not declared"):
        DECLARED.check(content, DECLARED.training)


def test_the_list_can_be_printed():
    rows = leaving(load_method("fedmrg"), ("generic_adapter", "specialised_adapter"), 160).rows()
    names = " ".join(row["names"] for row in rows)
    assert "generic_adapter" in names and "prototype" in names and "validation_head_auroc" in names
    assert not any("specialised_adapter" in row["names"] for row in rows if row["what"] == "tensors of the modules")

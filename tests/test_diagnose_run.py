"""What benchmarks/diagnose_run.py measures: parts of a gradient that make up the whole."""

import importlib.util

import pytest
import torch
from small_model import PROFILE, small_model, small_studies

from fedmrg_core.tasks.reports.batch import Contrast
from fedmrg_core.tasks.reports.client_batches import ClientBatches
from fedmrg_core.training.training_steps import total_loss

pytestmark = pytest.mark.numerical


@pytest.fixture(scope="module")
def diagnose_run(repository):
    place = importlib.util.spec_from_file_location("diagnose_run", repository / "benchmarks" / "diagnose_run.py")
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


def test_the_terms_gradients_add_up_to_the_losses(diagnose_run, tmp_path):
    model = small_model(tmp_path / "models").eval()  # BatchNorm of its own: the batch is read twice
    batches, losses = ClientBatches(model, small_studies(), PROFILE), model.method.losses
    contrast = Contrast(torch.randn(4, model.llm.width), torch.randn(3, model.llm.width), own=1)
    indices = [0, 1, 2, 3]
    found = diagnose_run.gradients(model, batches, indices, contrast, losses)
    terms = model.loss_terms(batches.batch(indices), losses, torch.ones(14), contrast)
    assert found.keys() == terms.keys()
    total_loss(terms, losses).backward()
    for module in model.ownership:
        parameters = [p for key, p in model.trainable().items() if key.partition("/")[0] == module]
        whole = torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in parameters])
        torch.testing.assert_close(sum(by_module[module] for by_module in found.values()), whole, rtol=1e-3, atol=1e-4)
        assert whole.any()

"""The parts of the models trained whole, each against a second formula."""

import itertools
import math

import pytest
import torch
from small_model import small_studies
from torch.nn import functional

from fedmrg_core.data.findings import FINDINGS
from fedmrg_core.tasks.reports.baselines.findings_graph import NODES, ORGANS, FindingsGraph, general_graph
from fedmrg_core.tasks.reports.baselines.image_report_contrast import agreement, image_report_contrast, negative_weights
from fedmrg_core.tasks.reports.baselines.relational_memory import MemoryDrivenLayerNorm, RelationalMemory

pytestmark = pytest.mark.numerical

# ---- R2Gen ----


def test_gate_by_hand():
    memory = RelationalMemory(width=2, heads=1, slots=1)
    with torch.no_grad():
        memory.of_word.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, -1.0]]))
        memory.of_word.bias.zero_()
        memory.of_memory.weight.copy_(torch.tensor([[0.5, 0.0], [0.0, 0.5], [0.0, 1.0], [1.0, 0.0]]))
    old, candidate, word = (0.3, -0.2), (1.5, 0.7), (0.4, -1.0)
    got = memory.gated(*(torch.tensor(values) for values in ([[old]], [[candidate]], [word])))

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    forget = [sigmoid(0.4 + 0.5 * math.tanh(0.3)), sigmoid(-1.0 + 0.5 * math.tanh(-0.2))]
    take = [sigmoid(0.8 + math.tanh(-0.2)), sigmoid(1.0 + math.tanh(0.3))]
    expected = [f * m + t * math.tanh(c) for f, m, t, c in zip(forget, old, take, candidate, strict=True)]
    assert got.flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_memory_step_is_attention_residual_and_gate():
    memory = RelationalMemory(width=4, heads=1, slots=3)
    old, word = torch.randn(2, 3, 4), torch.randn(2, 4)
    weights, biases = memory.attention.in_proj_weight.chunk(3), memory.attention.in_proj_bias.chunk(3)
    known = torch.cat([old, word[:, None]], dim=1)
    query, key, value = (
        functional.linear(x, w, b) for x, w, b in zip((old, known, known), weights, biases, strict=True)
    )
    attended = memory.attention.out_proj((query @ key.transpose(1, 2) / 2).softmax(dim=-1) @ value)
    candidate = memory.mlp(attended + old).clamp(min=0) + attended + old
    torch.testing.assert_close(memory.step(old, word), memory.gated(old, candidate, word))


def test_memory_goes_on_where_it_stopped():
    memory = RelationalMemory(width=4, heads=2)
    words = torch.randn(2, 5, 4)
    whole = memory(words)
    torch.testing.assert_close(whole[:, 3:], memory(words[:, 3:], whole[:, 2]))


def test_memory_driven_norm_starts_plain_and_follows_the_memory():
    norm = MemoryDrivenLayerNorm(4, 6)
    hidden, norm.memory = torch.randn(2, 3, 4), torch.randn(2, 3, 6)
    torch.testing.assert_close(norm(hidden), functional.layer_norm(hidden, (4,)))
    with torch.no_grad():
        norm.gain[-1].bias.fill_(0.5)
        norm.shift[-1].bias.fill_(-2.0)
    torch.testing.assert_close(norm(hidden), 1.5 * functional.layer_norm(hidden, (4,)) - 2.0)


# ---- WCL and DCL ----


def test_contrast_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    images, reports = torch.randn(4, 5, generator=generator), torch.randn(4, 5, generator=generator)
    weights = torch.rand(4, 4, generator=generator) + 0.5
    weights = (weights + weights.T).fill_diagonal_(1.0)
    weights[0, 2] = weights[2, 0] = 0.0
    cosine = functional.cosine_similarity(images[:, None], reports[None], dim=-1).double().tolist()
    total = 0.0
    for i in range(4):
        own = math.exp(cosine[i][i] / 0.1)
        others = [j for j in range(4) if j != i]
        total -= math.log(own / (own + sum(weights[i, j].item() * math.exp(cosine[i][j] / 0.1) for j in others)))
        total -= math.log(own / (own + sum(weights[i, j].item() * math.exp(cosine[j][i] / 0.1) for j in others)))
    assert image_report_contrast(images, reports, weights, 0.1).item() == pytest.approx(total / 8, rel=1e-5)


def test_a_batch_of_one_has_no_contrast():
    assert image_report_contrast(torch.randn(1, 3), torch.randn(1, 3), torch.ones(1, 1), 0.1).item() == 0


def test_weights_of_negatives_against_a_loop():
    states = small_studies(6, seed=3).states
    states[4:] = 0  # two that say nothing
    ids = torch.arange(6)[:, None].repeat(1, 3)
    ids[3] = ids[1]
    got = negative_weights(states, ids, 2.0)
    for i, j in itertools.product(range(6), range(6)):
        pairs = [(a, b) for a, b in zip(states[i].tolist(), states[j].tolist(), strict=True) if a or b]
        alike = sum(a == b for a, b in pairs) / len(pairs) if pairs else 1.0
        expected = 1.0 if i == j else 0.0 if {i, j} == {1, 3} else 1 + alike
        assert got[i, j].item() == pytest.approx(expected), (i, j)
    assert agreement(states)[4, 5] == 1 and negative_weights(states, ids, 1.0).unique().tolist() == [0.0, 1.0]


def test_general_graph_links_organs_and_the_global_node():
    graph, place = general_graph(), {name: k for k, name in enumerate(FINDINGS)}
    assert torch.equal(graph, graph.T) and graph[-1].all() and graph.diagonal().all()
    assert graph[place["cardiomegaly"], place["enlarged cardiomediastinum"]] == 1
    assert graph[place["cardiomegaly"], place["pleural effusion"]] == 0
    within = sum(len(organ) * (len(organ) - 1) for organ in ORGANS)
    assert graph.sum() == NODES + 2 * (NODES - 1) + within


def test_each_image_has_its_own_graph():
    torch.manual_seed(0)
    graph = FindingsGraph(width=8, heads=2)
    tokens = torch.randn(2, 5, 8)
    edges = graph.edges(graph.nodes(tokens))
    assert edges.shape == (2, NODES, NODES)
    torch.testing.assert_close(edges.sum(dim=-1), torch.ones(2, NODES))
    assert not torch.allclose(edges[0], edges[1])
    with torch.no_grad():
        graph.strength.fill_(50.0)  # so strong, the general graph's edges are the only ones
    strong = graph.edges(graph.nodes(tokens))
    assert strong[:, general_graph() == 0].max() < 1e-6

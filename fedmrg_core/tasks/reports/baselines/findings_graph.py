"""DCL's graph of findings that each image adapts [related: Li et al. 2023].

A general graph, the same for every image, links findings of the same organ, and a global node to all. Each image gets
its own graph: the nodes look at the image, and their likeness changes the edges. The nodes then pass messages along
the edges, and the decoder attends to them beside the image tokens.

    n_k = e_k + CrossAttn(e_k, image tokens)
    A   = softmax_rows( (N W_q)(N W_k)^T / sqrt(D) + strength * general graph )
    N'  = N + A N W_v, then a feed-forward part

What is simpler than in DCL [ours]: the image moves edges only, it adds no nodes from the reports of similar images
(those would have to leave their hospital or be searched in it); the 14 findings are the nodes, and the general graph
is set by anatomy, not counted from a corpus; their embeddings start at random.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fedmrg_core.data.findings import FINDINGS

# Findings of the same organ; what stands in no group is linked to the global node only.
ORGANS: tuple[tuple[str, ...], ...] = (
    ("enlarged cardiomediastinum", "cardiomegaly"),
    ("lung opacity", "lung lesion", "edema", "consolidation", "pneumonia", "atelectasis"),
    ("pneumothorax", "pleural effusion", "pleural other"),
)
NODES = len(FINDINGS) + 1  # the global node is the last


def general_graph() -> Tensor:
    """Edges (15, 15), 1 or 0: within an organ, to the global node, and from each node to itself."""
    graph = torch.eye(NODES)
    graph[-1] = graph[:, -1] = 1
    for organ in ORGANS:
        members = torch.tensor([FINDINGS.index(name) for name in organ])
        graph[members[:, None], members] = 1
    return graph


class FindingsGraph(nn.Module):
    """Nodes of findings for each image, with what its graph brought together.

    Args:
        width: D, of nodes and image tokens.
        heads: of the nodes' attention to the image.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(torch.randn(NODES, width))
        self.look = nn.MultiheadAttention(width, heads, batch_first=True)
        self.strength = nn.Parameter(torch.ones(()))  # of the general graph's edges, in logits
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.register_buffer("general", general_graph(), persistent=False)

    def nodes(self, tokens: Tensor) -> Tensor:
        """Nodes (B, 15, D) that have looked at the image tokens (B, M, D)."""
        start = self.embeddings.expand(len(tokens), -1, -1)
        return start + self.look(start, tokens, tokens)[0]

    def edges(self, nodes: Tensor) -> Tensor:
        """The image's own graph (B, 15, 15), the edges into each node summing to one, of nodes (B, 15, D)."""
        nodes = self.norms[0](nodes)
        likeness = self.query(nodes) @ self.key(nodes).transpose(1, 2) / math.sqrt(nodes.shape[-1])
        return (likeness + self.strength * self.general).softmax(dim=-1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Nodes (B, 15, D) after messages, from image tokens (B, M, D)."""
        nodes = self.nodes(tokens)
        nodes = nodes + self.edges(nodes) @ self.value(self.norms[0](nodes))
        nodes = nodes + self.feed_forward(self.norms[1](nodes))
        return self.norms[2](nodes)

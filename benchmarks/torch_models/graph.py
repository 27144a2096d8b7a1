"""Graph attention (Velickovic et al., 2018) with a dropout mask a head, on sparse rows of features.

N nodes, E edges, H heads, W head width.
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

SLOPE = 0.2


def read_table(path):
    lines = Path(path).read_text(encoding="utf-8").splitlines()[1:]
    return [line.split("\t") for line in lines]


def read_graph(folder):
    """(features [2, F]: node and column; edges [2, E]: a node and its neighbour, both sorted)"""
    nodes = read_table(Path(folder) / "nodes.tsv")
    features = [(int(row[0]), int(column)) for row in nodes for column in row[3].split()]
    pairs = [(int(a), int(b)) for a, b in read_table(Path(folder) / "edges.tsv")]
    both = {*pairs, *((b, a) for a, b in pairs), *((n, n) for n in range(len(nodes)))}
    return torch.tensor(sorted(features)).T, torch.tensor(sorted(both)).T


def project_bags(values, features, weight):
    """An embedding bag a head. values [F, H], weight [C, H, W] -> [N, H, W]"""
    starts = F.pad(torch.bincount(features[0]).cumsum(0)[:-1], (1, 0))
    bags = [
        F.embedding_bag(
            features[1], weight[:, h], starts, mode="sum", per_sample_weights=values[:, h]
        )
        for h in range(weight.size(1))
    ]
    return torch.stack(bags, 1)


def project_gather(values, features, weight):
    rows = weight[features[1]] * values[..., None]  # [F, H, W]
    out = weight.new_zeros(int(features[0, -1]) + 1, *weight.shape[1:])
    return out.index_add(0, features[0], rows)


def project_sparse(values, features, weight):
    """A sparse product a head."""
    size = (int(features[0, -1]) + 1, weight.size(0))
    parts = [
        torch.sparse.mm(
            torch.sparse_coo_tensor(
                features, values[:, h], size, is_coalesced=True, check_invariants=False
            ),
            weight[:, h],
        )
        for h in range(weight.size(1))
    ]
    return torch.stack(parts, 1)


def project_dense(values, features, weight):
    x = weight.new_zeros(weight.size(1), int(features[0, -1]) + 1, weight.size(0))
    x[:, features[0], features[1]] = values.T
    return (x @ weight.transpose(0, 1)).transpose(0, 1)


PROJECTIONS = {
    "bags": project_bags,
    "gather": project_gather,
    "sparse": project_sparse,
    "dense": project_dense,
}


class GraphAttention(nn.Module):
    def __init__(self, shape, dropout, weight_dropout):
        super().__init__()
        self.dropout, self.weight_dropout = dropout, weight_dropout
        heads, width = shape[1:]
        self.weight = nn.Parameter(torch.empty(shape))
        self.left = nn.Parameter(torch.empty(heads, width))
        self.right = nn.Parameter(torch.empty(heads, width))
        self.left_bias = nn.Parameter(torch.empty(heads))
        self.right_bias = nn.Parameter(torch.empty(heads))
        self.bias = nn.Parameter(torch.empty(heads * width))

    def attend(self, z, edges):
        """z [N, H, W] -> [N, H W]"""
        node, neighbour = edges
        left = (z * self.left).sum(2) + self.left_bias
        right = (z * self.right).sum(2) + self.right_bias
        logits = F.leaky_relu(left[node] + right[neighbour], SLOPE)  # [E, H]
        index = node[:, None].expand_as(logits)
        top = torch.full_like(left, -torch.inf).scatter_reduce(0, index, logits.detach(), "amax")
        weights = (logits - top[node]).exp()
        weights = weights / torch.zeros_like(left).index_add(0, node, weights)[node]
        weights = F.dropout(weights, self.weight_dropout, self.training)
        values = F.dropout(z, self.dropout, self.training)[neighbour]
        mixed = torch.zeros_like(z).index_add(0, node, weights[..., None] * values)
        return mixed.flatten(1) + self.bias


class GraphModel(nn.Module):
    FORMS = tuple(PROJECTIONS)

    def __init__(self, recipe, weights, form):
        super().__init__()
        model = recipe["model"]
        dropouts = model["dropout"], model["mixing_dropout"]
        self.project = PROJECTIONS[form]
        self.first = GraphAttention(weights["first.weight"].shape, *dropouts)
        self.second = GraphAttention(weights["second.weight"].shape, *dropouts)
        folder = Path(recipe["base_folder"]) / recipe["task"]["folder"]
        self.features, self.edges = read_graph(folder)
        counts = torch.bincount(self.features[0])
        self.values = (1.0 / counts)[self.features[0]][:, None].repeat(1, model["heads"])

    def loss(self, batch):
        first, second = self.first, self.second
        values = F.dropout(self.values, first.dropout, self.training)
        hidden = F.elu(first.attend(self.project(values, self.features, first.weight), self.edges))
        z = F.dropout(hidden, second.dropout, self.training) @ second.weight[:, 0]
        logits = second.attend(z[:, None], self.edges)
        return F.cross_entropy(logits[batch["tokens"][0]], batch["targets"])

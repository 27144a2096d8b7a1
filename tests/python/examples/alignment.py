import headloom
from examples.example import Example, padding


def _transport(id, M, N, **options):
    shapes = [(2, 2, M, 3), (2, 2, N, 3), (2, 2, M, 4), (2, 2, N, 4)]
    function = headloom.ops.conditional_transport
    return Example(f"transport-{id}", function, "conditional_transport", shapes, options)


def _sinkhorn(id, **options):
    shapes = [(2, 1, 4, 3), (2, 1, 5, 3)]
    options = {"eps": 1.0, "max_iter": 500, "tol": 0.0, **options}
    function = headloom.ops.sinkhorn_divergence
    return Example(f"sinkhorn-{id}", function, "sinkhorn_divergence", shapes, options, twice=False)


def _discrepancy(id, **options):
    shapes = [(2, 1, 4, 3), (2, 1, 5, 3)]
    function = headloom.ops.maximum_mean_discrepancy
    return Example(f"discrepancy-{id}", function, "maximum_mean_discrepancy", shapes, options)


EXAMPLES = [
    _transport("plain", 4, 5),
    _transport("cold", 4, 5, temperature=0.1, rho=0.2),
    _transport("euclidean", 4, 3, cost="euclidean"),
    _transport("masked", 5, 6, query_mask=padding(2, 5), key_mask=padding(2, 6)),
    _sinkhorn("debiased"),
    _sinkhorn("cosine", cost="cosine", debiased=False),
    _sinkhorn("implicit", debiased=False, sharp=True, gradient="implicit"),
    _discrepancy("plain"),
    _discrepancy("masked", bandwidth=2.0, query_mask=padding(2, 4), key_mask=padding(2, 5)),
]

"""One module a mechanism; each has ``cases()``, and most have ``scaling()``: one size at many lengths."""

import importlib

import torch

MECHANISMS = [
    "dot_product",
    "symmetric",
    "symmetric_block",
    "talking_heads",
    "h_attention",
    "conditional_transport",
    "sinkhorn_divergence",
    "maximum_mean_discrepancy",
    "light_conv",
    "dynamic_conv",
    "dynamic_conv_block",
]


def load(mechanism, scaling=False):
    module = importlib.import_module(f"cases.{mechanism}")
    if not scaling:
        return module.cases()
    found = module.scaling() if hasattr(module, "scaling") else []
    for case in found:
        case.dtypes = [torch.float32]
    return found

"""Weights by headloom's names into modules that pack several of them into one."""

import torch


def pack(module, weights):
    """``weights`` with what the modules' ``PACKED`` = {name: parts} says joined along the outputs."""
    weights = dict(weights)
    for name, each in module.named_modules():
        prefix = f"{name}." if name else ""
        for packed, parts in getattr(each, "PACKED", {}).items():
            for what in ("weight", "bias"):
                names = [f"{prefix}{part}.{what}" for part in parts]
                if names[0] in weights:
                    joined = torch.cat([weights.pop(part) for part in names])
                    weights[f"{prefix}{packed}.{what}"] = joined
    return weights


def load(module, weights):
    """Refuses missing and surplus names and other shapes, as torch does."""
    module.load_state_dict(pack(module, weights))
    return module


def count_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())

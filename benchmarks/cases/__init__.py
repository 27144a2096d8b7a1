"""One module a mechanism; each has ``cases()``."""

import importlib

MECHANISMS = [
    "dot_product",
    "talking_heads",
    "h_attention",
    "conditional_transport",
    "light_conv",
    "dynamic_conv",
]


def load(mechanism):
    return importlib.import_module(f"cases.{mechanism}").cases()

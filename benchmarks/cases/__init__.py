"""One module a mechanism; each has ``cases()``."""

import importlib

MECHANISMS = [
    "dot_product",
    "symmetric",
    "symmetric_block",
    "talking_heads",
    "h_attention",
    "conditional_transport",
    "light_conv",
    "dynamic_conv",
    "dynamic_conv_block",
]


def load(mechanism):
    return importlib.import_module(f"cases.{mechanism}").cases()

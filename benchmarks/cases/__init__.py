"""One module a mechanism; each has ``cases()``."""

import importlib

MECHANISMS = ["dot_product", "light_conv", "dynamic_conv", "talking_heads"]
MECHANISMS = ["dot_product", "h_attention", "light_conv", "dynamic_conv"]


def load(mechanism):
    return importlib.import_module(f"cases.{mechanism}").cases()

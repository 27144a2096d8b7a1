"""Mechanisms as modules. Their state_dict has the names of the C++ modules."""

from headloom.nn.light_conv import DynamicConv, LightConv

__all__ = ["DynamicConv", "LightConv"]

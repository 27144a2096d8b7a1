"""Mechanisms as modules, and models made of them. Their state_dict has the names of the C++ modules."""

from headloom.nn.block import MixerChoice, TransformerBlock
from headloom.nn.dot_product import MultiheadAttention
from headloom.nn.encoder_decoder import EncoderDecoder, EncoderDecoderConfig, Memory
from headloom.nn.generate import generate, sample
from headloom.nn.h_transformer import HierarchicalAttention
from headloom.nn.light_conv import DynamicConv, LightConv
from headloom.nn.mixer import (
    MixerConfig,
    TokenMixer,
    make_mixer,
    mixer_options,
    mixers,
    register_mixer,
)
from headloom.nn.symmetric import SymmetricAttention
from headloom.nn.talking_heads import TalkingHeadsAttention
from headloom.nn.tokens import DecoderState
from headloom.nn.transformer import LanguageModel, Transformer, TransformerConfig

__all__ = [
    "DecoderState",
    "DynamicConv",
    "EncoderDecoder",
    "EncoderDecoderConfig",
    "HierarchicalAttention",
    "LanguageModel",
    "LightConv",
    "Memory",
    "MixerChoice",
    "MixerConfig",
    "MultiheadAttention",
    "SymmetricAttention",
    "TalkingHeadsAttention",
    "TokenMixer",
    "Transformer",
    "TransformerBlock",
    "TransformerConfig",
    "generate",
    "make_mixer",
    "mixer_options",
    "mixers",
    "register_mixer",
    "sample",
]

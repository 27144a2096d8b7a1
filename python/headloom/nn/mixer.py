"""What every mechanism offers to a model, and the mechanisms by name."""

import difflib
import inspect
from dataclasses import dataclass

from torch import nn

from headloom.nn.states import MemoryState


def fail(where, expected, found, advice=""):
    raise ValueError(f"{where}: expected {expected}; found {found}. {advice}".rstrip())


def nearest(name, names):
    """' Did you mean "..."?' for the closest of ``names``, or nothing."""
    close = difflib.get_close_matches(name, names, n=1)
    return f'Did you mean "{close[0]}"?' if close else ""


def projection(inputs, outputs, bias=True):
    """A linear layer, Xavier-uniform, its bias 0."""
    linear = nn.Linear(inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(linear.weight)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


class TokenMixer(nn.Module):
    """The part of a Transformer block that moves information between positions.

    B batch, T tokens, n new tokens, S memory tokens, C model width. States have ``reorder(index)`` (row i
    of the batch continues as row ``index[i]`` did), ``length`` (tokens seen) and ``bytes()``.
    """

    mechanism = "mixer"  # its name in the registry
    causal = False

    def forward(self, x, key_padding_mask=None, cu_seqlens=None):
        """x [B, T, C] -> [B, T, C]; the masks are those of the operators."""
        raise NotImplementedError

    def cross(self, x, memory, memory_padding_mask=None):
        """Queries from x [B, T, C], the rest from memory [B, S, C] -> [B, T, C]. Refused by name unless the
        mechanism has a cross form."""
        fail(
            f"mixer {self.mechanism}",
            "a mechanism with a cross form",
            "a mechanism that mixes one sequence only",
            "Use dot_product for cross attention.",
        )

    def new_cross_state(self, memory, memory_padding_mask=None):
        """What steps need of a memory: by default the memory itself."""
        return MemoryState(memory.size(1), memory_padding_mask, memory=memory)

    def cross_step(self, x, state):
        """x [B, n, C] -> [B, n, C]; leaves the state as it is."""
        return self.cross(x, state.memory, state.padding_mask)

    def new_state(self, batch):
        """A state to decode with; refused unless the mixer is causal."""
        raise NotImplementedError

    def step(self, x, state):
        """x [B, n, C], n >= 1 -> [B, n, C]; steps on the pieces of a sequence equal forward() on the
        whole."""
        raise NotImplementedError

    def check_causal(self):
        if not self.causal:
            fail(f"mixer {self.mechanism}", "a causal mixer to decode with", "a bidirectional one")

    def check_state(self, state, kind):
        if not isinstance(state, kind):
            fail(f"mixer {self.mechanism}", "a state that it made itself", type(state).__name__)


@dataclass(frozen=True)
class MixerConfig:
    """What a model tells the mixer that it builds."""

    dim: int  # C
    heads: int  # divides dim
    causal: bool = False
    dropout: float = 0.0  # on the mixing weights, in training
    layer: int = 0  # 0-based, for mechanisms that differ by depth
    layers: int = 1


_FACTORIES = {}


def register_mixer(name):
    """Registers ``factory(config, *, option=default, ...) -> TokenMixer`` under the name that recipes use.
    Its keyword arguments are the options of the mechanism.

    >>> @register_mixer("average")
    ... def make(config, *, bias=True):
    ...     return AverageMixer(config.dim, bias=bias)
    """

    def register(factory):
        if name in _FACTORIES:
            fail("mixer registry", "every name once", f'"{name}" twice')
        _FACTORIES[name] = factory
        return factory

    return register


def mixers():
    """The names of all mechanisms."""
    return sorted(_FACTORIES)


def find_mixer(name):
    if name not in _FACTORIES:
        known = ", ".join(f'"{other}"' for other in mixers())
        fail("mixer", f"a mechanism among {known}", f'"{name}"', nearest(name, mixers()))
    return _FACTORIES[name]


def mixer_options(name):
    """The options of a mechanism with their defaults."""
    parameters = inspect.signature(find_mixer(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def make_mixer(name, dim, heads, causal=False, *, dropout=0.0, layer=0, layers=1, **options):
    """The mixer of a mechanism, by the names and options that recipes use.

    Args:
        name: one of :func:`mixers`.
        dim, heads: width of the model and heads, which divide it.
        causal: no token sees a later one.
        dropout: on the mixing weights, in training.
        layer, layers: place in the model, for mechanisms that differ by depth.
        options: of the mechanism (:func:`mixer_options`); others are refused.

    >>> make_mixer("light_conv", 16, 4, causal=True, layer=1)(torch.randn(2, 10, 16)).shape
    torch.Size([2, 10, 16])
    """
    factory, known = find_mixer(name), list(mixer_options(name))
    for option in options:
        if option not in known:
            allowed = ", ".join(known) or "none"
            fail(f"mixer {name}", f"options among {allowed}", option, nearest(option, known))
    if dim <= 0 or heads <= 0 or dim % heads:
        fail(
            f"mixer {name}",
            "a width that is a multiple of the head count",
            f"width {dim}, heads {heads}",
        )
    mixer = factory(MixerConfig(dim, heads, causal, dropout, layer, layers), **options)
    mixer.mechanism = name
    return mixer

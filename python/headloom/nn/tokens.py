"""What every model asks of its configuration and of its tokens."""

import torch

from headloom.nn.mixer import fail, nearest


def check_positive(where, config, *keys):
    for key in keys:
        if getattr(config, key) <= 0:
            fail(where, f"{key} of at least 1", f"{key} = {getattr(config, key)}")


def check_probability(where, config, *keys):
    for key in keys:
        if not 0.0 <= getattr(config, key) < 1.0:
            fail(where, f"{key} in [0, 1)", f"{key} = {getattr(config, key)}")


def check_word(where, key, value, allowed):
    """``value``, when it is one of the words."""
    if value not in allowed:
        names = ", ".join(f'"{name}"' for name in allowed)
        fail(where, f"{key} to be one of {names}", f'"{value}"', nearest(str(value), allowed))
    return value


def check_choice(where, config, key, allowed):
    check_word(where, key, getattr(config, key), allowed)


def check_tokens(where, tokens, vocabulary):
    """tokens [B, T] int64 in [0, vocabulary). The ids are read on the processor only, because elsewhere that
    would wait for the device, and not while a graph is traced."""
    if tokens.dim() != 2 or tokens.dtype != torch.int64:
        fail(
            where,
            "tokens of shape [B, T] and dtype int64",
            f"shape {list(tokens.shape)}, {tokens.dtype}",
        )
    if tokens.device.type != "cpu" or torch.compiler.is_compiling() or tokens.numel() == 0:
        return
    if type(tokens) is not torch.Tensor:  # a tensor without values, as shape functions see
        return
    low, high = (int(value) for value in tokens.aminmax())
    if low < 0 or high >= vocabulary:
        fail(where, f"token ids in [0, {vocabulary})", f"token id {low if low < 0 else high}")


def check_length(where, longest, max_length, found):
    if longest > max_length:
        fail(
            where,
            f"sequences of at most max_length = {max_length} tokens",
            found,
            "Cut the sequence, or build the model with a larger max_length.",
        )


def sinusoidal_table(max_length, dim):
    """Vaswani et al. (2017), section 3.5: PE(t, 2i) = sin(t / 10000^(2i / C)), PE(t, 2i + 1) = the cosine
    of the same angle. In float64, then rounded once. -> [max_length, C]"""
    channels = torch.arange(dim)
    even = (channels - channels % 2).double()
    angles = torch.arange(max_length).double()[:, None] * 10000.0 ** (-even / dim)
    table = torch.where(channels % 2 == 0, angles.sin(), angles.cos())
    return table.to(torch.get_default_dtype())


class DecoderState:
    """The states of all blocks and the position reached."""

    def __init__(self, batch, layers, memories=()):
        self.layers = layers
        self.memories = list(memories)  # of the cross mixers
        self.batch = batch  # rows
        self.position = 0  # tokens seen

    def reorder(self, index):
        """Beam search: row i continues as row ``index[i]`` did. index [B'] int64; B' may differ from B."""
        if index.dim() != 1 or index.dtype != torch.int64:
            fail(
                "decoder state",
                "index of shape [B'] and dtype int64",
                f"shape {list(index.shape)}, {index.dtype}",
            )
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < self.batch:
            fail(
                "decoder state",
                f"rows in [0, {self.batch})",
                f"rows from {int(index.min())} to {int(index.max())}",
            )
        for part in (*self.layers, *self.memories):
            part.reorder(index)
        self.batch = index.size(0)

    def bytes(self):
        """Memory held."""
        return sum(part.bytes() for part in (*self.layers, *self.memories))

    def check(self, where, tokens, layers, max_length):
        """That ``tokens`` [B, n] may follow; before anything changes."""
        if len(self.layers) != layers:
            fail(
                where,
                f"a state of {layers} layers, as new_state() makes",
                f"{len(self.layers)} layers",
            )
        if tokens.size(0) != self.batch:
            fail(
                where,
                f"tokens of the {self.batch} rows of the state",
                f"shape {list(tokens.shape)}",
            )
        check_length(
            where,
            self.position + tokens.size(1),
            max_length,
            f"{self.position} tokens seen and {tokens.size(1)} new ones",
        )

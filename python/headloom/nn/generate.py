"""Text from language models, as ``headloom generate`` makes it."""

import math

import torch

from headloom.nn.mixer import fail

_WHERE = "sample"
_MASK = (1 << 32) - 1


def _philox(key, counter):
    """Philox4x32-10 (Salmon et al., SC 2011): four 32-bit words of a 64-bit key and counter."""
    c = [counter & _MASK, (counter >> 32) & _MASK, 0, 0]
    key0, key1 = key & _MASK, (key >> 32) & _MASK
    for _ in range(10):
        product0, product1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [
            (product1 >> 32) ^ c[1] ^ key0,
            product1 & _MASK,
            (product0 >> 32) ^ c[3] ^ key1,
            product0 & _MASK,
        ]
        key0, key1 = (key0 + 0x9E3779B9) & _MASK, (key1 + 0xBB67AE85) & _MASK
    return c


def _uniform(seed, draw, row):
    """Uniform in [0, 1) with 48 bits, a function of its arguments alone."""
    pair = (draw << 32) + row
    halves = [_philox(seed, index // 4)[index % 4] >> 8 for index in (2 * pair, 2 * pair + 1)]
    return halves[0] * 2.0**-24 + halves[1] * 2.0**-48


def _sample_row(logits, temperature, top_k, top_p, uniform):
    best = int(logits.argmax())  # the smallest id among equals
    if not math.isfinite(logits[best]):
        fail(_WHERE, "a finite largest logit", str(float(logits[best])))
    if temperature == 0.0:
        return best
    weights = ((logits - logits[best]) / temperature).exp()
    ranked = weights.sort(descending=True, stable=True).indices
    if 0 < top_k:
        ranked = ranked[:top_k]
    if top_p < 1.0:
        sums = weights[ranked].cumsum(0)
        # The first is kept always; then those before which p was not yet reached.
        ranked = ranked[: 1 + int((sums[:-1] < top_p * sums[-1]).sum())]
    tokens = ranked.sort().values
    sums = weights[tokens].cumsum(0)
    return int(tokens[min(int((sums <= uniform * sums[-1]).sum()), tokens.numel() - 1)])


def sample(logits, *, temperature=1.0, top_k=0, top_p=1.0, seed=0, draw=0):
    """One token for each row: logits [B, V] -> [B] int64.

    Args:
        temperature: 0 takes the most probable token, the smallest id among equals.
        top_k: keep the k most probable tokens; 0 keeps all.
        top_p: keep the smallest set of most probable tokens whose probability reaches p.
        seed, draw: draw number ``draw`` of row b is a function of (seed, draw, b), whatever the batch;
            the same numbers as in C++.
    """
    if not (temperature >= 0.0 and math.isfinite(temperature)):
        fail(_WHERE, "a finite temperature of at least 0", f"temperature = {temperature}")
    if top_k < 0:
        fail(_WHERE, "top_k of at least 0", f"top_k = {top_k}", "0 keeps all tokens.")
    if not 0.0 < top_p <= 1.0:
        fail(_WHERE, "top_p in (0, 1]", f"top_p = {top_p}", "1 keeps all tokens.")
    chosen = [
        _sample_row(row, temperature, top_k, top_p, _uniform(seed, draw, b))
        for b, row in enumerate(logits.detach().to("cpu", torch.float64))
    ]
    return torch.tensor(chosen, dtype=torch.int64, device=logits.device)


@torch.no_grad()
def generate(model, prompts, length, **sampling):
    """Continues prompts [B, T], T >= 1, through the incremental state -> [B, T + length].

    A model holds ``max_length`` tokens: when they are used up, the text goes on from its newest half.
    Runs in evaluation mode and restores the mode of every submodule. ``sampling`` as for :func:`sample`.
    """
    if prompts.dim() != 2 or prompts.size(1) < 1 or prompts.dtype != torch.int64:
        fail(
            "generate",
            "prompts of shape [B, T], T at least 1, and dtype int64",
            f"shape {list(prompts.shape)}, {prompts.dtype}",
            "Start from at least one token, for example a line end.",
        )
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        max_length = model.config.max_length
        state, text, unseen = model.new_state(prompts.size(0)), prompts, prompts
        for draw in range(length):
            if state.position + unseen.size(1) > max_length:
                state = model.new_state(prompts.size(0))
                unseen = text[:, -max(1, max_length // 2) :]
            logits = model.next_logits(unseen, state)
            unseen = sample(logits, **sampling, draw=draw)[:, None]
            text = torch.cat([text, unseen], 1)
        return text
    finally:
        for part, training in modes:
            part.training = training

"""Models: steps against the whole, names, registry, refusals."""

import sys
from pathlib import Path

import pytest
import torch

from headloom import nn

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
from fairseq_plain import DYNAMIC, LIGHT, PADDING, forward, make_state  # noqa: E402
from make_fairseq import SOURCE, TARGET, imported  # noqa: E402

mixers = pytest.mark.parametrize("name", nn.mixers())
PIECES = [1, 1, 5, 2, 31]  # lengths of the steps


def causal_mixer(name, **options):
    return nn.make_mixer(name, 8, 2, causal=True, **options).double().eval()


def in_steps(step, whole, state, pieces, axis=1):
    with torch.no_grad():
        return torch.cat([step(piece, state) for piece in whole.split(pieces, axis)], axis)


OPTIONS = {
    "dynamic_conv": {"renorm_padding": True, "conv_bias": True, "kernel_sizes": 5},
    "h_transformer": {"block_size": 4},
    "light_conv": {"weight_softmax": False, "kernel_sizes": [9]},
    "dot_product": {"bias": False, "logit_scale": 3.0},
    "symmetric": {"form": "low_rank", "rank": 2, "query_heads": 1},
    "talking_heads": {"dynamic": "x2l,m2l,x2w,m2w", "relative_bias": "t5", "value_heads": 4},
}
forms = pytest.mark.parametrize(
    ("name", "options"),
    [
        (name, options)
        for name in nn.mixers()
        for options in ({}, OPTIONS.get(name, {"bias": False}))
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value) or "default",
)


@forms
def test_steps_equal_the_whole(name, options):
    mixer = causal_mixer(name, **options)
    x = torch.randn(2, sum(PIECES), 8, dtype=torch.float64)
    state = mixer.new_state(2)
    torch.testing.assert_close(in_steps(mixer.step, x, state, PIECES), mixer(x))
    assert state.length == x.size(1) and state.bytes() > 0


@forms
def test_beams_go_on_as_the_rows_they_come_from(name, options):
    mixer = causal_mixer(name, **options)
    x = torch.randn(3, 12, 8, dtype=torch.float64)
    state, index = mixer.new_state(3), torch.tensor([2, 0, 0, 1])
    in_steps(mixer.step, x[:, :7], state, [3, 4])
    state.reorder(index)
    more = torch.randn(4, 2, 8, dtype=torch.float64)
    found = in_steps(mixer.step, more, state, [1, 1])
    torch.testing.assert_close(found, mixer(torch.cat([x[index, :7], more], 1))[:, 7:])


@forms
def test_packed_sequences_do_not_see_each_other(name, options):
    mixer = causal_mixer(name, **options)
    x = torch.randn(1, 14, 8, dtype=torch.float64)
    packed = mixer(x, cu_seqlens=torch.tensor([0, 5, 5, 14]))
    torch.testing.assert_close(packed, torch.cat([mixer(x[:, :5]), mixer(x[:, 5:])], 1))


@forms
def test_cross_mixing_in_steps_or_its_refusal(name, options):
    mixer = nn.make_mixer(name, 8, 2, **options).double().eval()
    x, memory = torch.randn(2, 2, 6, 8, dtype=torch.float64)
    padding = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    if type(mixer).cross is nn.TokenMixer.cross:
        with pytest.raises(
            ValueError, match=f"mixer {name}: expected a mechanism with a cross form"
        ):
            mixer.cross(x, memory)
        return
    whole = mixer.cross(x, memory, padding)
    state = mixer.new_cross_state(memory, padding)
    if name != "h_transformer":  # whose memory is as long as the queries
        found = in_steps(mixer.cross_step, x, state, [1, 5])
        torch.testing.assert_close(found, whole)
    state.reorder(torch.tensor([1, 0]))
    torch.testing.assert_close(mixer.cross_step(x.flip(0), state), whole.flip(0))
    changed = memory.clone()
    changed[1, 4:] = 5.0
    torch.testing.assert_close(mixer.cross(x, changed, padding), whole)


def test_the_ring_of_a_convolution_holds_the_newest_inputs():
    mixer = causal_mixer("light_conv", kernel_sizes=5, glu=False)
    x, state = torch.randn(2, 11, 8, dtype=torch.float64), mixer.new_state(2)
    size = state.bytes()
    in_steps(mixer.step, x, state, [1, 2, 6, 2])
    inputs = mixer.in_proj(x)
    for token in range(7, 11):
        torch.testing.assert_close(state.ring[:, token % 4], inputs[:, token])
    assert state.bytes() == size == 2 * 4 * 8 * 8


@pytest.mark.parametrize("kind", ["light", "dynamic"])
def test_translation_models_compute_what_cpp_does(kind):
    """The files that tests/train/imported_model_test.cpp loads, and what it compares with."""
    safetensors = pytest.importorskip("safetensors.torch")
    plain = {"light": LIGHT, "dynamic": DYNAMIC}[kind]
    model = nn.EncoderDecoder(nn.EncoderDecoderConfig(**imported(plain).config)).double().eval()
    model.load_state_dict(safetensors.load_file(GOLDEN / f"fairseq_{kind}.safetensors"))
    expected = forward(make_state(plain), plain, SOURCE, TARGET)
    padding = SOURCE.eq(PADDING)
    torch.testing.assert_close(model(SOURCE, TARGET, padding), expected, atol=1e-9, rtol=1e-9)
    with torch.no_grad():
        state = model.new_state(model.encode(SOURCE, padding))
        steps = torch.cat([model.step(t, state) for t in TARGET.split([1, 3, 3], 1)], 1)
        torch.testing.assert_close(steps, expected, atol=1e-9, rtol=1e-9)
        assert state.position == 7 and state.bytes() > 0
        with pytest.raises(ValueError, match="at most max_length = 20 tokens; found 7 tokens seen"):
            model.step(torch.zeros(3, 14, dtype=torch.int64), state)
        state.reorder(torch.tensor([1]))
        assert model.next_logits(TARGET[:1, :1], state).shape == (1, expected.size(2))


def language_model(**fields):
    config = nn.TransformerConfig(
        **{"vocabulary": 11, "dim": 8, "heads": 2, "ffn": 12, "layers": 2, "causal": True, **fields}
    )
    return nn.LanguageModel(config).double().eval()


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "none"])
def test_language_models_in_steps_and_packed(norm, positions):
    model = language_model(norm=norm, positions=positions, max_length=20)
    tokens = torch.randint(11, (2, 15))
    state = model.new_state(2)
    torch.testing.assert_close(in_steps(model.step, tokens, state, [4, 0, 1, 10]), model(tokens))
    packed = model(tokens[:1], cu_seqlens=torch.tensor([0, 6, 15]))
    alone = torch.cat([model(tokens[:1, :6]), model(tokens[:1, 6:])], 1)
    torch.testing.assert_close(packed, alone)


def test_generation_continues_past_the_length_of_the_model():
    model = language_model(max_length=10).train()
    prompts = torch.randint(11, (3, 4))
    text = nn.generate(model, prompts, 20, temperature=0)
    assert text.shape == (3, 24) and model.training
    with torch.no_grad():
        for end in range(4, 10):
            expected = model.eval()(text[:, :end])[:, -1].argmax(-1)
            assert torch.equal(text[:, end], expected)
    assert torch.equal(text[1:2], nn.generate(model, prompts[1:2], 20, temperature=0))
    with pytest.raises(ValueError, match="generate: expected prompts of shape"):
        nn.generate(model, prompts[:, :0], 3)


def test_sampling_filters_and_seeds():
    logits = torch.tensor([[0.0, 2.0, 1.0, 2.0]]).repeat(400, 1)

    def drawn(**options):
        return set(nn.sample(logits, seed=3, **options).tolist())

    assert drawn() == {0, 1, 2, 3}
    assert drawn(temperature=0) == {1}
    assert drawn(top_k=1) == {1}
    assert drawn(top_k=3) == {1, 2, 3}
    assert drawn(top_p=0.39) == {1}  # of probability 0.3995, as 3
    assert drawn(top_p=0.4) == {1, 3}
    again = nn.sample(logits, seed=3)
    assert torch.equal(again, nn.sample(logits, seed=3))
    assert not torch.equal(again, nn.sample(logits, seed=3, draw=1))
    share = float((again == 0).double().mean())
    assert abs(share - float(logits[0].softmax(0)[0])) < 0.05
    for options, words in (
        ({"temperature": -1.0}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
    ):
        with pytest.raises(ValueError, match=f"expected .*{words}.*found {words} = "):
            nn.sample(logits, **options)
    with pytest.raises(ValueError, match="a finite largest logit"):
        nn.sample(torch.full((1, 3), torch.nan))


def test_the_registry_takes_mechanisms_of_others():
    class Mean(nn.TokenMixer):
        def forward(self, x, key_padding_mask=None, cu_seqlens=None):
            return x.mean(1, keepdim=True).expand_as(x)

    try:

        @nn.register_mixer("mean")
        def make(config, *, window=3):
            return Mean()

        assert nn.mixer_options("mean") == {"window": 3}
        assert language_model(mixer="mean", causal=False)(torch.randint(11, (2, 5))).shape == (
            2,
            5,
            11,
        )
        with pytest.raises(ValueError, match="every name once"):
            nn.register_mixer("mean")(make)
    finally:
        from headloom.nn import mixer

        mixer._FACTORIES.pop("mean")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: nn.make_mixer("light_cnov", 8, 2), 'Did you mean "light_conv"?'),
        (lambda: nn.make_mixer("light_conv", 8, 2, gl=True), 'found gl. Did you mean "glu"?'),
        (lambda: nn.make_mixer("dot_product", 8, 3), "found width 8, heads 3"),
        (lambda: nn.make_mixer("dot_product", 8, 2, logit_scale=0.0), "a finite logit_scale"),
        (lambda: nn.make_mixer("dot_product", 8, 2).new_state(1), "a causal mixer to decode with"),
        (
            lambda: causal_mixer("dot_product").step(torch.ones(1, 1, 8), None),
            "that it made itself",
        ),
        (lambda: language_model(norm="both"), 'norm to be one of "pre", "post"; found "both"'),
        (lambda: language_model(dim=9), "heads to divide dim"),
        (lambda: language_model(ffn=0), "ffn of at least 1"),
        (lambda: language_model(dropout=1.0), "dropout in [0, 1)"),
        (lambda: language_model()(torch.tensor([[11]])), "token ids in [0, 11); found token id 11"),
        (lambda: language_model()(torch.ones(1, 1)), "dtype int64; found"),
        (lambda: language_model(max_length=4)(torch.ones(1, 5).long()), "max_length = 4 tokens"),
        (lambda: language_model(causal=False).new_state(1), "a causal model to decode with"),
        (
            lambda: language_model().step(torch.ones(2, 1).long(), language_model().new_state(1)),
            "tokens of the 1 rows of the state",
        ),
        (
            lambda: language_model().new_state(2).reorder(torch.tensor([2])),
            "rows in [0, 2); found rows from 2 to 2",
        ),
        (
            lambda: nn.EncoderDecoder(nn.EncoderDecoderConfig(5, 6, share_embeddings=True)),
            "equal vocabularies",
        ),
    ],
)
def test_refusals_say_what_was_expected(call, words):
    with pytest.raises(ValueError) as refusal:
        call()
    assert words in str(refusal.value)
    assert ": expected " in str(refusal.value) and "; found " in str(refusal.value)

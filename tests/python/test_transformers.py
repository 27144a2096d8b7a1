"""headloom in models of Hugging Face transformers: small random models of the real classes."""

import copy

import pytest
import torch

import headloom

transformers = pytest.importorskip("transformers", minversion="5")

from headloom.integrations.transformers import convert  # noqa: E402

SIZES = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 2}
ENCODER = {**SIZES, "intermediate_size": 32, "max_position_embeddings": 96}
OPERATORS = {
    "dot_product": "dot_product_attention",
    "talking_heads": "talking_heads_attention",
    "symmetric": "symmetric_attention",
    "h_transformer": "h_attention",
    "alignment": "conditional_transport",
}
MODELS = {
    "bert": lambda **o: transformers.BertForMaskedLM(transformers.BertConfig(**ENCODER, **o)),
    "roberta": lambda **o: transformers.RobertaForMaskedLM(
        transformers.RobertaConfig(**ENCODER, pad_token_id=1, **o)
    ),
    "albert": lambda **o: transformers.AlbertForMaskedLM(
        transformers.AlbertConfig(**ENCODER, embedding_size=8, **o)
    ),
    "gpt2": lambda **o: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=50, n_embd=16, n_head=4, n_layer=2, n_positions=96, bos_token_id=0, **o
        )
    ),
}
families = pytest.mark.parametrize("family", MODELS)


def needs(mechanism):
    if not hasattr(headloom.ops, OPERATORS[mechanism]):
        pytest.skip(f"headloom.ops.{OPERATORS[mechanism]} is not in this build")


def make(family, **options):
    torch.manual_seed(1)
    return MODELS[family](**options).eval()


def batch(length=20):
    """Tokens, and a mask with padding on the right, padding on the left and none."""
    tokens = torch.randint(2, 50, (3, length), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(tokens)
    mask[0, length - 6 :] = 0
    mask[1, :3] = 0
    return tokens, mask


def logits(model, tokens, mask, **options):
    """At the tokens: what a model says at padding means nothing."""
    with torch.no_grad():
        return model(tokens, attention_mask=mask, **options).logits[mask.bool()]


@families
@pytest.mark.parametrize("masked", [True, False], ids=["padding", "whole"])
def test_dot_product_by_its_name_is_eager_attention(family, masked):
    tokens, mask = batch()
    mask = mask if masked else torch.ones_like(mask)
    expected = logits(make(family, attn_implementation="eager"), tokens, mask)
    named = make(family, attn_implementation="headloom_dot_product")
    torch.testing.assert_close(logits(named, tokens, mask), expected)
    model = make(family)
    model.set_attn_implementation("headloom_dot_product")
    torch.testing.assert_close(logits(model, tokens, mask), expected)
    torch.testing.assert_close(logits(convert(make(family), "dot_product"), tokens, mask), expected)


@pytest.mark.parametrize("mechanism", ["dot_product", "talking_heads", "symmetric"])
def test_generation_with_a_cache_equals_generation_without(mechanism):
    needs(mechanism)
    model = convert(make("gpt2"), mechanism)
    tokens, mask = batch(7)
    left = {"input_ids": tokens[1:2], "attention_mask": mask[1:2]}
    kept = model.generate(**left, max_new_tokens=12, do_sample=False, pad_token_id=0)
    whole = model.generate(
        **left, max_new_tokens=12, do_sample=False, pad_token_id=0, use_cache=False
    )
    assert kept.shape == (1, 19) and torch.equal(kept, whole)


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_every_cache_is_masked_rightly(kind):
    tokens, mask = batch(9)
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    texts = [
        make("gpt2", attn_implementation=name).generate(
            tokens, attention_mask=mask, cache_implementation=kind, **options
        )
        for name in ("eager", "headloom_dot_product")
    ]
    assert torch.equal(*texts)


@families
def test_talking_heads_start_as_the_model_was(family):
    needs("talking_heads")
    tokens, mask = batch()
    expected = logits(make(family), tokens, mask)
    model = make(family)
    assert convert(model, "talking_heads") is model
    torch.testing.assert_close(logits(model, tokens, mask), expected)
    mixes = {name: p for name, p in model.named_parameters() if ".headloom." in name}
    assert len(mixes) == (2 if family == "albert" else 4)  # ALBERT has one layer, used twice
    with torch.no_grad():
        for mix in mixes.values():
            mix.add_(0.3 * torch.randn_like(mix))
    assert not torch.allclose(logits(model, tokens, mask), expected)
    model.train()(tokens, attention_mask=mask, labels=tokens).loss.backward()
    assert all(mix.grad.abs().max() > 0 for mix in mixes.values())
    again = convert(make(family), "talking_heads")
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(
        logits(again.eval(), tokens, mask), logits(model.eval(), tokens, mask), atol=0, rtol=0
    )


@families
def test_talking_heads_mix_as_the_paper_says(family):
    needs("talking_heads")
    tokens, mask = batch(9)
    model = convert(make(family), "talking_heads", init="paper", mixing="logits")
    mixes = [m.headloom for m in model.modules() if hasattr(m, "headloom")]
    assert all(mix.weights_proj is None for mix in mixes)

    def plain(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
        scores = torch.einsum(
            "bkij,kh->bhij", query @ key.mT * scaling, module.headloom.logits_proj
        )
        hidden = mask.logical_not()[:, None, None, :]
        if module.is_causal:
            hidden = hidden | torch.ones(9, 9, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(hidden, -1e9).softmax(-1)
        return (weights @ value).transpose(1, 2), None

    found = logits(model, tokens, mask)
    transformers.AttentionInterface.register("plain_talking_heads", plain)
    model.set_attn_implementation("plain_talking_heads")
    torch.testing.assert_close(found, logits(model, tokens, mask))


@families
def test_h_transformer_is_plain_attention_up_to_two_blocks(family):
    needs("h_transformer")
    tokens, mask = batch()
    expected = logits(make(family), tokens, mask)
    model = convert(make(family), "h_transformer", block_size=10)
    torch.testing.assert_close(logits(model, tokens, mask), expected)
    long_tokens, long_mask = batch(70)
    model = convert(make(family), "h_transformer", block_size=4, relative_bias=True)
    found = logits(model, long_tokens, long_mask)
    assert found.isfinite().all()
    assert not torch.allclose(found, logits(make(family), long_tokens, long_mask))
    model.train()(long_tokens, attention_mask=long_mask, labels=long_tokens).loss.backward()
    biases = [p for name, p in model.named_parameters() if name.endswith("relative_bias")]
    assert biases and all(bias.grad.abs().max() > 0 for bias in biases)


@families
def test_symmetric_has_no_weights_of_keys(family):
    needs("symmetric")
    tokens, mask = batch()
    model = make(family)
    before = sum(p.numel() for p in model.parameters())
    convert(model, "symmetric", form="symmetric")
    layers = 1 if family == "albert" else 2
    assert before - sum(p.numel() for p in model.parameters()) == layers * (16 * 16 + 16)
    model.train()(tokens, attention_mask=mask, labels=tokens).loss.backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if "attn" in name)
    copied = copy.deepcopy(model).eval()
    torch.testing.assert_close(
        logits(copied, tokens, mask), logits(model.eval(), tokens, mask), atol=0, rtol=0
    )


@families
def test_the_nearest_symmetric_form_is_exact_where_there_is_one(family):
    """Keys of the same dimensions as queries: A = W_k W_q^+ exactly."""
    needs("symmetric")
    tokens, mask = batch()
    model = make(family).double()
    with torch.no_grad():
        for module in model.modules():
            if hasattr(module, "c_attn"):
                weight, bias = module.c_attn.weight, module.c_attn.bias
                mix = torch.block_diag(*torch.randn(4, 4, 4, dtype=torch.float64))
                weight[:, 16:32] = weight[:, :16] @ mix
                bias[16:32] = bias[:16] @ mix
            elif hasattr(module, "key"):
                mix = torch.block_diag(*torch.randn(4, 4, 4, dtype=torch.float64))
                module.key.weight.copy_(mix @ module.query.weight)
                module.key.bias.copy_(mix @ module.query.bias)
    expected = logits(model, tokens, mask)
    convert(model, "symmetric")
    residuals = [m.headloom.residual for m in model.modules() if hasattr(m, "headloom")]
    assert all(residual.max() < 1e-6 for residual in residuals)
    torch.testing.assert_close(logits(model, tokens, mask), expected, atol=1e-6, rtol=1e-5)


@families
@pytest.mark.parametrize("form", headloom.alignment.FORMS)
def test_alignment_leaves_the_bits_and_gives_a_loss(family, form):
    needs("alignment")
    tokens, mask = batch()
    expected = logits(make(family), tokens, mask)
    model = convert(make(family), "alignment", form=form)
    assert torch.equal(logits(model, tokens, mask), expected)
    assert float(model.headloom_alignment.loss()) == 0.0  # nothing was seen in evaluation mode
    loss = model.train()(tokens, attention_mask=mask, labels=tokens).loss
    aligned = model.headloom_alignment.loss(mask == 0)
    assert float(aligned.detach()) != 0.0
    projections = [
        p
        for name, p in model.named_parameters()
        if name.endswith(("query.weight", "c_attn.weight")) and "alignment" not in name
    ]
    grads = torch.autograd.grad(aligned, projections, retain_graph=True)
    assert all(grad.abs().max() > 0 for grad in grads)
    (loss + aligned).backward()


def test_alignment_sees_the_heads_of_gpt2():
    needs("alignment")
    tokens, _ = batch()
    model = convert(make("gpt2"), "alignment", form="discrepancy").train()
    seen = {}
    attention = model.transformer.h[0].attn
    attention.c_attn.register_forward_hook(lambda m, i, o: seen.update(qkv=o.detach()))
    model(tokens)
    model.headloom_alignment._seen[1].clear()
    found = model.headloom_alignment.loss()
    q, k, _ = (x.unflatten(-1, (4, 4)).transpose(1, 2) for x in seen["qkv"].chunk(3, -1))
    expected = 0.01 * headloom.ops.maximum_mean_discrepancy(q, k).mean()
    torch.testing.assert_close(found, expected)


def test_attention_to_an_encoder_stays_plain():
    needs("talking_heads")
    torch.manual_seed(1)
    options = {**ENCODER, "is_decoder": True, "add_cross_attention": True}
    model = transformers.BertLMHeadModel(transformers.BertConfig(**options)).eval()
    tokens, mask = batch()
    memory = {
        "encoder_hidden_states": torch.randn(3, 11, 16),
        "encoder_attention_mask": torch.arange(11).lt(7).long().expand(3, 11),
    }
    expected = logits(model, tokens, mask, **memory)
    convert(model, "talking_heads")
    torch.testing.assert_close(logits(model, tokens, mask, **memory), expected)


def test_masks_beyond_padding_reach_the_operator():
    """A four-dimensional mask of the caller, and packed sequences told by their positions."""
    tokens, _ = batch()
    seen = torch.rand(3, 1, 20, 20, generator=torch.Generator().manual_seed(3)) < 0.7
    seen |= torch.eye(20, dtype=torch.bool)
    positions = torch.cat([torch.arange(8), torch.arange(12)]).expand(3, -1)
    found = []
    for name in ("sdpa", "headloom_dot_product"):
        model = make("gpt2", attn_implementation=name)
        with torch.no_grad():
            found.append(model(tokens, attention_mask=seen, use_cache=False).logits)
            found.append(model(tokens, position_ids=positions, use_cache=False).logits)
    torch.testing.assert_close(found[2], found[0])
    torch.testing.assert_close(found[3], found[1])


@pytest.mark.slow
def test_compiles_whole():
    torch.compiler.reset()
    tokens, mask = batch()
    model = make("bert", attn_implementation="headloom_dot_product")
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    torch.testing.assert_close(logits(compiled, tokens, mask), logits(model, tokens, mask))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: convert(torch.nn.Linear(2, 2), "talking_heads"),
            "RoBERTa, ALBERT or GPT-2; found",
        ),
        (lambda: convert(make("bert"), "talking"), 'mechanism among "dot_product"'),
        (lambda: convert(make("bert"), "dot_product", heads=3), "options of dot_product"),
        (lambda: convert(convert(make("bert"), "h_transformer"), "h_transformer"), "already"),
        (lambda: convert(make("bert"), "h_transformer", block_size=5), "even block_size"),
        (lambda: convert(make("gpt2"), "talking_heads", mix="both"), "options of talking_heads"),
        (lambda: convert(make("gpt2"), "alignment", form="none"), "form among"),
        (
            lambda: convert(make("gpt2"), "h_transformer").generate(
                batch()[0], max_new_tokens=3, pad_token_id=0
            ),
            "pass use_cache=False",
        ),
        (
            lambda: make("bert", attn_implementation="headloom_h_transformer")(
                batch()[0], attention_mask=torch.ones(3, 1, 20, 20, dtype=torch.bool)
            ),
            "padding and causality",
        ),
    ],
    ids=["family", "mechanism", "no-options", "twice", "block", "option", "form", "cache", "mask"],
)
def test_refusals(call, words):
    for mechanism in ("h_transformer", "talking_heads", "alignment"):
        needs(mechanism)
    with pytest.raises(ValueError) as refusal:
        call()
    assert words in str(refusal.value)

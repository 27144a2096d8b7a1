"""Encoder-decoders of T5 1.1's shape compute what Hugging Face's class computes."""

import pytest
import torch

from headloom import nn

transformers = pytest.importorskip("transformers", minversion="5")

HEADS, LAYERS, DECODER_LAYERS = 4, 2, 3
PLAIN = {"mixing": "none"}
BIASED = {**PLAIN, "relative_bias": "t5"}


@pytest.fixture
def theirs():
    torch.manual_seed(1)
    config = transformers.T5Config(
        vocab_size=50,
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_layers=LAYERS,
        num_decoder_layers=DECODER_LAYERS,
        num_heads=HEADS,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        dropout_rate=0.0,
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms are ones at first
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def ours_of(theirs):
    config = nn.EncoderDecoderConfig(
        source_vocabulary=50,
        target_vocabulary=50,
        dim=16,
        ffn=24,
        encoder_layers=LAYERS,
        decoder_layers=DECODER_LAYERS,
        norm="pre",
        norm_type="rms",
        norm_eps=1e-6,
        positions="none",
        activation="gated_gelu",
        dropout=0.0,
        share_embeddings=True,
        tie_output=False,
        encoder_mixer=nn.MixerChoice("talking_heads", HEADS, 0.0, BIASED),
        decoder_mixer=nn.MixerChoice("talking_heads", HEADS, 0.0, BIASED),
        cross_mixer=nn.MixerChoice("talking_heads", HEADS, 0.0, PLAIN),
    )
    model = nn.EncoderDecoder(config).eval()
    model.load_state_dict(renamed(theirs.state_dict()))
    return model


def attention(state, theirs, ours):
    names = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}
    return {f"{ours}.{b}.weight": state[f"{theirs}.{a}.weight"] for a, b in names.items()}


def renamed(state):
    made = {
        "source_embedding.weight": state["shared.weight"] / 16**0.5,  # we multiply by the root
        "output.weight": state["lm_head.weight"],
    }
    for side, layers in (("encoder", LAYERS), ("decoder", DECODER_LAYERS)):
        made[f"{side}_norm.weight"] = state[f"{side}.final_layer_norm.weight"]
        first = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        for i in range(layers):
            block, ours = f"{side}.block.{i}.layer", f"{side}.{i}"
            made.update(attention(state, f"{block}.0.SelfAttention", f"{ours}.mixer"))
            made[f"{ours}.mixer.relative_bias"] = state[first].t()
            made[f"{ours}.mixer_norm.weight"] = state[f"{block}.0.layer_norm.weight"]
            last = 1
            if side == "decoder":
                made.update(attention(state, f"{block}.1.EncDecAttention", f"{ours}.cross"))
                made[f"{ours}.cross_norm.weight"] = state[f"{block}.1.layer_norm.weight"]
                last = 2
            made[f"{ours}.ffn_norm.weight"] = state[f"{block}.{last}.layer_norm.weight"]
            for a, b in {"wi_0": "ffn_gate", "wi_1": "ffn_in", "wo": "ffn_out"}.items():
                made[f"{ours}.{b}.weight"] = state[f"{block}.{last}.DenseReluDense.{a}.weight"]
    return made


def test_the_model_of_hugging_face(theirs):
    ours = ours_of(theirs)
    source, target = torch.randint(50, (3, 40)), torch.randint(50, (3, 30))
    padding = torch.arange(40) >= torch.tensor([[40], [25], [7]])
    with torch.no_grad():
        expected = theirs(
            input_ids=source, attention_mask=(~padding).long(), decoder_input_ids=target
        ).logits
        torch.testing.assert_close(ours(source, target, padding), expected, atol=1e-4, rtol=1e-4)
        state = ours.new_state(ours.encode(source, padding))
        steps = torch.cat([ours.step(t, state) for t in target.split([1, 20, 9], 1)], 1)
        torch.testing.assert_close(steps, expected, atol=1e-4, rtol=1e-4)
        # The comparison sees every part.
        for name, parameter in ours.named_parameters():
            kept = parameter.clone()
            parameter.mul_(0.5).add_(0.25 * torch.randn_like(parameter))
            assert not torch.allclose(
                ours(source, target, padding), expected, atol=1e-3, rtol=1e-3
            ), name
            parameter.copy_(kept)


def test_parameters_are_theirs_but_for_the_tables_of_distances(theirs):
    ours = sum(parameter.numel() for parameter in ours_of(theirs).parameters())
    # Names, because the class may tie what its files hold apart.
    state = {k: v for k, v in theirs.state_dict().items() if not k.endswith("embed_tokens.weight")}
    tables = (LAYERS - 1 + DECODER_LAYERS - 1) * HEADS * 32
    assert ours == sum(tensor.numel() for tensor in state.values()) + tables

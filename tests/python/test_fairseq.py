"""Importing fairseq's light-conv and dynamic-conv models."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import headloom
from headloom.compat import fairseq

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
from fairseq_plain import DYNAMIC, LIGHT, PADDING, conv_block, forward, make_state  # noqa: E402
from make_fairseq import SOURCE, TARGET, imported  # noqa: E402

VARIANTS = {
    "light": LIGHT,
    "light_flat": replace(LIGHT, flat_weight=True, new_names=True, glu=False),
    "light_pre": replace(LIGHT, pre_norm=True, heads=4, encoder_kernels=(5, 1)),
    "dynamic": DYNAMIC,
    "dynamic_old": replace(DYNAMIC, new_names=False, glu=True, joined_attention=False, learned=0),
}
models = pytest.mark.parametrize("model", VARIANTS.values(), ids=VARIANTS)


def mixer_of(converted, stack, index):
    """The mixer of one imported layer as a module of headloom.nn."""
    config = converted.config[f"{stack}_mixer"]
    options = dict(config["options"])
    kernel_size = options.pop("kernel_sizes")[index]
    make = {"light_conv": headloom.nn.LightConv, "dynamic_conv": headloom.nn.DynamicConv}
    mixer = make[config["name"]](
        converted.config["dim"],
        config["heads"],
        kernel_size,
        causal=stack == "decoder",
        **options,
    )
    prefix = f"{stack}.{index}.mixer."
    mixer.double().load_state_dict(
        {
            name[len(prefix) :]: tensor
            for name, tensor in converted.weights.items()
            if name.startswith(prefix)
        }
    )
    return mixer.eval()


@models
def test_blocks_compute_what_the_original_computes(model):
    state = make_state(model, seed=3)
    converted = fairseq.convert(
        state, encoder_heads=model.heads, decoder_heads=model.heads, dtype=None
    )
    padding = SOURCE.eq(PADDING)
    for stack, kernels in (("encoder", model.encoder_kernels), ("decoder", model.decoder_kernels)):
        for index, kernel in enumerate(kernels):
            x = torch.randn(3, 6, model.dim, dtype=torch.float64)
            mask = padding if stack == "encoder" else None
            expected = conv_block(
                state,
                f"{stack}.layers.{index}",
                x.transpose(0, 1),
                kernel,
                model,
                mask,
                causal=stack == "decoder",
            ).transpose(0, 1)
            found = mixer_of(converted, stack, index)(x, mask)
            real = ~padding if stack == "encoder" else torch.ones_like(padding)
            torch.testing.assert_close(found[real], expected[real])


@models
def test_every_entry_is_used_or_listed(model):
    state = make_state(model)
    converted = fairseq.convert(
        state, encoder_heads=model.heads, decoder_heads=model.heads, dtype=None
    )
    for name in converted.dropped:
        kept = name.endswith(("version", "_float_tensor", "conv_bias"))
        shared = model.shared and name == "decoder.embed_tokens.weight"
        assert kept or shared, name
    used = sum(t.numel() for n, t in state.items() if n not in converted.dropped)
    weights = converted.weights
    made = sum(t.numel() for n, t in weights.items() if not n.endswith("_positions"))
    learned = 2 * (model.learned + PADDING + 1) * model.dim if model.learned else 0
    assert made == used - learned
    assert not any(t.isnan().any() for t in weights.values())


def test_configuration_follows_from_the_shapes():
    light = imported(LIGHT).config
    assert light["norm"] == "post" and light["share_embeddings"] and light["tie_output"]
    assert light["positions"] == "sinusoidal" and light["max_length"] == 20
    assert light["encoder_mixer"] == {
        "name": "light_conv",
        "heads": 2,
        "options": {"kernel_sizes": [3, 7], "glu": True, "conv_dim": 8},
    }
    dynamic = imported(DYNAMIC).config
    assert dynamic["norm"] == "pre" and not dynamic["share_embeddings"]
    assert not dynamic["tie_output"] and dynamic["positions"] == "learned"
    assert dynamic["decoder_mixer"]["name"] == "dynamic_conv"
    assert dynamic["decoder_mixer"]["options"]["kernel_sizes"] == [3, 5]
    assert dynamic["cross_mixer"] == {"name": "dot_product", "heads": 4, "options": {}}
    assert (dynamic["source_vocabulary"], dynamic["target_vocabulary"]) == (11, 13)
    assert (dynamic["dim"], dynamic["ffn"], dynamic["encoder_layers"]) == (8, 12, 2)


@pytest.mark.parametrize(("kind", "model"), [("light", LIGHT), ("dynamic", DYNAMIC)])
def test_files_for_the_cpp_tests_are_current(kind, model):
    safetensors = pytest.importorskip("safetensors.torch")
    converted = imported(model)
    committed = safetensors.load_file(GOLDEN / f"fairseq_{kind}.safetensors")
    assert committed.keys() == converted.weights.keys()
    for name, tensor in committed.items():
        torch.testing.assert_close(converted.weights[name], tensor, msg=name)
    words = (GOLDEN / f"fairseq_{kind}.txt").read_text().split("expect logits")[1].split()
    logits = forward(make_state(model), model, SOURCE, TARGET)
    assert [int(size) for size in words[1:4]] == list(logits.shape)
    values = torch.tensor([float(word) for word in words[4:]], dtype=torch.float64)
    torch.testing.assert_close(values.view(logits.shape), logits)


def test_a_file_carries_its_configuration(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    converted = imported(LIGHT)
    converted.save(tmp_path / "model.safetensors")
    with safetensors.safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["headloom.config"]) == converted.config
        for name in file.keys():
            assert torch.equal(file.get_tensor(name), converted.weights[name])


def test_a_bias_that_was_in_use_is_kept():
    state = make_state(replace(DYNAMIC, unused_bias=True))
    state = {
        name: torch.ones(1, 1, 8, dtype=torch.float64) if name.endswith("conv_bias") else tensor
        for name, tensor in state.items()
    }
    converted = fairseq.convert(state, encoder_heads=4, decoder_heads=4, conv_bias=True)
    assert converted.weights["decoder.1.mixer.conv_bias"].shape == (8,)
    assert converted.config["decoder_mixer"]["options"]["conv_bias"]
    assert not any("conv_bias" in name for name in converted.dropped)


def test_dtype_is_that_of_the_model_to_load():
    state = {name: tensor.half() for name, tensor in make_state(LIGHT).items()}
    heads = {"encoder_heads": 2, "decoder_heads": 2}
    found = fairseq.convert(state, **heads).weights
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    kept = fairseq.convert(state, **heads, dtype=None).weights
    assert {tensor.dtype for tensor in kept.values()} == {torch.float16}


def test_a_repeated_output_projection_is_tied():
    state = make_state(LIGHT)
    state["decoder.output_projection.weight"] = state["decoder.embed_tokens.weight"].clone()
    converted = fairseq.convert(state, encoder_heads=2, decoder_heads=2)
    assert converted.config["tie_output"] and "output.weight" not in converted.weights
    assert "decoder.output_projection.weight" in converted.dropped


def _without(name):
    return lambda state: state.pop(name)


def _with(name, tensor=None):
    return lambda state: state.__setitem__(name, torch.ones(3, 8) if tensor is None else tensor)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            _with("decoder.adaptive_softmax.head.weight"),
            "also decoder.adaptive_softmax.head.weight",
        ),
        (_with("decoder.project_in_dim.weight"), "also decoder.project_in_dim.weight"),
        (_with("encoder.layers.0.linear3.weight"), "also encoder.layers.0.linear3.weight"),
        (_without("encoder.layers.1.fc2.bias"), "an entry encoder.layers.1.fc2.bias; found none"),
        (_without("encoder.layers.0.conv.weight"), "an entry encoder.layers.0.conv.weight_linear"),
        (_without("decoder.layers.0.encoder_attn.q_proj.weight"), "encoder_attn.q_proj.weight"),
        (
            _without("encoder.layers.0.layer_norms.0.weight"),
            "one of encoder.layers.0.layer_norms.0",
        ),
        (_with("encoder.layer_norm.weight", torch.ones(8)), "in neither (post-norm); found one in"),
        (_with("encoder.layers.0.conv.weight", torch.ones(3, 1, 3)), "[2, 1, K] or [2, K]; found"),
        (_with("encoder.layers.0.linear1.weight", torch.ones(9, 8)), "of 8 or 16 rows; found 9"),
        (_with("encoder.layers.5.fc1.weight"), "layers 0, 1, ...; found layers [0, 1, 5]"),
        (_with("encoder.embed_positions.weight", torch.ones(9, 8)), "positions of one kind"),
        (_with("model", {}), 'Pass checkpoint["model"].'),
    ],
)
def test_refusals_name_the_entry(change, words):
    state = make_state(LIGHT)
    change(state)
    with pytest.raises(ValueError, match="fairseq import: expected") as refusal:
        fairseq.convert(state, encoder_heads=2, decoder_heads=2)
    assert words in str(refusal.value)


def test_other_refusals():
    with pytest.raises(ValueError, match=r"\[7 K, 8\]"):
        fairseq.convert(make_state(DYNAMIC), encoder_heads=4, decoder_heads=7)
    with pytest.raises(ValueError, match='"rotary"'):
        fairseq.convert(make_state(LIGHT), encoder_heads=2, decoder_heads=2, positions="rotary")
    mixed = make_state(LIGHT)
    mixed["encoder.layers.1.conv.weight_linear.weight"] = torch.ones(6, 8)
    del mixed["encoder.layers.1.conv.weight"]
    with pytest.raises(ValueError, match="encoder layers of one kind"):
        fairseq.convert(mixed, encoder_heads=2, decoder_heads=2)

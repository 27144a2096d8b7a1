// B batch, T tokens, C model width, H heads, D width of a head.
#include <torch/nn/modules/transformerlayer.h>

#include <cmath>

#include "tests/nn/nn_support.h"

namespace headloom::nn {
namespace {

using at::Tensor;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

std::vector<std::string> parameter_names(const torch::nn::Module& module) {
  std::vector<std::string> names;
  for (const auto& parameter : module.named_parameters()) names.push_back(parameter.key());
  return names;
}

int64_t parameter_count(const torch::nn::Module& module) {
  int64_t count = 0;
  for (const Tensor& parameter : module.parameters()) count += parameter.numel();
  return count;
}

// The equations, written again from the parameters by name.
struct PlainTransformer {
  const Transformer& model;

  Tensor value(const std::string& name) const {
    const auto parameters = model.named_parameters();
    if (const Tensor* found = parameters.find(name)) return *found;
    return model.named_buffers()[name];
  }
  Tensor linear(const Tensor& x, const std::string& name) const {
    return at::matmul(x, value(name + ".weight").t()) + value(name + ".bias");
  }
  Tensor norm(const Tensor& x, const std::string& name) const {
    const Tensor centred = x - x.mean(-1, true);
    const Tensor variance = centred.square().mean(-1, true);
    return centred / (variance + 1e-5).sqrt() * value(name + ".weight") + value(name + ".bias");
  }
  Tensor heads(const Tensor& x) const {  // [B, T, C] -> [B, H, T, D]
    const int64_t heads = model.config().heads;
    return x.reshape({x.size(0), x.size(1), heads, x.size(2) / heads}).permute({0, 2, 1, 3});
  }
  Tensor attend(const Tensor& x, const std::string& name) const {
    const Tensor q = heads(linear(x, name + ".q_proj")), k = heads(linear(x, name + ".k_proj"));
    const Tensor v = heads(linear(x, name + ".v_proj"));
    Tensor logits = at::matmul(q, k.transpose(2, 3)) / std::sqrt(static_cast<double>(q.size(3)));
    if (model.config().causal) {
      logits = logits.masked_fill(at::ones({x.size(1), x.size(1)}, at::kBool).triu(1), -INFINITY);
    }
    const Tensor mixed = at::matmul(logits.softmax(-1), v).permute({0, 2, 1, 3});
    return linear(mixed.reshape(x.sizes()), name + ".out_proj");
  }
  Tensor feed_forward(const Tensor& x, const std::string& name) const {
    const Tensor hidden = linear(x, name + ".ffn_in");
    const Tensor active = model.config().activation == "relu"
                              ? hidden.clamp_min(0)
                              : hidden * 0.5 * (1 + (hidden / std::sqrt(2.0)).erf());
    return linear(active, name + ".ffn_out");
  }
  Tensor operator()(const Tensor& tokens) const {
    const TransformerConfig& config = model.config();
    Tensor x = value("embedding.weight").index({tokens});
    if (config.positions == "sinusoidal") x = x * std::sqrt(static_cast<double>(config.dim));
    if (config.positions != "none") x = x + value("positions").slice(0, 0, tokens.size(1));
    for (int64_t i = 0; i < config.layers; ++i) {
      const std::string block = cat("blocks.", i);
      if (config.norm == "pre") {
        x = x + attend(norm(x, block + ".mixer_norm"), block + ".mixer");
        x = x + feed_forward(norm(x, block + ".ffn_norm"), block);
      } else {
        x = norm(x + attend(x, block + ".mixer"), block + ".mixer_norm");
        x = norm(x + feed_forward(x, block), block + ".ffn_norm");
      }
    }
    return config.norm == "pre" ? norm(x, "final_norm") : x;
  }
};

// Parameters that a fresh model leaves at 0 or 1 would hide mistakes.
void randomise(torch::nn::Module& module) {
  const torch::NoGradGuard no_grad;
  for (Tensor& parameter : module.parameters()) parameter.add_(at::randn_like(parameter), 0.2);
}

TEST(Transformer, EqualsItsEquations) {
  for (const char* norm : {"pre", "post"}) {
    for (const char* positions : {"learned", "sinusoidal", "none"}) {
      for (const char* activation : {"gelu", "relu"}) {
        for (const bool causal : {false, true}) {
          SCOPED_TRACE(cat(norm, " ", positions, " ", activation, causal ? " causal" : ""));
          TransformerConfig config = small_config();
          config.norm = norm;
          config.positions = positions;
          config.activation = activation;
          config.causal = causal;
          Transformer model(config);
          model.to(at::kDouble);
          randomise(model);
          const Tensor tokens = random_tokens(3, 7);
          expect_close(model.forward(tokens), PlainTransformer{model}(tokens), config);
        }
      }
    }
  }
}

TEST(Transformer, PostNormBlockEqualsTorchsEncoderLayer) {
  TransformerConfig config = small_config();
  config.norm = "post";
  config.positions = "none";
  config.layers = 1;
  Transformer model(config);
  randomise(model);
  torch::nn::TransformerEncoderLayer layer(
      torch::nn::TransformerEncoderLayerOptions(config.dim, config.heads)
          .dim_feedforward(config.ffn)
          .dropout(0.0)
          .activation(torch::kGELU));
  const auto mine = model.named_parameters();
  const auto block = [&](const std::string& name) { return mine["blocks.0." + name]; };
  const auto joined = [&](const std::string& kind) {
    return at::cat({block("mixer.q_proj." + kind), block("mixer.k_proj." + kind),
                    block("mixer.v_proj." + kind)});
  };
  {
    const torch::NoGradGuard no_grad;
    auto theirs = layer->named_parameters();
    for (const std::string kind : {"weight", "bias"}) {
      theirs["self_attn.in_proj_" + kind].copy_(joined(kind));
      theirs["self_attn.out_proj." + kind].copy_(block("mixer.out_proj." + kind));
      theirs["linear1." + kind].copy_(block("ffn_in." + kind));
      theirs["linear2." + kind].copy_(block("ffn_out." + kind));
      theirs["norm1." + kind].copy_(block("mixer_norm." + kind));
      theirs["norm2." + kind].copy_(block("ffn_norm." + kind));
    }
  }
  const Tensor tokens = random_tokens(2, 9);
  const Tensor input = mine["embedding.weight"].index({tokens}).transpose(0, 1);  // [T, B, C]
  expect_close(model.forward(tokens), layer(input).transpose(0, 1), config);
}

TEST(Transformer, SinusoidsAreThoseOfThePaper) {
  TransformerConfig config = small_config();
  config.positions = "sinusoidal";
  config.dim = 6;
  Transformer model(config);
  const Tensor table = model.named_buffers()["positions"];
  ASSERT_EQ(table.sizes(), (std::vector<int64_t>{32, 6}));
  for (const int64_t t : {0, 1, 5, 31}) {
    for (int64_t i = 0; i < 3; ++i) {
      const double angle = static_cast<double>(t) / std::pow(10000.0, 2.0 * i / 6.0);
      EXPECT_FLOAT_EQ(table[t][2 * i].item<float>(), static_cast<float>(std::sin(angle)));
      EXPECT_FLOAT_EQ(table[t][2 * i + 1].item<float>(), static_cast<float>(std::cos(angle)));
    }
  }
  EXPECT_FALSE(model.named_parameters().contains("positions"));
}

TEST(Transformer, ParameterNamesAreTheDocumentedOnes) {
  TransformerConfig config = small_config();
  config.layers = 1;
  EXPECT_THAT(parameter_names(Transformer(config)),
              ::testing::UnorderedElementsAreArray({"positions",
                                                    "embedding.weight",
                                                    "blocks.0.mixer_norm.weight",
                                                    "blocks.0.mixer_norm.bias",
                                                    "blocks.0.mixer.q_proj.weight",
                                                    "blocks.0.mixer.q_proj.bias",
                                                    "blocks.0.mixer.k_proj.weight",
                                                    "blocks.0.mixer.k_proj.bias",
                                                    "blocks.0.mixer.v_proj.weight",
                                                    "blocks.0.mixer.v_proj.bias",
                                                    "blocks.0.mixer.out_proj.weight",
                                                    "blocks.0.mixer.out_proj.bias",
                                                    "blocks.0.ffn_norm.weight",
                                                    "blocks.0.ffn_norm.bias",
                                                    "blocks.0.ffn_in.weight",
                                                    "blocks.0.ffn_in.bias",
                                                    "blocks.0.ffn_out.weight",
                                                    "blocks.0.ffn_out.bias",
                                                    "final_norm.weight",
                                                    "final_norm.bias"}));
  config.norm = "post";
  config.positions = "none";
  const std::vector<std::string> names = parameter_names(Transformer(config));
  EXPECT_THAT(names, ::testing::Not(::testing::Contains(HasSubstr("final_norm"))));
  EXPECT_THAT(names, ::testing::Not(::testing::Contains("positions")));
}

// What BERT adds: a vector for each kind of token and a norm before the first block.
TEST(Transformer, AddsSegmentsAndANormAfterTheEmbedding) {
  TransformerConfig config = small_config();
  config.norm = "post";
  config.segments = 2;
  config.embedding_norm = true;
  Transformer model(config);
  model.eval();
  EXPECT_THAT(parameter_names(model), ::testing::IsSupersetOf({"segments", "embedding_norm.weight",
                                                               "embedding_norm.bias"}));
  const Tensor tokens = random_tokens(2, 5), zeros = at::zeros_like(tokens);
  const Tensor plain = model.forward(tokens);
  EXPECT_TRUE(at::equal(model.forward(tokens, {}, zeros), plain));
  Tensor kinds = zeros.clone();
  kinds[1][4] = 1;
  const Tensor other = model.forward(tokens, {}, kinds);
  EXPECT_TRUE(at::equal(other[0], plain[0]));
  EXPECT_FALSE(at::allclose(other[1], plain[1]));
  EXPECT_THAT(refusal([&] { model.forward(tokens, {}, kinds + 1); }),
              HasSubstr("transformer segments: expected token ids in [0, 2); "
                        "found token id 2"));

  // The embedding's scale is lost in the norm, but for its epsilon.
  const at::NoGradGuard no_grad;
  for (const char* name : {"embedding.weight", "positions", "segments"}) {
    model.named_parameters()[name].mul_(64.0);
  }
  const Tensor scaled = model.forward(tokens);
  EXPECT_FALSE(at::allclose(scaled, plain, 1e-3, 1e-3)) << "0.02 squared is near 1e-5";
  for (const char* name : {"embedding.weight", "positions", "segments"}) {
    model.named_parameters()[name].mul_(64.0);
  }
  EXPECT_TRUE(at::allclose(model.forward(tokens), scaled, 1e-3, 1e-3));
}

TEST(Transformer, CountsItsParameters) {
  // V C + L (4 (C^2 + C) + (C F + F) + (F C + C) + 4 C) + max_length C + 2 C, with V = 11, C = 16,
  // F = 24, L = 2, max_length = 32.
  constexpr int64_t V = 11, C = 16, F = 24, L = 2, N = 32;
  constexpr int64_t blocks = L * (4 * (C * C + C) + (C * F + F) + (F * C + C) + 4 * C);
  EXPECT_EQ(parameter_count(Transformer(small_config())), V * C + blocks + N * C + 2 * C);
  TransformerConfig post = small_config();
  post.norm = "post";
  post.positions = "sinusoidal";
  EXPECT_EQ(parameter_count(Transformer(post)), V * C + blocks);
}

TEST(Transformer, InitialValuesAreTheDocumentedOnes) {
  TransformerConfig config = small_config();
  config.vocabulary = 400;
  config.dim = 64;
  config.ffn = 256;
  config.layers = 8;
  config.max_length = 400;
  // Of n normal values, the deviation of the sample deviation is 1 / sqrt(2 n) of it: 5 sigma. That
  // of a uniform distribution has less.
  const auto expect_deviation = [](const Tensor& values, double expected) {
    const double bound = 5.0 * expected / std::sqrt(2.0 * static_cast<double>(values.numel()));
    EXPECT_NEAR(values.std().item<double>(), expected, bound);
    EXPECT_NEAR(values.mean().item<double>(), 0.0, 5.0 * expected / std::sqrt(values.numel()));
  };
  const double xavier_square = std::sqrt(2.0 / (64 + 64)), xavier_ffn = std::sqrt(2.0 / (64 + 256));
  const Transformer pre(config);
  const auto values = pre.named_parameters();
  expect_deviation(values["embedding.weight"], 0.02);
  expect_deviation(values["positions"], 0.02);
  expect_deviation(values["blocks.3.ffn_in.weight"], xavier_ffn);
  expect_deviation(values["blocks.3.ffn_out.weight"], xavier_ffn / 4);
  expect_deviation(values["blocks.3.mixer.q_proj.weight"], xavier_square);
  expect_deviation(values["blocks.3.mixer.out_proj.weight"], xavier_square / 4);
  EXPECT_EQ(values["blocks.3.ffn_in.bias"].abs().max().item<double>(), 0.0);

  config.norm = "post";
  config.positions = "sinusoidal";
  const Transformer post(config);
  expect_deviation(post.named_parameters()["embedding.weight"], 1.0 / 8);
  expect_deviation(post.named_parameters()["blocks.3.ffn_out.weight"], xavier_ffn);
  expect_deviation(post.named_parameters()["blocks.3.mixer.out_proj.weight"], xavier_square);
}

TEST(Transformer, EmptyBatchesAndSequencesWork) {
  for (const char* norm : {"pre", "post"}) {
    for (const char* positions : {"learned", "sinusoidal", "none"}) {
      TransformerConfig config = causal_config();
      config.norm = norm;
      config.positions = positions;
      Transformer model(config);
      EXPECT_EQ(model.forward(random_tokens(2, 0)).sizes(), (std::vector<int64_t>{2, 0, 16}));
      EXPECT_EQ(model.forward(random_tokens(0, 5)).sizes(), (std::vector<int64_t>{0, 5, 16}));
      model.forward(random_tokens(0, 5)).sum().backward();
      model.forward(random_tokens(2, 0)).sum().backward();
      for (const auto& parameter : model.named_parameters()) {
        const Tensor& grad = parameter.value().grad();
        if (grad.defined()) {
          EXPECT_EQ(grad.abs().sum().item<double>(), 0.0) << parameter.key();
        }
      }
    }
  }
}

TEST(Transformer, GradientsReachEveryParameter) {
  for (const std::string& mixer : mechanism_names()) {
    for (const char* norm : {"pre", "post"}) {
      TransformerConfig config = small_config();
      config.mixer = mixer;
      config.norm = norm;
      config.max_length = 9;
      Transformer model(config);
      const Tensor out = model.forward(random_tokens(4, 9));
      (out * at::randn_like(out)).sum().backward();
      for (const auto& parameter : model.named_parameters()) {
        const Tensor& grad = parameter.value().grad();
        ASSERT_TRUE(grad.defined()) << mixer << " " << parameter.key();
        // A bias of the keys shifts all logits of a row alike: its gradient is rounding or 0.
        if (parameter.key().find("k_proj.bias") == std::string::npos) {
          EXPECT_GT(grad.abs().sum().item<double>(), 0.0) << mixer << " " << parameter.key();
        }
        EXPECT_TRUE(grad.isfinite().all().item<bool>()) << mixer << " " << parameter.key();
      }
    }
  }
}

TEST(Transformer, DropsInTrainingOnly) {
  for (const bool mixing : {false, true}) {
    TransformerConfig config = small_config();
    (mixing ? config.mixing_dropout : config.dropout) = 0.3;
    Transformer model(config);
    const Tensor tokens = random_tokens(2, 8);
    EXPECT_FALSE(at::equal(model.forward(tokens), model.forward(tokens)));
    model.eval();
    const Tensor expected = model.forward(tokens);
    EXPECT_TRUE(at::equal(model.forward(tokens), expected));
    TransformerConfig none = config;
    none.dropout = none.mixing_dropout = 0.0;
    Transformer same(none);
    {
      const torch::NoGradGuard no_grad;
      auto parameters = same.named_parameters();
      for (const auto& parameter : model.named_parameters()) {
        parameters[parameter.key()].copy_(parameter.value());
      }
    }
    EXPECT_TRUE(at::equal(same.forward(tokens), expected));
  }
}

TEST(Transformer, RefusesTokensThatItCannotEmbed) {
  Transformer model(small_config());
  EXPECT_EQ(refusal([&] { model.forward(random_tokens(1, 33)); }),
            "transformer: expected sequences of at most max_length = 32 tokens; found 33 tokens. "
            "Cut the sequence, or build the model with a larger max_length.");
  EXPECT_EQ(refusal([&] {
              model.forward(at::full({1, 2}, 11, at::kLong));
            }),
            "transformer: expected token ids in [0, 11); found token id 11.");
  EXPECT_THAT(refusal([&] {
                model.forward(at::full({1, 2}, -1, at::kLong));
              }),
              HasSubstr("token id -1"));
  EXPECT_THAT(refusal([&] { model.forward(at::zeros({3}, at::kLong)); }),
              HasSubstr("tokens of shape [B, T] and dtype int64; found shape [3]"));
  EXPECT_THAT(refusal([&] { model.forward(at::zeros({1, 3})); }), HasSubstr("Float"));
}

TEST(Transformer, CountsOperations) {
  // 8 T C^2 + 4 T^2 C for attention and 4 T C F for the feed-forward part, in each layer.
  constexpr double T = 10, C = 16, F = 24, L = 2;
  EXPECT_EQ(Transformer(small_config()).flops(10),
            L * (8 * T * C * C + 4 * T * T * C + 4 * T * C * F));
}

}  // namespace
}  // namespace headloom::nn

#include "headloom/mechanisms/symmetric/symmetric_module.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "headloom/base/check.h"
#include "tests/support/arguments.h"
#include "tests/support/closeness.h"

namespace headloom {
namespace {

using at::Tensor;
using testing::Difference;
using testing::differs_by_more_than_rounding;
using testing::normal;

MixerConfig config_of(int64_t dim, int64_t heads, bool causal = false) {
  MixerConfig config;
  config.dim = dim;
  config.heads = heads;
  config.causal = causal;
  return config;
}

std::shared_ptr<SymmetricMixer> build(const Options& options, const MixerConfig& config) {
  at::manual_seed(3);
  auto mixer = std::dynamic_pointer_cast<SymmetricMixer>(make_mixer("symmetric", config, options));
  const at::NoGradGuard off;
  int64_t number = 0;
  for (auto& parameter : mixer->parameters()) {
    parameter.add_(0.1 * normal(cat(number++), parameter.sizes()).to(at::kFloat));
  }
  mixer->to(at::kDouble);
  mixer->eval();
  return mixer;
}

int64_t count(const std::string& name, const Options& options, int64_t dim, int64_t heads) {
  int64_t sum = 0;
  for (const Tensor& p : make_mixer(name, config_of(dim, heads), options)->parameters()) {
    sum += p.numel();
  }
  return sum;
}

// Masked-language models of BERT's shape: what a layer saves, and what that is of the whole.
TEST(SymmetricMixer, ParametersOfBert) {
  struct Model {
    int64_t layers, dim, heads, vanilla, symmetric, pairwise;
    double saved;  // per cent, by the pairwise form
  };
  for (const Model& m : {Model{12, 768, 12, 109'514'298, 102'427'194, 103'017'018, 5.93},
                         Model{4, 512, 8, 28'795'194, 27'744'570, 27'875'642, 3.19},
                         Model{24, 1024, 16, 335'174'458, 309'984'058, 311'556'922, 7.05}}) {
    const int64_t vanilla = count("dot_product", {}, m.dim, m.heads);
    const int64_t plain = count("symmetric", {{"form", "symmetric"}}, m.dim, m.heads);
    const int64_t pairwise = count("symmetric", {}, m.dim, m.heads);
    EXPECT_EQ(m.vanilla - m.layers * (vanilla - plain), m.symmetric);
    EXPECT_EQ(m.vanilla - m.layers * (vanilla - pairwise), m.pairwise);
    const double saved =
        100.0 * static_cast<double>(m.vanilla - m.pairwise) / static_cast<double>(m.vanilla);
    EXPECT_EQ(std::round(saved * 100) / 100, m.saved);
  }
}

TEST(SymmetricMixer, CoefficientsAtTheStart) {
  const auto start = [](const Options& options) {
    at::manual_seed(1);
    auto mixer = std::dynamic_pointer_cast<SymmetricMixer>(
        make_mixer("symmetric", config_of(128, 2), options));
    return mixer->coefficients().detach();
  };
  const Tensor identity = at::eye(64).expand({2, 64, 64});
  for (const char* form : {"pairwise", "constrained", "low_rank"}) {
    EXPECT_TRUE(at::equal(start({{"form", form}, {"initial", "identity"}}), identity)) << form;
    const Tensor noise = start({{"form", form}, {"initial", "noise"}, {"noise", 0.1}}) - identity;
    EXPECT_NEAR(noise.std().item<double>(), form == std::string("constrained") ? 0.0707 : 0.1, 0.01)
        << form;
  }
  EXPECT_NEAR(start({}).std().item<double>(), 1.0, 0.05);
  EXPECT_NEAR(start({{"form", "low_rank"}}).std().item<double>(), 1.0, 0.1);
  EXPECT_FALSE(start({{"form", "symmetric"}}).defined());
}

// Decay acts on parameters with two axes or more; what it pulls to zero says where it leads.
TEST(SymmetricMixer, WhereDecayLeads) {
  const auto decayed = [](const Options& options) {
    auto mixer = std::dynamic_pointer_cast<SymmetricMixer>(
        make_mixer("symmetric", config_of(8, 2), options));
    const at::NoGradGuard off;
    for (auto& p : mixer->parameters()) {
      if (p.dim() >= 2) p.zero_();
    }
    return mixer->coefficients();
  };
  const Tensor identity = at::eye(4).expand({2, 4, 4});
  EXPECT_TRUE(at::equal(decayed({}), at::zeros({2, 4, 4})));
  EXPECT_TRUE(at::equal(decayed({{"initial", "identity"}}), identity));
  EXPECT_TRUE(at::equal(decayed({{"initial", "identity"}, {"decay", "none"}}), identity));
  EXPECT_TRUE(
      at::equal(decayed({{"initial", "identity"}, {"decay", "zero"}}), at::zeros({2, 4, 4})));
}

TEST(SymmetricMixer, CoefficientsByForm) {
  const Tensor constrained = build({{"form", "constrained"}}, config_of(8, 2))->coefficients();
  EXPECT_TRUE(at::equal(constrained, constrained.mT()));
  const Options low_rank{{"form", "low_rank"}, {"rank", int64_t{1}}};
  const auto mixer = build(low_rank, config_of(8, 2));
  Tensor diagonal;
  for (const auto& p : mixer->named_parameters()) {
    if (p.key() == "diagonal") diagonal = p.value();
  }
  const Tensor rest = mixer->coefficients() - at::diag_embed(diagonal);
  EXPECT_EQ(at::linalg_matrix_rank(rest[0], 1e-9, false).item<int64_t>(), 1);
}

// Multi-head attention as anyone writes it, with the given projections.
Tensor ordinary_attention(const Tensor& x, const OrdinaryProjections& p, SymmetricMixer& mixer,
                          int64_t heads) {
  std::map<std::string, Tensor> named;
  for (const auto& entry : mixer.named_parameters()) named[entry.key()] = entry.value();
  const auto split = [&](const Tensor& y) {
    return y.view({x.size(0), x.size(1), heads, -1}).transpose(1, 2);
  };
  const Tensor mixed = at::scaled_dot_product_attention(
      split(at::linear(x, p.q_weight, p.q_bias)), split(at::linear(x, p.k_weight, p.k_bias)),
      split(at::linear(x, named["v_proj.weight"], named["v_proj.bias"])));
  return at::linear(mixed.transpose(1, 2).reshape_as(x), named["out_proj.weight"],
                    named["out_proj.bias"]);
}

TEST(SymmetricMixer, ExportsExactly) {
  const Tensor x = normal("x", {2, 11, 12});
  for (const Options& options :
       {Options{}, Options{{"form", "symmetric"}}, Options{{"form", "constrained"}},
        Options{{"form", "low_rank"}, {"initial", "noise"}},
        Options{{"query_heads", int64_t{1}}}}) {
    const auto mixer = build(options, config_of(12, 3));
    const Tensor expected = mixer->forward(x, {});
    const Tensor found = ordinary_attention(x, mixer->to_ordinary(), *mixer, 3);
    const Difference difference = differs_by_more_than_rounding(found, expected, 100.0);
    EXPECT_FALSE(difference) << *difference;
  }
}

TEST(SymmetricMixer, ImportsWhatItExported) {
  const Tensor x = normal("x", {2, 11, 12});
  const auto trained = build({}, config_of(12, 3));
  for (const Options& options : {Options{}, Options{{"initial", "identity"}}}) {
    const auto fresh = build(options, config_of(12, 3));
    OrdinaryProjections ordinary = trained->to_ordinary();
    const Tensor residual = fresh->from_ordinary(ordinary);
    EXPECT_LT(residual.max().item<double>(), 1e-6);
    // v_proj and out_proj are the fresh mixer's own.
    const Difference difference = differs_by_more_than_rounding(
        fresh->forward(x, {}), ordinary_attention(x, ordinary, *fresh, 3), 1e4);
    EXPECT_FALSE(difference) << *difference;
  }
}

// Ordinary attention of independent projections is no pairwise form: the fit keeps a share that
// neither random dimensions nor those of the queries alone keep.
TEST(SymmetricConvert, FitsWhatIsNotPairwise) {
  const Tensor q = normal("q", {8, 24}), k = normal("k", {8, 24});
  const PairwiseFit fit = nearest_pairwise(q, {}, k, {}, 2);
  for (int64_t h = 0; h < 2; ++h) {
    const Tensor m = at::matmul(q.narrow(0, 4 * h, 4).t(), k.narrow(0, 4 * h, 4));
    const Tensor w = fit.weight.narrow(0, 4 * h, 4);
    const Tensor form = at::matmul(w.t(), at::matmul(fit.pairwise[h], w));
    const double residual = fit.residual[h].item<double>();
    EXPECT_NEAR((m - form).norm().item<double>() / m.norm().item<double>(), residual, 1e-9);
    const auto rest = [&](const Tensor& rows) {
      const Tensor u = std::get<0>(at::linalg_qr(rows.t()));
      const Tensor p = at::matmul(u, u.t());
      return ((m - at::matmul(p, at::matmul(m, p))).norm() / m.norm()).item<double>();
    };
    EXPECT_LT(residual, rest(q.narrow(0, 4 * h, 4)));
    EXPECT_LT(residual, rest(k.narrow(0, 4 * h, 4)));
    EXPECT_LT(residual, 1.0);
    // No direction nearby is better.
    for (int64_t i = 0; i < 20; ++i) {
      const Tensor moved = w + 1e-3 * w.norm() * normal(cat("d", i), w.sizes()) / 10;
      EXPECT_GE(rest(moved), residual - 1e-9);
    }
  }
}

TEST(SymmetricConvert, KeyBiasDoesNotMatter) {
  const Tensor q = normal("q", {8, 24}), k = normal("k", {8, 24});
  const Tensor q_bias = normal("qb", {8}), k_bias = normal("kb", {8});
  EXPECT_TRUE(at::equal(nearest_pairwise(q, q_bias, k, {}, 2).weight,
                        nearest_pairwise(q, q_bias, k, k_bias, 2).weight));
}

template <class Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "nothing was refused";
}

TEST(SymmetricMixer, InputsAreHalfTheMemory) {
  const Tensor x = normal("x", {1, 20, 12});
  const auto bytes = [&](const char* cache) {
    const auto mixer = build({{"cache", cache}}, config_of(12, 3, /*causal=*/true));
    const auto state = mixer->new_state(1);
    mixer->step(x, *state);
    return state->bytes();
  };
  EXPECT_EQ(2 * bytes("inputs"), bytes("projections"));
}

TEST(SymmetricMixer, Refusals) {
  const auto message = [](const Options& options) {
    return message_of([&] { make_mixer("symmetric", config_of(12, 3), options); });
  };
  EXPECT_NE(message({{"form", "pairwis"}}).find("pairwise"), std::string::npos);
  EXPECT_NE(message({{"query_heads", int64_t{2}}}).find("query_heads that divides 3"),
            std::string::npos);
  EXPECT_NE(message({{"rank", int64_t{0}}}).find("rank of 1 or more"), std::string::npos);
  EXPECT_NE(message({{"noise", -1.0}}).find("noise of 0 or more"), std::string::npos);
  const auto import = [](const Options& options, int64_t width) {
    return message_of([&] {
      build(options, config_of(12, 3))
          ->from_ordinary({normal("q", {12, width}), {}, normal("k", {12, width}), {}});
    });
  };
  EXPECT_NE(import({{"form", "symmetric"}}, 12).find("form \"pairwise\""), std::string::npos);
  EXPECT_NE(import({}, 11).find("q_weight of shape [12, 12]"), std::string::npos);
  EXPECT_NE(message_of([] {
              nearest_pairwise(normal("q", {8, 6}), {}, normal("k", {8, 5}), {}, 2);
            }).find("k_weight of the shape of q_weight"),
            std::string::npos);
  EXPECT_NE(message_of([] {
              nearest_pairwise(normal("q", {8, 6}), normal("b", {4}), normal("k", {8, 6}), {}, 2);
            }).find("q_bias of shape [8]"),
            std::string::npos);
  EXPECT_NE(message_of([] {
              ordinary_projections(normal("w", {8, 6}), {}, normal("a", {2, 4, 3}), 2);
            }).find("expected"),
            std::string::npos);
}

}  // namespace
}  // namespace headloom

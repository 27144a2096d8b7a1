#include "headloom/mechanisms/alignment/alignment_objective.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <torch/nn/functional/linear.h>

#include <cmath>
#include <map>

#include "headloom/base/check.h"
#include "headloom/mechanisms/registry.h"
#include "tests/support/arguments.h"
#include "tests/support/closeness.h"

// B batch, H heads, T tokens, D width of a head.
namespace headloom {
namespace {

using at::Tensor;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::normal;
using ::testing::ThrowsMessage;
using ::testing::UnorderedElementsAre;

AlignmentConfig config_of(const std::string& form) {
  AlignmentConfig config;
  config.form = form;
  config.hidden = 5;
  return config;
}

// Networks of a size at which everything has a gradient.
std::shared_ptr<AlignmentObjective> make(const AlignmentConfig& config) {
  at::manual_seed(5);
  auto objective = std::make_shared<AlignmentObjective>(config, std::vector<int64_t>{4});
  objective->to(at::kDouble);
  const at::NoGradGuard off;
  for (const auto& item : objective->named_parameters()) {
    Tensor(item.value()).copy_(normal(item.key(), item.value().sizes()) * 0.7);
  }
  return objective;
}

struct Gradients {
  double value;
  std::map<std::string, Tensor> by_name;
};

Gradients gradients(const AlignmentConfig& config) {
  const auto objective = make(config);
  const Tensor q = normal("q", {2, 3, 6, 4}).requires_grad_(true);
  const Tensor k = normal("k", {2, 3, 6, 4}).requires_grad_(true);
  const Tensor value = objective->forward({{{q, k, {}, {}, {}}}});
  value.backward();
  Gradients found{value.item<double>(), {{"q", q.grad()}, {"k", k.grad()}}};
  for (const auto& item : objective->named_parameters()) {
    found.by_name[item.key()] = item.value().grad();
  }
  return found;
}

bool is_adversary(const std::string& name) {
  for (const char* part : {"gate", "transform", "critic"}) {
    if (name.find(part) != std::string::npos) return true;
  }
  return false;
}

::testing::AssertionResult close(const Tensor& found, const Tensor& expected) {
  const auto difference = testing::differs_by_more_than_rounding(found, expected);
  return difference ? ::testing::AssertionFailure() << *difference : ::testing::AssertionSuccess();
}

// The sign table: with the reversal at -1 nothing is reversed.
TEST(AlignmentObjective, ReversesTheAdversaryAlone) {
  for (const char* form : {"adversarial", "conditional_transport"}) {
    AlignmentConfig config = config_of(form);
    config.learn_temperature = true;
    config.reversal = -1.0;
    const Gradients plain = gradients(config);
    config.reversal = 0.5;
    const Gradients reversed = gradients(config);
    EXPECT_EQ(plain.value, reversed.value);
    for (const auto& [name, gradient] : plain.by_name) {
      const double factor = is_adversary(name) ? -0.5 : 1.0;
      EXPECT_GT(testing::magnitude(gradient), 0.0) << form << ' ' << name;
      EXPECT_TRUE(close(reversed.by_name.at(name), factor * gradient)) << form << ' ' << name;
    }
  }
}

TEST(AlignmentObjective, TheReleasedNavigatorIsAnAdversaryToo) {
  AlignmentConfig config = config_of("conditional_transport");
  const Gradients paper = gradients(config);
  config.reverse_navigator = true;
  const Gradients released = gradients(config);
  for (const auto& [name, gradient] : paper.by_name) {
    const bool turned = name.find("navigator") != std::string::npos;
    EXPECT_TRUE(close(released.by_name.at(name), turned ? -gradient : gradient)) << name;
  }
}

TEST(AlignmentObjective, TheReleasedAdversaryMovesTheKeysAlone) {
  AlignmentConfig config = config_of("adversarial");
  config.detach_queries = true;
  const auto objective = make(config);
  const Tensor q = normal("q", {1, 1, 6, 4}).requires_grad_(true);
  const Tensor k = normal("k", {1, 1, 6, 4}).requires_grad_(true);
  objective->forward({{{q, k, {}, {}, {}}}}).backward();
  EXPECT_FALSE(q.grad().defined());
  EXPECT_GT(testing::magnitude(k.grad()), 0.0);
}

TEST(AlignmentObjective, OfABlindDiscriminator) {
  const auto objective = make(config_of("adversarial"));
  {
    const at::NoGradGuard off;
    for (const auto& item : objective->named_parameters()) {
      if (item.key().find("critic_out") != std::string::npos) Tensor(item.value()).zero_();
    }
  }
  const Tensor q = normal("q", {1, 1, 6, 4}).requires_grad_(true);
  const Tensor k = normal("k", {1, 1, 6, 4}).requires_grad_(true);
  const Tensor value = objective->forward({{{q, k, {}, {}, {}}}});
  value.backward();
  EXPECT_DOUBLE_EQ(value.item<double>(), -2.0 * std::log(2.0));
  EXPECT_EQ(testing::magnitude(q.grad()), 0.0);
  EXPECT_EQ(testing::magnitude(k.grad()), 0.0);
}

TEST(AlignmentObjective, PaddingTakesNoPartUnlessAskedFor) {
  const Tensor q = normal("q", {1, 2, 4, 4}), k = normal("k", {1, 2, 4, 4});
  const Tensor padding = at::tensor({0, 0, 0, 1}, at::kLong).to(at::kBool).unsqueeze(0);
  const auto cut = [](const Tensor& x) { return x.narrow(2, 0, 3); };
  for (const char* form :
       {"adversarial", "optimal_transport", "conditional_transport", "discrepancy"}) {
    AlignmentConfig config = config_of(form);
    const auto value = [&](const QueryKeys& pass) { return make(config)->forward({{pass}}); };
    EXPECT_TRUE(close(value({q, k, padding, padding, {}}), value({cut(q), cut(k), {}, {}, {}})));
    config.masks = false;
    EXPECT_TRUE(close(value({q, k, padding, padding, {}}), value({q, k, {}, {}, {}})));
  }
}

TEST(AlignmentObjective, PackedSequencesAreSamplesOfTheirOwn) {
  const Tensor q = normal("q", {1, 2, 7, 4}), k = normal("k", {1, 2, 7, 4});
  const auto objective = make(config_of("conditional_transport"));
  const Tensor whole = objective->forward({{{q, k, {}, {}, at::tensor({0, 3, 3, 7}, at::kLong)}}});
  const auto part = [&](int64_t begin, int64_t count) {
    return objective->forward(
        {{{q.narrow(2, begin, count), k.narrow(2, begin, count), {}, {}, {}}}});
  };
  EXPECT_TRUE(close(whole, (part(0, 3) + part(3, 4)) / 2));
}

TEST(AlignmentObjective, Reductions) {
  AlignmentConfig config = config_of("discrepancy");
  const QueryKeys pass{normal("q", {2, 3, 6, 4}), normal("k", {2, 3, 6, 4}), {}, {}, {}};
  const Tensor mean = make(config)->forward({{pass}});
  config.reduction = "sum_heads";
  EXPECT_TRUE(close(make(config)->forward({{pass}}), 3 * mean));
}

TEST(AlignmentObjective, TheRampGoesFromNothingToTheWeight) {
  AlignmentConfig config = config_of("discrepancy");
  config.weight = 0.5;
  EXPECT_EQ(make(config)->weight(1), 0.5);
  config.schedule = "ramp";
  config.ramp_steps = 100;
  EXPECT_EQ(make(config)->weight(0), 0.0);
  EXPECT_DOUBLE_EQ(make(config)->weight(50), 0.5 * (2 / (1 + std::exp(-5.0)) - 1));
  EXPECT_NEAR(make(config)->weight(1000), 0.5, 1e-12);
}

TEST(AlignmentObjective, ParametersOfEachForm) {
  const auto count = [](const AlignmentConfig& config, int64_t width) {
    const AlignmentObjective objective(config, {width});
    int64_t scalars = 0;
    for (const Tensor& parameter : objective.parameters()) scalars += parameter.numel();
    return scalars;
  };
  AlignmentConfig config;
  config.form = "adversarial";
  EXPECT_EQ(count(config, 64), 9377);
  config.highway = "shared";
  EXPECT_EQ(count(config, 64), 5217);
  config.form = "conditional_transport";
  EXPECT_EQ(count(config, 64), 6784);
  config.highway = "paper";
  EXPECT_EQ(count(config, 64), 10944);
  config.form = "optimal_transport";
  EXPECT_EQ(count(config, 64), 0);
}

TEST(AlignmentObjective, RefusesImpossibleValues) {
  const auto refused = [](const auto& change, const char* says) {
    AlignmentConfig config = config_of("conditional_transport");
    change(config);
    EXPECT_THAT([&] { AlignmentObjective(config, {4}); }, ThrowsMessage<Error>(HasSubstr(says)));
  };
  refused([](AlignmentConfig& c) { c.form = "wasserstein"; }, "form among");
  refused([](AlignmentConfig& c) { c.temperature = 0; }, "temperature above 0");
  refused([](AlignmentConfig& c) { c.hidden = 0; }, "hidden above 0");
  refused([](AlignmentConfig& c) { c.highway = "none"; }, "highway among");
  EXPECT_THAT([] { AlignmentObjective(config_of("discrepancy"), {4}).forward({}); },
              ThrowsMessage<Error>(HasSubstr("the passes of 1 layers")));
}

// A mixer leaves its queries and keys when asked, in training mode, and is otherwise as it was.
TEST(QueryKeySource, DotProductLeavesItsQueriesAndKeys) {
  at::manual_seed(1);
  MixerConfig config;
  config.dim = 8;
  config.heads = 2;
  const auto mixer = make_mixer("dot_product", config, {});
  auto* source = dynamic_cast<QueryKeySource*>(mixer.get());
  ASSERT_NE(source, nullptr);
  const Tensor x = normal("x", {2, 5, 8}).to(at::kFloat);
  const Tensor before = mixer->forward(x, {});
  EXPECT_THAT(source->take_passes(), IsEmpty());
  source->record(true);
  mixer->eval();
  EXPECT_TRUE(at::equal(mixer->forward(x, {}), before));
  EXPECT_THAT(source->take_passes(), IsEmpty());
  mixer->train();
  EXPECT_TRUE(at::equal(mixer->forward(x, {}), before));
  const auto passes = source->take_passes();
  ASSERT_EQ(passes.size(), 1u);
  EXPECT_EQ(passes[0].q.sizes(), (at::IntArrayRef{2, 2, 5, 4}));
  EXPECT_EQ(source->query_width(), 4);
}

// Folded queries and keys are those of the ordinary attention that symmetric attention is: their
// products are its logits.
TEST(QueryKeySource, SymmetricLeavesFoldedQueriesAndKeys) {
  at::manual_seed(1);
  MixerConfig config;
  config.dim = 8;
  config.heads = 2;
  for (const char* form : {"pairwise", "constrained", "low_rank"}) {
    for (const int64_t query_heads : {1, 2}) {
      const auto mixer = make_mixer("symmetric", config,
                                    {{"form", std::string(form)}, {"query_heads", query_heads}});
      auto* source = dynamic_cast<QueryKeySource*>(mixer.get());
      ASSERT_NE(source, nullptr);
      EXPECT_EQ(source->query_width(), 4);
      mixer->to(at::kDouble);
      const Tensor x = normal("x", {2, 5, 8}), memory = normal("m", {2, 3, 8});
      const Tensor before = mixer->forward(x, {});
      source->record(true);
      EXPECT_TRUE(at::equal(mixer->forward(x, {}), before)) << form;
      {
        const at::NoGradGuard off;
        mixer->forward(x, {});
      }
      auto passes = source->take_passes();
      ASSERT_EQ(passes.size(), 1u) << "passes without gradients leave nothing";
      const Tensor logits = at::matmul(passes[0].q, passes[0].k.mT()) / 2.0;
      const Tensor v = torch::nn::functional::linear(x, mixer->named_parameters()["v_proj.weight"])
                           .view({2, 5, 2, 4})
                           .transpose(1, 2);
      const Tensor mixed = torch::nn::functional::linear(
          at::matmul(logits.softmax(-1), v).transpose(1, 2).reshape({2, 5, 8}),
          mixer->named_parameters()["out_proj.weight"]);
      EXPECT_TRUE(close(before, mixed)) << form << ' ' << query_heads;
      mixer->cross(x, memory, {});
      passes = source->take_passes();
      ASSERT_EQ(passes.size(), 1u);
      EXPECT_EQ(passes[0].q.sizes(), (at::IntArrayRef{2, 2, 5, 4}));
      EXPECT_EQ(passes[0].k.sizes(), (at::IntArrayRef{2, 2, 3, 4}));
      mixer->eval();
      mixer->forward(x, {});
      EXPECT_THAT(source->take_passes(), IsEmpty());
    }
  }
  const auto plain = make_mixer("symmetric", config, {{"form", std::string("symmetric")}});
  EXPECT_THAT([&] { dynamic_cast<QueryKeySource&>(*plain).query_width(); },
              ThrowsMessage<Error>(HasSubstr("whose queries are its keys")));
}

}  // namespace
}  // namespace headloom

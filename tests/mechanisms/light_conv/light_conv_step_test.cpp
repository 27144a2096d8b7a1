// Steps through the ring against whole passes: every length around the kernel width, pieces of any
// size, both ways to compute a step, and what a step allocates.
#include "headloom/mechanisms/light_conv/light_conv_step.h"

#include <ATen/autocast_mode.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <random>

#include "headloom/base/check.h"
#include "headloom/kernels/isa.h"
#include "headloom/mechanisms/registry.h"
#include "tests/mechanisms/light_conv/light_conv_cases.h"
#include "tests/support/closeness.h"

// B batch, T time, C channels, H heads, K kernel width.
namespace headloom::conv_testing {
namespace {

using headloom::testing::differs_by_more_than_rounding;
using headloom::testing::differs_in_bits;

constexpr int64_t kDim = 12, kHeads = 3;

#define EXPECT_SAME(difference, where)                            \
  do {                                                            \
    const auto found_difference = (difference);                   \
    EXPECT_FALSE(found_difference) << *found_difference << where; \
  } while (false)

struct Form {
  const char* name;
  Options options;
};

std::vector<Form> forms(int64_t kernel_size) {
  const std::vector<int64_t> sizes{kernel_size};
  std::vector<Form> all;
  for (const bool glu : {true, false}) {
    const Options options{{"kernel_sizes", sizes}, {"glu", glu}};
    const auto with = [&](const char* key, const OptionValue& value) {
      Options more = options;
      more[key] = value;
      return more;
    };
    all.push_back({"light_conv", options});
    all.push_back({"light_conv", with("weight_softmax", false)});
    all.push_back({"light_conv", with("conv_bias", true)});
    all.push_back({"dynamic_conv", options});
    all.push_back({"dynamic_conv", with("renorm_padding", true)});
    all.push_back({"dynamic_conv", with("conv_dim", int64_t{2 * kDim})});
  }
  return all;
}

std::string say(const Form& form) {
  std::string text = form.name;
  for (const auto& [key, value] : form.options) text += " " + key + " " + to_string(value);
  return text;
}

std::shared_ptr<TokenMixer> build(const Form& form, at::ScalarType type = at::kDouble) {
  at::manual_seed(3);
  MixerConfig config;
  config.dim = kDim;
  config.heads = kHeads;
  config.causal = true;
  auto mixer = make_mixer(form.name, config, form.options);
  const at::NoGradGuard off;
  for (auto& parameter : mixer->parameters()) parameter.add_(0.3 * at::randn_like(parameter));
  mixer->to(type);
  mixer->eval();
  return mixer;
}

Tensor in_pieces(TokenMixer& mixer, const Tensor& x, const std::vector<int64_t>& pieces) {
  const auto state = mixer.new_state(x.size(0));
  std::vector<Tensor> outputs;
  for (const int64_t piece : pieces) {
    outputs.push_back(mixer.step(x.narrow(1, state->length(), piece), *state));
  }
  return at::cat(outputs, 1);
}

TEST(ConvStep, EqualsTheWholePassForEveryLengthUpToTwiceTheKernel) {
  const at::NoGradGuard off;
  for (const int64_t kernel_size : {1, 2, 3, 4, 7, 16, 31}) {
    for (const Form& form : forms(kernel_size)) {
      const auto mixer = build(form);
      const Tensor x = normal({2, 2 * kernel_size, kDim}, kernel_size);
      const Tensor steps = in_pieces(*mixer, x, std::vector<int64_t>(2 * kernel_size, 1));
      for (int64_t time = 1; time <= 2 * kernel_size; ++time) {
        const Tensor whole = mixer->forward(x.narrow(1, 0, time), {});
        EXPECT_SAME(differs_by_more_than_rounding(steps.narrow(1, 0, time), whole),
                    ", " << say(form) << ", T " << time);
      }
    }
  }
}

TEST(ConvStep, EqualsTheWholePassInPiecesOfAnySize) {
  const at::NoGradGuard off;
  std::mt19937 random(11);
  for (const int64_t kernel_size : {1, 4, 7, 31, 90}) {
    for (const Form& form : forms(kernel_size)) {
      const auto mixer = build(form);
      const Tensor x = normal({3, 70, kDim}, kernel_size);
      const Tensor whole = mixer->forward(x, {});
      for (const int64_t longest : {3, 20, 70}) {
        std::vector<int64_t> pieces;
        for (int64_t left = 70; left > 0; left -= pieces.back()) {
          pieces.push_back(std::min<int64_t>(left, 1 + static_cast<int64_t>(random() % longest)));
        }
        EXPECT_SAME(differs_by_more_than_rounding(in_pieces(*mixer, x, pieces), whole),
                    ", " << say(form) << ", pieces up to " << longest);
      }
    }
  }
}

// Kernel logits and values of a step, and what a state makes of them.
struct Piece {
  Tensor values, logits;
};

std::vector<Piece> pieces_of(int64_t channels, int64_t heads, int64_t kernel_size, bool dynamic) {
  std::vector<Piece> pieces;
  for (const int64_t tokens : {1, 1, 3, 1, 40, 2}) {
    const int64_t seed = static_cast<int64_t>(pieces.size());
    pieces.push_back({normal({2, tokens, channels}, 50 + seed),
                      dynamic ? normal({2, tokens, heads, kernel_size}, 70 + seed)
                              : normal({heads, kernel_size}, 70)});
  }
  return pieces;
}

Tensor run(ConvState& state, const std::vector<Piece>& pieces, at::ScalarType type,
           ConvState::Step options, bool recorded) {
  std::vector<Tensor> outputs;
  if (options.conv_bias.defined()) options.conv_bias = options.conv_bias.to(type);
  for (const Piece& piece : pieces) {
    Tensor values = piece.values.to(type, /*non_blocking=*/false, /*copy=*/true);
    if (recorded) values.requires_grad_(true);
    outputs.push_back(state.step(values, piece.logits.to(type), options).detach());
  }
  return at::cat(outputs, 1);
}

// Every instruction set, dtype and width of a head, the kernel against the operators in float64.
TEST(ConvStep, KernelAndOperatorsAgree) {
  const kernels::Isa best = kernels::active_isa();
  for (const auto& [channels, heads] :
       std::vector<std::pair<int64_t, int64_t>>{{6, 6}, {10, 2}, {140, 2}, {64, 1}}) {
    for (const int64_t kernel_size : {1, 4, 31}) {
      for (const bool dynamic : {false, true}) {
        ConvState::Step options;
        options.renorm_padding = dynamic;
        options.conv_bias = normal({channels}, 5);
        const auto pieces = pieces_of(channels, heads, kernel_size, dynamic);
        for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf}) {
          // Both start from what the type can hold.
          std::vector<Piece> rounded;
          for (const Piece& piece : pieces) {
            rounded.push_back({piece.values.to(type), piece.logits.to(type)});
          }
          ConvState::Step exact_options = options;
          exact_options.conv_bias = options.conv_bias.to(type).to(at::kDouble);
          ConvState exact(2, kernel_size, channels, at::kDouble);
          const Tensor expected = run(exact, rounded, at::kDouble, exact_options, true);
          for (const kernels::Isa isa : kernels::available_isas()) {
            kernels::use_isa(isa);
            ConvState state(2, kernel_size, channels, type);
            const Tensor found = run(state, rounded, type, options, false);
            EXPECT_SAME(differs_by_more_than_rounding(found, expected),
                        ", " << kernels::name(isa) << ", " << type << ", C " << channels << ", K "
                             << kernel_size);
            EXPECT_SAME(differs_in_bits(state.ring(), exact.ring().to(type)), ", the ring");
          }
          kernels::use_isa(best);
        }
      }
    }
  }
}

TEST(ConvStep, GradientsAreThoseOfTheWholePass) {
  for (const Form& form : forms(5)) {
    const auto mixer = build(form);
    const Tensor grad = normal({2, 9, kDim}, 8);
    const auto gradients_by = [&](const std::function<Tensor(const Tensor&)>& pass) {
      const Tensor x = normal({2, 9, kDim}, 9).requires_grad_(true);
      mixer->zero_grad();
      pass(x).backward(grad);
      std::vector<Tensor> found{x.grad()};
      for (const Tensor& parameter : mixer->parameters()) found.push_back(parameter.grad().clone());
      return found;
    };
    const auto whole = gradients_by([&](const Tensor& x) { return mixer->forward(x, {}); });
    const auto steps = gradients_by([&](const Tensor& x) {
      const auto state = mixer->new_state(2);
      return mixer->step(x, *state);
    });
    ASSERT_EQ(steps.size(), whole.size());
    for (size_t i = 0; i < whole.size(); ++i) {
      EXPECT_SAME(differs_by_more_than_rounding(steps[i], whole[i]),
                  ", " << say(form) << ", " << i);
    }
  }
}

// Counts the blocks that torch's allocator hands out on this thread.
class Blocks : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t alloc_size, size_t, size_t, c10::Device) override {
    if (alloc_size > 0) ++count;
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t count = 0;
};

int64_t blocks_of(const std::function<void()>& call) {
  const auto blocks = std::make_shared<Blocks>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, blocks);
  call();
  return blocks->count;
}

TEST(ConvStep, AllocatesNothing) {
  const at::NoGradGuard off;
  ASSERT_GT(blocks_of([] { at::zeros({3}); }), 0);
  for (const bool dynamic : {false, true}) {
    ConvState state(2, 7, 8, at::kFloat);
    ConvState::Step options;
    options.conv_bias = at::ones({8});
    const void* ring = state.ring().const_data_ptr();
    const int64_t bytes = state.bytes();
    for (const int64_t tokens : {1, 1, 5, 1, 20, 1}) {
      const Tensor values = normal({2, tokens, 8}, 1).to(at::kFloat);
      const Tensor logits =
          (dynamic ? normal({2, tokens, 2, 7}, 2) : normal({2, 7}, 2)).to(at::kFloat);
      Tensor out;
      EXPECT_EQ(blocks_of([&] { out = state.step(values, logits, options); }), 0);
      EXPECT_EQ(out.const_data_ptr(), values.const_data_ptr());
      EXPECT_EQ(state.ring().const_data_ptr(), ring);
      EXPECT_EQ(state.bytes(), bytes);
    }
  }
}

// What a mixer's step allocates is what its projections and gate do.
TEST(ConvStep, TheMixerAllocatesForItsProjectionsOnly) {
  const at::NoGradGuard off;
  for (const char* name : {"light_conv", "dynamic_conv"}) {
    const auto mixer = build({name, {{"kernel_sizes", std::vector<int64_t>{7}}}}, at::kFloat);
    const auto parameters = mixer->named_parameters();
    const Tensor x = normal({2, 1, kDim}, 1).to(at::kFloat);
    const auto state = mixer->new_state(2);
    const int64_t projections = blocks_of([&] {
      const Tensor hidden = at::linear(x, parameters["in_proj.weight"], parameters["in_proj.bias"]);
      const Tensor values = at::glu(hidden, -1);
      if (const Tensor* weight = parameters.find("kernel_proj.weight")) at::linear(values, *weight);
      at::linear(values, parameters["out_proj.weight"], parameters["out_proj.bias"]);
    });
    for (int64_t step = 0; step < 20; ++step) {
      EXPECT_EQ(blocks_of([&] { mixer->step(x, *state); }), projections) << name << ", " << step;
    }
  }
}

TEST(ConvStep, ReorderReusesItsTwoRings) {
  const at::NoGradGuard off;
  ConvState state(3, 5, 4, at::kDouble);
  const Tensor values = normal({3, 4, 4}, 1);
  state.step(values.clone(), normal({2, 5}, 2), {});
  const Tensor index = at::tensor({2, 0, 0}, at::kLong);
  state.reorder(index);
  const int64_t bytes = state.bytes();
  EXPECT_SAME(differs_in_bits(state.ring(), values.index_select(0, index)), "");
  for (int64_t round = 0; round < 3; ++round) {
    EXPECT_EQ(blocks_of([&] { state.reorder(index); }), 0);
    EXPECT_EQ(state.bytes(), bytes);
  }
  state.reorder(at::tensor({1, 1, 0, 2}, at::kLong));
  EXPECT_EQ(state.batch(), 4);
}

TEST(ConvStep, HalfPrecisionFollowsTheWholePass) {
  const at::NoGradGuard off;
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
    for (const Form& form : forms(7)) {
      const auto mixer = build(form, type);
      const Tensor x = normal({2, 30, kDim}, 4).to(type);
      const Tensor whole = mixer->forward(x, {}), steps = in_pieces(*mixer, x, {1, 1, 9, 1, 18});
      mixer->to(at::kDouble);
      EXPECT_SAME(headloom::testing::worse_than_reference(steps, whole,
                                                          mixer->forward(x.to(at::kDouble), {})),
                  ", " << say(form) << ", " << type);
    }
  }
}

TEST(ConvStep, AutocastFollowsTheWholePass) {
  const at::NoGradGuard off;
  for (const Form& form : forms(7)) {
    const auto mixer = build(form, at::kFloat);
    const Tensor x = normal({2, 20, kDim}, 4).to(at::kFloat);
    at::autocast::set_autocast_enabled(at::kCPU, true);
    const Tensor whole = mixer->forward(x, {}), steps = in_pieces(*mixer, x, {1, 1, 9, 1, 8});
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCPU, false);
    EXPECT_EQ(steps.scalar_type(), whole.scalar_type());
    mixer->to(at::kDouble);
    EXPECT_SAME(headloom::testing::worse_than_reference(steps, whole,
                                                        mixer->forward(x.to(at::kDouble), {})),
                ", " << say(form));
  }
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no refusal";
}

TEST(ConvStep, RefusesTheStateOfAnotherMechanism) {
  const auto mixer = build({"light_conv", {}});
  MixerConfig config;
  config.dim = kDim;
  config.heads = kHeads;
  config.causal = true;
  const auto other = make_mixer("dot_product", config, {});
  const auto state = other->new_state(1);
  EXPECT_EQ(message_of([&] {
              mixer->step(normal({1, 1, kDim}, 1), *state);
            }),
            "mixer light_conv: expected a state of its own new_state(); found another mixer's "
            "state.");
}

TEST(ConvStep, RefusesChannelsThatTheHeadsDoNotDivide) {
  for (const int64_t channels : {-3, 0, 7}) {
    EXPECT_EQ(message_of([&] {
                build({"dynamic_conv", {{"conv_dim", channels}}});
              }),
              cat("mixer dynamic_conv: expected conv_dim to be a multiple of the 3 heads; found ",
                  channels, "."));
  }
}

TEST(ConvStep, AnInfiniteLogitOfATapBeforeTheFirstTokenReachesNothing) {
  const at::NoGradGuard off;
  ConvState state(1, 3, 2, at::kDouble);
  ConvState::Step raw;
  raw.weight_softmax = false;
  Tensor logits = at::ones({1, 3}, at::kDouble);
  logits[0][0] = INFINITY;
  const Tensor out = state.step(at::ones({1, 1, 2}, at::kDouble), logits, raw);
  EXPECT_SAME(differs_in_bits(out, at::ones({1, 1, 2}, at::kDouble)), "");
}

}  // namespace
}  // namespace headloom::conv_testing

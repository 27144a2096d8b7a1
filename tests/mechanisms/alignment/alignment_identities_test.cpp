// What the distances are by definition, on every instruction set; and the chunked form beside the
// kernels.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "headloom/kernels/isa.h"
#include "headloom/mechanisms/alignment/alignment.h"
#include "headloom/mechanisms/alignment/alignment_reference.h"
#include "tests/support/arguments.h"
#include "tests/support/closeness.h"

// B batch, H heads, M queries, N keys, r and p widths.
namespace headloom {
namespace {

using at::Tensor;
using testing::differs_by_more_than_rounding;
using testing::differs_from_golden;
using testing::normal;

Tensor unit(const Tensor& x) {
  return x / x.norm(2, -1, true);
}

struct Points {
  Tensor u = normal("u", {2, 3, 5, 4}), v = normal("v", {2, 3, 6, 4});
  Tensor f = unit(normal("f", {2, 3, 5, 3})), g = unit(normal("g", {2, 3, 6, 3}));
  Tensor loss(const TransportOptions& options = {}) const {
    return conditional_transport(u, v, f, g, options);
  }
};

// `scale` as in closeness.h.
::testing::AssertionResult close(const Tensor& found, const Tensor& expected, double scale = 0.0) {
  const auto difference = differs_by_more_than_rounding(found, expected, scale);
  return difference ? ::testing::AssertionFailure() << *difference : ::testing::AssertionSuccess();
}
::testing::AssertionResult golden(const Tensor& found, double expected) {
  const auto difference =
      differs_from_golden(found, at::full(found.sizes(), expected, at::kDouble));
  return difference ? ::testing::AssertionFailure() << *difference : ::testing::AssertionSuccess();
}

TEST(ConditionalTransport, OfOrthonormalPointsWithThemselvesIsNotZero) {
  const Tensor e = at::eye(2, at::kDouble).view({1, 1, 2, 2});
  for (const auto& [temperature, value] :
       {std::pair{1.0, 0.268941421370}, {0.5, 0.119202922022}, {0.25, 0.017986209962}}) {
    EXPECT_TRUE(golden(conditional_transport(e, e, e, e, {.temperature = temperature}), value));
  }
}

TEST(ConditionalTransport, WithoutNavigationIsTheMeanCost) {
  Points points;
  points.u.zero_();
  const Tensor mean = (1 - at::matmul(points.f, points.g.mT())).mean({2, 3});
  EXPECT_TRUE(close(points.loss(), mean));
}

TEST(ConditionalTransport, TurnsRoundWithTheSets) {
  const Points p;
  EXPECT_TRUE(
      close(conditional_transport(p.v, p.u, p.g, p.f, {.rho = 0.7}), p.loss({.rho = 1.0 - 0.7})));
}

TEST(ConditionalTransport, IsInvariantToOrderRepetitionAndRotation) {
  const Points p;
  Points shuffled = p, doubled = p, rotated = p;
  const Tensor order = at::tensor({4, 2, 0, 1, 3}, at::kLong);
  shuffled.u = p.u.index_select(2, order);
  shuffled.f = p.f.index_select(2, order);
  for (Tensor* x : {&doubled.u, &doubled.v, &doubled.f, &doubled.g}) *x = at::cat({*x, *x}, 2);
  const Tensor q = std::get<0>(at::linalg_qr(normal("rotation", {4, 4})));
  rotated.u = at::matmul(p.u, q);
  rotated.v = at::matmul(p.v, q);
  for (const Points& other : {shuffled, doubled, rotated}) {
    EXPECT_TRUE(close(other.loss(), p.loss()));
  }
}

TEST(ConditionalTransport, IsBetweenItsBounds) {
  const Points p;
  const Tensor cost = 1 - at::matmul(p.f, p.g.mT());
  const Tensor floor = (cost.amin(3).mean(2) + cost.amin(2).mean(2)) / 2;
  for (const double temperature : {2.0, 0.5, 0.05, 0.001}) {
    const Tensor loss = p.loss({.temperature = temperature});
    EXPECT_TRUE((loss >= floor - 1e-12).all().item<bool>()) << temperature;
    EXPECT_TRUE((loss <= 2.0).all().item<bool>()) << temperature;
  }
}

TEST(ConditionalTransport, MaskedPointsChangeNoBit) {
  const Points p;
  Points longer = p;
  longer.u = at::cat({p.u, normal("more u", {2, 3, 4, 4})}, 2);
  longer.f = at::cat({p.f, normal("more f", {2, 3, 4, 3})}, 2);
  const Tensor mask = at::cat({at::zeros({2, 5}, at::kBool), at::ones({2, 4}, at::kBool)}, 1);
  EXPECT_TRUE(at::equal(longer.loss({.query_mask = mask}), p.loss()));
}

TEST(SinkhornDivergence, OfTwoPointsIsKnown) {
  // Costs [[0, c], [c, 0]], uniform: sharp c / (1 + e^(c / eps)), regularised -eps ln((1 + e^(-c /
  // eps)) / 2).
  const Tensor e = at::eye(2, at::kDouble).view({1, 1, 2, 2});
  for (const double eps : {1.0, 0.5}) {
    SinkhornDivergenceOptions options{.eps = eps, .cost = "cosine", .debiased = false};
    EXPECT_TRUE(
        golden(sinkhorn_divergence(e, e, options), -eps * std::log((1 + std::exp(-1 / eps)) / 2)));
    options.sharp = true;
    EXPECT_TRUE(golden(sinkhorn_divergence(e, e, options), 1 / (1 + std::exp(1 / eps))));
  }
}

TEST(SinkhornDivergence, OfASetWithItselfIsZero) {
  const Tensor x = normal("x", {2, 2, 7, 3});
  SinkhornDivergenceOptions options{.eps = 0.5, .max_iter = 2000, .tol = 1e-13};
  EXPECT_TRUE(golden(sinkhorn_divergence(x, x, options) + 1.0, 1.0));
  EXPECT_TRUE(
      (sinkhorn_divergence(x, normal("y", {2, 2, 9, 3}), options) > 0.0).all().item<bool>());
}

TEST(SinkhornDivergence, SaysHowFarItGot) {
  const Tensor x = normal("x", {1, 1, 7, 3}), y = normal("y", {1, 1, 9, 3});
  const auto error_after = [&](int64_t iterations) {
    const SinkhornDivergenceOptions options{
        .eps = 0.3, .debiased = false, .max_iter = iterations, .tol = 1e-9};
    return std::get<1>(sinkhorn_divergence_with_error(x, y, options)).item<double>();
  };
  EXPECT_GT(error_after(1), error_after(5));
  EXPECT_GT(error_after(5), error_after(20));
  EXPECT_LE(error_after(100000), 1e-9);
}

TEST(MaximumMeanDiscrepancy, OfASetWithItselfIsZero) {
  const Tensor x = normal("x", {2, 2, 7, 3});
  EXPECT_TRUE(golden(maximum_mean_discrepancy(x, x) + 1.0, 1.0));
}

// Loss and gradients of the three operators by two roads.
struct Measured {
  std::vector<Tensor> tensors;

  template <class Function>
  void add(const std::vector<Tensor>& inputs, const Function& function) {
    std::vector<Tensor> leaves;
    for (const Tensor& x : inputs) leaves.push_back(x.detach().clone().requires_grad_(true));
    const Tensor value = function(leaves);
    const Tensor upstream = normal("upstream", value.sizes()).to(value.scalar_type());
    for (const Tensor& grad : torch::autograd::grad({value}, leaves, {upstream})) {
      tensors.push_back(grad);
    }
    tensors.push_back(value.detach());
  }
};

// Sizes that fill no panel, tile or range, and logits that need maxima of their own.
template <class Body>
void over_cases(at::ScalarType type, const Body& body) {
  for (const double scale : {1.0, 30.0}) {
    const auto make = [&](const char* name, at::IntArrayRef sizes, double factor) {
      return (normal(name, sizes) * factor).to(type);
    };
    body(std::vector{make("u", {1, 2, 37, 5}, scale), make("v", {1, 2, 83, 5}, 1.0),
                     make("f", {1, 2, 37, 18}, 1.0), make("g", {1, 2, 83, 18}, 1.0)});
  }
}

TEST(AlignmentKernels, AgreeWithTheReferenceOnEveryInstructionSet) {
  const kernels::Isa best = kernels::active_isa();
  for (const auto type : {at::kDouble, at::kFloat}) {
    over_cases(type, [&](const std::vector<Tensor>& x) {
      for (const bool euclidean : {false, true}) {
        const TransportCall call{.temperature = 1.0, .rho = 0.3, .euclidean = euclidean};
        Measured expected;
        std::vector<Tensor> wide;
        for (const Tensor& t : x) wide.push_back(t.to(at::kDouble));
        expected.add(
            wide, [&](const auto& t) { return transport_reference(t[0], t[1], t[2], t[3], call); });
        expected.add({wide[2], wide[3]},
                     [&](const auto& t) { return discrepancy_reference(t[0], t[1], {3.0}); });
        for (const kernels::Isa isa : kernels::available_isas()) {
          kernels::use_isa(isa);
          Measured found;
          found.add(x, [&](const auto& t) {
            return conditional_transport(t[0], t[1], t[2], t[3],
                                         {.rho = 0.3, .cost = euclidean ? "euclidean" : "cosine"});
          });
          found.add({x[2], x[3]}, [&](const auto& t) {
            return maximum_mean_discrepancy(t[0], t[1], {.bandwidth = 3.0});
          });
          for (size_t i = 0; i < found.tensors.size(); ++i) {
            EXPECT_TRUE(close(found.tensors[i], expected.tensors[i]))
                << kernels::name(isa) << ' ' << type << " tensor " << i;
          }
        }
        kernels::use_isa(best);
      }
    });
  }
}

TEST(AlignmentKernels, AgreeWithTheChunkedForm) {
  over_cases(at::kDouble, [&](const std::vector<Tensor>& x) {
    const Tensor query_mask = at::arange(37).remainder(3).eq(1).unsqueeze(0);
    const TransportCall call{.temperature = 0.7, .rho = 0.3, .query_mask = query_mask};
    const auto [loss, rows, columns] = transport_forward_cpu(x[0], x[1], x[2], x[3], call);
    const auto [chunked, chunk_rows, chunk_columns] =
        transport_forward_chunked(x[0], x[1], x[2], x[3], call);
    EXPECT_TRUE(close(chunked, loss));
    const Tensor grad = normal("grad", {1, 2});
    const auto a = transport_backward_cpu(grad, x[0], x[1], x[2], x[3], rows, columns, call);
    const auto b =
        transport_backward_chunked(grad, x[0], x[1], x[2], x[3], chunk_rows, chunk_columns, call);
    const double magnitude = 4.0;  // of the terms of a gradient, which cancel
    EXPECT_TRUE(close(std::get<0>(b), std::get<0>(a), magnitude));
    EXPECT_TRUE(close(std::get<1>(b), std::get<1>(a), magnitude));
    EXPECT_TRUE(close(std::get<2>(b), std::get<2>(a), magnitude));
    EXPECT_TRUE(close(std::get<3>(b), std::get<3>(a), magnitude));

    const DiscrepancyCall mean{.bandwidth = 3.0, .query_mask = query_mask};
    EXPECT_TRUE(close(discrepancy_chunked(x[2], x[3], mean), discrepancy_cpu(x[2], x[3], mean)));
    const auto c = discrepancy_backward_cpu(grad, x[2], x[3], mean);
    const auto d = discrepancy_backward_chunked(grad, x[2], x[3], mean);
    EXPECT_TRUE(close(std::get<0>(d), std::get<0>(c)));
    EXPECT_TRUE(close(std::get<1>(d), std::get<1>(c)));
  });
}

TEST(AlignmentKernels, SinkhornAgreesWithTheChunkedForm) {
  const Tensor x = normal("x", {2, 2, 11, 4}), y = normal("y", {2, 2, 7, 4});
  const Tensor grad = normal("grad", {2, 2});
  const Tensor mask = at::arange(22).view({2, 11}).remainder(4).eq(1);
  for (const bool cosine : {false, true}) {
    for (const bool implicit : {false, true}) {
      SinkhornCall call;
      call.options = {2.0, cosine, !implicit, implicit, implicit, 400, 0.0};
      call.query_mask = mask;
      const auto [value, state, error] = sinkhorn_forward_cpu(x, y, call);
      const auto [chunked, chunk_state, chunk_error] = sinkhorn_forward_chunked(x, y, call);
      EXPECT_TRUE(close(chunked, value));
      const auto a = sinkhorn_backward_cpu(grad, x, y, state, call);
      const auto b = sinkhorn_backward_chunked(grad, x, y, chunk_state, call);
      EXPECT_TRUE(close(std::get<0>(b), std::get<0>(a))) << cosine << implicit;
      EXPECT_TRUE(close(std::get<1>(b), std::get<1>(a))) << cosine << implicit;
    }
  }
}

}  // namespace
}  // namespace headloom

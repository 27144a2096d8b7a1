#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "headloom/mechanisms/alignment/alignment.h"
#include "headloom/mechanisms/alignment/alignment_reference.h"
#include "tests/support/conformance.h"

// B batch, H heads, M queries, N keys, r and p widths.
namespace headloom::testing {
namespace {

using at::Tensor;

struct Sizes {
  int64_t B = 2, H = 2, M = 7, N = 5, r = 4, p = 3;
};

const std::vector<std::string> kQueryRows = {"x..x..x", "......."};
const std::vector<std::string> kKeyRows = {".....", "x..xx"};

// Masks find the inputs that they apply to by name.
std::vector<Input> with_masks(std::vector<Input> inputs, const std::vector<Input>& masks) {
  for (const Input& mask : masks) {
    for (Input& input : inputs) {
      const bool query = input.name == "u" || input.name == "f" || input.name == "x";
      if (query == (mask.name == "query_mask")) input = input.padded(mask.name);
    }
  }
  inputs.insert(inputs.end(), masks.begin(), masks.end());
  return inputs;
}

Tensor is_empty(const Arguments& a) {
  Tensor empty = at::zeros({1}, at::kBool);
  for (const char* name : {"query_mask", "key_mask"}) {
    if (a.has(name)) empty = empty.logical_or(a[name].all(1));
  }
  return empty.unsqueeze(1);  // [B, 1]
}

// Conditional transport.

TransportCall transport_call(const Arguments& a) {
  return {a.number("temperature", 1.0), a.number("rho", 0.5), a.text("cost") == "euclidean",
          a.optional("query_mask"), a.optional("key_mask")};
}

std::vector<Tensor> run_transport(const Arguments& a) {
  TransportOptions options;
  options.temperature = a.number("temperature", 1.0);
  options.rho = a.number("rho", 0.5);
  options.cost = a.text("cost", "cosine");
  options.query_mask = a.optional("query_mask");
  options.key_mask = a.optional("key_mask");
  return {conditional_transport(a["u"], a["v"], a["f"], a["g"], options)};
}

Case transport_case(const std::string& id, const Sizes& s, Options options = {},
                    const std::vector<Input>& masks = {}) {
  Case c{.id = id, .inputs = {}, .options = std::move(options)};
  c.inputs =
      with_masks({tokens("u", {s.B, s.H, s.M, s.r}, 2), tokens("v", {s.B, s.H, s.N, s.r}, 2),
                  tokens("f", {s.B, s.H, s.M, s.p}, 2), tokens("g", {s.B, s.H, s.N, s.p}, 2)},
                 masks);
  if (id == "nothing_left") c.nothing_to_attend = is_empty;
  return c;
}

std::vector<Refusal> transport_refusals() {
  return {
      {"rank",
       [] {
         const Tensor x = at::ones({3});
         conditional_transport(x, x, x, x);
       },
       {"u of shape"}},
      {"widths",
       [] {
         conditional_transport(at::ones({1, 1, 2, 3}), at::ones({1, 1, 2, 4}),
                               at::ones({1, 1, 2, 3}), at::ones({1, 1, 2, 3}));
       },
       {"v of shape"}},
      {"temperature",
       [] {
         const Tensor x = at::ones({1, 1, 2, 3});
         conditional_transport(x, x, x, x, {.temperature = 0.0});
       },
       {"temperature above 0"}},
      {"rho",
       [] {
         const Tensor x = at::ones({1, 1, 2, 3});
         conditional_transport(x, x, x, x, {.rho = 1.5});
       },
       {"rho between 0 and 1"}},
      {"cost",
       [] {
         const Tensor x = at::ones({1, 1, 2, 3});
         conditional_transport(x, x, x, x, {.cost = "manhattan"});
       },
       {"\"cosine\" or \"euclidean\"", "manhattan"}},
  };
}

Operator transport() {
  const Input queries = padding("query_mask", kQueryRows), keys = padding("key_mask", kKeyRows);
  const Options euclidean{{"cost", std::string("euclidean")}};
  Operator op;
  op.name = "conditional_transport";
  op.run = run_transport;
  op.reference = [](const Arguments& a) {
    return std::vector{transport_reference(a["u"], a["v"], a["f"], a["g"], transport_call(a))};
  };
  op.cases = {
      transport_case("plain", {}),
      transport_case("cold", {}, {{"temperature", 0.1}, {"rho", 0.3}}),
      transport_case("euclidean", {}, euclidean),
      transport_case("euclidean_cold", {},
                     {{"cost", std::string("euclidean")}, {"temperature", 0.05}}),
      transport_case("one_way", {.H = 1}, {{"rho", 1.0}}),
      transport_case("other_way", {.H = 1}, {{"rho", 0.0}}),
      transport_case("one_pair", {.M = 1, .N = 1}),
      transport_case("no_heads", {.H = 0}),
      transport_case("masked", {}, {}, {queries, keys}),
      transport_case("masked_queries_cold", {}, {{"temperature", 0.1}}, {queries}),
      transport_case("masked_euclidean", {}, euclidean, {queries, keys}),
      transport_case("nothing_left", {}, {}, {padding("query_mask", {"xxxxxxx", "......."})}),
      transport_case("tiles", {.B = 1, .H = 1, .M = 70, .N = 131, .r = 16, .p = 17}),
      transport_case("ranges", {.B = 1, .H = 1, .M = 530, .N = 9, .r = 3, .p = 2}),
  };
  op.golden = "conditional_transport.txt";
  op.of_length = [](int64_t n) { return transport_case("", {.B = 1, .H = 1, .M = n, .N = n}); };
  op.refusals = transport_refusals();
  op.large = {
      transport_case("both_ways", {.B = 1, .H = 1, .M = 65536, .N = 65536, .r = 16, .p = 16})};
  return op;
}

// The other two.

std::vector<Input> pair_inputs(const Sizes& s, const std::vector<Input>& masks) {
  return with_masks({tokens("x", {s.B, s.H, s.M, s.r}, 2), tokens("y", {s.B, s.H, s.N, s.r}, 2)},
                    masks);
}

SinkhornDivergenceOptions sinkhorn_options(const Arguments& a) {
  SinkhornDivergenceOptions options;
  options.eps = a.number("eps", 1.0);
  options.cost = a.text("cost", "half_squared");
  options.debiased = a.flag("debiased", true);
  options.sharp = a.flag("sharp", false);
  options.gradient = a.text("gradient", "envelope");
  options.max_iter = a.integer("max_iter", 200);
  options.tol = a.number("tol", 0.0);
  options.query_mask = a.optional("query_mask");
  options.key_mask = a.optional("key_mask");
  return options;
}

SinkhornCall sinkhorn_call(const Arguments& a) {
  const SinkhornDivergenceOptions o = sinkhorn_options(a);
  return {
      {o.eps, o.cost == "cosine", o.debiased, o.sharp, o.gradient == "implicit", o.max_iter, o.tol},
      o.query_mask,
      o.key_mask};
}

Case pair_case(const std::string& id, const Sizes& s, Options options = {},
               const std::vector<Input>& masks = {}) {
  Case c{.id = id, .inputs = pair_inputs(s, masks), .options = std::move(options)};
  if (id == "nothing_left") c.nothing_to_attend = is_empty;
  return c;
}

std::vector<Refusal> sinkhorn_refusals() {
  return {
      {"eps",
       [] {
         sinkhorn_divergence(at::ones({1, 1, 2, 3}), at::ones({1, 1, 2, 3}), {.eps = 0.0});
       },
       {"eps above 0"}},
      {"iterations",
       [] {
         sinkhorn_divergence(at::ones({1, 1, 2, 3}), at::ones({1, 1, 2, 3}), {.max_iter = 0});
       },
       {"max_iter of at least 1"}},
      {"tolerance",
       [] {
         sinkhorn_divergence(at::ones({1, 1, 2, 3}), at::ones({1, 1, 2, 3}), {.tol = -1.0});
       },
       {"tol of at least 0"}},
      {"gradient",
       [] {
         sinkhorn_divergence(at::ones({1, 1, 2, 3}), at::ones({1, 1, 2, 3}),
                             {.gradient = "unrolled"});
       },
       {"\"envelope\" or \"implicit\"", "unrolled"}},
      {"mask",
       [] {
         sinkhorn_divergence(at::ones({1, 1, 2, 3}), at::ones({1, 1, 2, 3}),
                             {.query_mask = at::zeros({1, 3}, at::kBool)});
       },
       {"query_mask of shape"}},
  };
}

Operator sinkhorn() {
  const Input queries = padding("query_mask", kQueryRows), keys = padding("key_mask", kKeyRows);
  const Options sharp{{"sharp", true}, {"debiased", false}, {"gradient", std::string("implicit")}};
  const Options cosine{{"cost", std::string("cosine")}, {"eps", 2.0}};
  Operator op;
  op.name = "sinkhorn_divergence";
  op.run = [](const Arguments& a) {
    return std::vector{sinkhorn_divergence(a["x"], a["y"], sinkhorn_options(a))};
  };
  op.reference = [](const Arguments& a) {
    return std::vector{sinkhorn_reference(a["x"], a["y"], sinkhorn_call(a))};
  };
  op.cases = {
      pair_case("debiased", {}),
      pair_case("biased", {}, {{"debiased", false}}),
      pair_case("cosine", {}, cosine),
      pair_case("sharp_implicit", {}, sharp),
      pair_case("sharp_implicit_debiased", {},
                {{"sharp", true}, {"gradient", std::string("implicit")}, {"eps", 3.0}}),
      pair_case("masked", {}, {}, {queries, keys}),
      pair_case("masked_sharp", {}, sharp, {queries, keys}),
      pair_case("nothing_left", {}, {}, {padding("key_mask", {"xxxxx", "....."})}),
      pair_case("one_pair", {.M = 1, .N = 1}),
      pair_case("tiles", {.B = 1, .H = 1, .M = 70, .N = 67, .r = 9}, {{"eps", 4.0}}),
  };
  op.golden = "sinkhorn_divergence.txt";
  op.of_length = [](int64_t n) {
    return pair_case("", {.B = 1, .H = 1, .M = n, .N = n}, {{"max_iter", int64_t{20}}});
  };
  op.double_backward = DoubleBackward::kRefused;
  op.refusals = sinkhorn_refusals();
  op.large = {pair_case("few_iterations", {.B = 1, .H = 1, .M = 65536, .N = 65536, .r = 16},
                        {{"max_iter", int64_t{2}}, {"debiased", false}, {"eps", 8.0}})};
  return op;
}

Operator discrepancy() {
  const Input queries = padding("query_mask", kQueryRows), keys = padding("key_mask", kKeyRows);
  const auto options = [](const Arguments& a) {
    return DiscrepancyOptions{a.number("bandwidth", 1.0), a.optional("query_mask"),
                              a.optional("key_mask")};
  };
  Operator op;
  op.name = "maximum_mean_discrepancy";
  op.run = [options](const Arguments& a) {
    return std::vector{maximum_mean_discrepancy(a["x"], a["y"], options(a))};
  };
  op.reference = [](const Arguments& a) {
    const DiscrepancyCall call{a.number("bandwidth", 1.0), a.optional("query_mask"),
                               a.optional("key_mask")};
    return std::vector{discrepancy_reference(a["x"], a["y"], call)};
  };
  op.cases = {
      pair_case("plain", {}),
      pair_case("wide", {}, {{"bandwidth", 3.0}}),
      pair_case("masked", {}, {}, {queries, keys}),
      pair_case("nothing_left", {}, {}, {padding("key_mask", {"xxxxx", "....."})}),
      pair_case("tiles", {.B = 1, .H = 1, .M = 70, .N = 67, .r = 9}, {{"bandwidth", 3.0}}),
  };
  op.golden = "maximum_mean_discrepancy.txt";
  op.of_length = [](int64_t n) { return pair_case("", {.B = 1, .H = 1, .M = n, .N = n}); };
  op.refusals = {
      {"bandwidth",
       [] {
         maximum_mean_discrepancy(at::ones({1, 1, 2, 3}), at::ones({1, 1, 2, 3}),
                                  {.bandwidth = -1.0});
       },
       {"bandwidth above 0"}},
  };
  op.large = {pair_case("both_sets", {.B = 1, .H = 1, .M = 65536, .N = 65536, .r = 16})};
  return op;
}

const bool kTransport = join(transport());
const bool kSinkhorn = join(sinkhorn());
const bool kDiscrepancy = join(discrepancy());

}  // namespace
}  // namespace headloom::testing

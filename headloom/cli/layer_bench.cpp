#include "headloom/cli/layer_bench.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>

#include "headloom/base/check.h"
#include "headloom/mechanisms/registry.h"
#include "headloom/report/statistics.h"

namespace headloom::cli {
namespace {

using at::Tensor;

// A layer that is ready to be called.
struct Layer {
  LayerRow row;
  std::function<Tensor(const Tensor&)> forward;  // [B, T, C] -> [B, T, C]
  std::vector<Tensor> parameters;
};

double peak_gflops() {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("headloom::fma_peak_gflops", "")
                             .typed<double(int64_t, double)>();
  return op.call(at::get_num_threads(), 0.3);
}

// Multi-head attention as people write it: one projection to queries, keys and values, torch's own
// attention, and a projection back.
Layer torch_layer(const train::Recipe& recipe, const LayerBenchPlan& plan, at::ScalarType type) {
  const int64_t dim = recipe.model.dim, heads = recipe.model.heads;
  const double scale = 1.0 / std::sqrt(static_cast<double>(dim));
  const auto weight = [&](at::IntArrayRef sizes) {
    return (at::randn(sizes) * scale).to(type).requires_grad_();
  };
  const Tensor in = weight({3 * dim, dim}), in_bias = weight({3 * dim});
  const Tensor out = weight({dim, dim}), out_bias = weight({dim});
  Layer layer;
  layer.row.name = "torch";
  const auto width = static_cast<double>(dim), tokens = static_cast<double>(plan.length);
  layer.row.flops = tokens * (8.0 * width * width + 4.0 * tokens * width);
  layer.parameters = {in, in_bias, out, out_bias};
  const bool causal = plan.causal;
  layer.forward = [=](const Tensor& x) {
    const int64_t batch = x.size(0), time = x.size(1);
    const Tensor all = at::linear(x, in, in_bias)
                           .view({batch, time, 3, heads, dim / heads})
                           .permute({2, 0, 3, 1, 4});
    const Tensor attended =
        at::scaled_dot_product_attention(all[0], all[1], all[2], {}, 0.0, causal);
    return at::linear(attended.transpose(1, 2).reshape({batch, time, dim}), out, out_bias);
  };
  return layer;
}

Layer mixer_layer(const train::Recipe& recipe, const std::string& name, const LayerBenchPlan& plan,
                  at::ScalarType type) {
  const train::Recipe own = train::variant_recipe(recipe, name);
  MixerConfig config;
  config.dim = own.model.dim;
  config.heads = own.model.heads;
  config.causal = plan.causal;
  config.layers = own.model.layers;
  config.layer = config.layers - 1;  // where mechanisms that differ by depth have their widest form
  const std::shared_ptr<TokenMixer> mixer =
      make_mixer(own.model.mixer, config, own.model.mixer_options);
  mixer->to(type);
  Layer layer;
  layer.row.name = name;
  layer.row.flops = mixer->flops(plan.length);
  layer.parameters = mixer->parameters();
  layer.forward = [mixer](const Tensor& x) { return mixer->forward(x, {}); };
  return layer;
}

// Calls, timed in turn: what disturbs the machine for a while disturbs all of them.
class Timer {
 public:
  void add(double* median_ms, std::function<void()> call) {
    calls_.push_back({median_ms, std::move(call), 0.0, {}});
  }

  void run(int64_t rounds, double seconds) {
    for (Call& call : calls_) {
      call.body();
      call.once = std::max(time(call, 1), 1e-6);
    }
    for (int64_t round = 0; round < rounds; ++round) {
      for (Call& call : calls_) {
        const double share = seconds / static_cast<double>(rounds) / call.once;
        call.samples.push_back(time(call, std::max<int64_t>(1, static_cast<int64_t>(share))));
      }
    }
    for (Call& call : calls_) *call.median_ms = 1e3 * report::median(call.samples);
  }

 private:
  struct Call {
    double* median_ms;
    std::function<void()> body;
    double once;  // seconds
    std::vector<double> samples;
  };

  // Seconds of one call, over `repeats` of them.
  static double time(const Call& call, int64_t repeats) {
    const auto begin = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < repeats; ++i) call.body();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    return taken.count() / static_cast<double>(repeats);
  }

  std::vector<Call> calls_;
};

void measure(std::vector<Layer>& layers, const LayerBenchPlan& plan, const Tensor& x,
             const Tensor& grad) {
  Timer forward, both;
  for (Layer& layer : layers) {
    forward.add(&layer.row.times.forward_ms, [&] {
      const at::NoGradGuard no_graph;
      layer.forward(x);
    });
    both.add(&layer.row.times.both_ms, [&] {
      std::vector<Tensor> inputs = layer.parameters;
      inputs.push_back(x);
      torch::autograd::grad({layer.forward(x)}, inputs, {grad}, /*retain_graph=*/false,
                            /*create_graph=*/false, /*allow_unused=*/true);
    });
  }
  forward.run(plan.rounds, plan.seconds);
  both.run(plan.rounds, plan.seconds);
}

}  // namespace

LayerBench run_layer_bench(const train::Recipe& recipe, const LayerBenchPlan& plan) {
  HEADLOOM_CHECK(plan.batch >= 1 && plan.length >= 1 && plan.rounds >= 1 && plan.seconds > 0.0,
                 "bench", "a batch, length and rounds of at least 1 and seconds above 0",
                 cat("batch ", plan.batch, ", length ", plan.length, ", rounds ", plan.rounds,
                     ", seconds ", plan.seconds));
  const at::ScalarType type = plan.type == "bfloat16" ? at::kBFloat16 : at::kFloat;
  at::manual_seed(plan.seed);
  const Tensor x = at::randn({plan.batch, plan.length, recipe.model.dim}).to(type);
  const Tensor grad = at::randn_like(x);
  x.requires_grad_();
  std::vector<Layer> layers{torch_layer(recipe, plan, type)};
  for (const std::string& name : recipe.compare.mechanisms) {
    layers.push_back(mixer_layer(recipe, name, plan, type));
  }
  LayerBench bench{plan, recipe.model.dim, recipe.model.heads, peak_gflops(), {}};
  measure(layers, plan, x, grad);
  for (Layer& layer : layers) {
    layer.row.flops *= static_cast<double>(plan.batch);
    for (const Tensor& parameter : layer.parameters) layer.row.parameters += parameter.numel();
    bench.rows.push_back(std::move(layer.row));
  }
  return bench;
}

}  // namespace headloom::cli

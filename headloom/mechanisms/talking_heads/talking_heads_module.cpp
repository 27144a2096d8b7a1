#include "headloom/mechanisms/talking_heads/talking_heads_module.h"

#include <torch/nn/init.h>

#include <algorithm>
#include <cmath>

#include "headloom/base/check.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;

constexpr const char* kMixer = "mixer talking_heads";

// [B, T, heads width] -> [B, heads, T, width]
Tensor split_heads(const Tensor& x, int64_t heads) {
  return x.unflatten(2, {heads, x.size(2) / heads}).transpose(1, 2);
}

// Room for a sequence along one axis; it doubles, so that a step writes in place.
class Grown {
 public:
  explicit Grown(int64_t axis) : axis_(axis) {}

  void append(const Tensor& more, int64_t length) {
    const int64_t needed = length + more.size(axis_);
    if (!room_.defined() || needed > room_.size(axis_)) {
      std::vector<int64_t> sizes = more.sizes().vec();
      sizes[axis_] = std::max<int64_t>(16, 2 * needed);
      const Tensor larger = at::empty(sizes, more.options());
      if (length > 0) larger.narrow(axis_, 0, length).copy_(room_.narrow(axis_, 0, length));
      room_ = larger;
    }
    room_.narrow(axis_, length, more.size(axis_)).copy_(more);
  }
  Tensor first(int64_t length) const {
    return room_.defined() ? room_.narrow(axis_, 0, length) : Tensor();
  }
  void reorder(const Tensor& index) {
    if (room_.defined()) room_ = room_.index_select(0, index);
  }
  int64_t bytes() const { return room_.defined() ? static_cast<int64_t>(room_.nbytes()) : 0; }

 private:
  int64_t axis_;
  Tensor room_;
};

// Keys, values and what the keys add to the mixes: a query to come needs each key's own.
class TalkingHeadsState : public MixerState {
 public:
  void append(const Tensor& k, const Tensor& v, const Tensor& m2l, const Tensor& m2w) {
    keys.append(k, length_);
    values.append(v, length_);
    if (m2l.defined()) logits_by_key.append(m2l, length_);
    if (m2w.defined()) weights_by_key.append(m2w, length_);
    length_ += k.size(2);
  }
  void reorder(const Tensor& index) override {
    for (Grown* part : {&keys, &values, &logits_by_key, &weights_by_key}) part->reorder(index);
  }
  int64_t length() const override { return length_; }
  int64_t bytes() const override {
    return keys.bytes() + values.bytes() + logits_by_key.bytes() + weights_by_key.bytes();
  }

  Grown keys{2}, values{2}, logits_by_key{1}, weights_by_key{1};

 private:
  int64_t length_ = 0;
};

const RegisterMechanism kRegister({
    "talking_heads",
    "attention whose heads mix their logits and their weights",
    "Shazeer et al., Talking-Heads Attention, 2020",
    "init (paper): paper, or identity, which equals plain attention\n"
    "mixing (both): both, logits, weights or none, which heads talk\n"
    "groups (1): groups of heads that do not talk to each other\n"
    "dynamic (none): dynamic projections, some of x2l,m2l,x2w,m2w\n"
    "key_heads, value_heads (heads): heads of keys and of values\n"
    "key_width, value_width (dim / heads): widths of a key and of a value\n"
    "relative_bias (none): none or t5, a bias by distance in buckets\n"
    "buckets (32), max_distance (128): of relative_bias\n"
    "dropout_site (after_mix): after_mix, before_mix or per_key\n"
    "scale (by init): folded into the queries' initial values, or explicit, 1 / sqrt(key_width)\n"
    "bias (by init): whether the projections have biases; false for paper",
    [](const MixerConfig& config, OptionReader& options) {
      return std::make_shared<TalkingHeadsMixer>(config, options);
    },
});

std::vector<std::string> split_names(const std::string& text) {
  static const std::vector<std::string> kNames{"x2l", "m2l", "x2w", "m2w"};
  std::vector<std::string> names;
  if (text == "none") return names;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    names.push_back(text.substr(begin, comma - begin));
    HEADLOOM_CHECK(std::find(kNames.begin(), kNames.end(), names.back()) != kNames.end(), kMixer,
                   "dynamic = \"none\" or some of \"x2l,m2l,x2w,m2w\"", cat('"', text, '"'));
    begin = comma + 1;
  }
  return names;
}

// Normal numbers cut at two standard deviations, not rescaled.
void truncated_normal(Tensor weight, double variance) {
  const torch::NoGradGuard no_grad;
  const double limit = std::erf(2.0 / std::sqrt(2.0));
  weight.uniform_(-limit, limit).erfinv_().mul_(std::sqrt(2.0 * variance));
}

}  // namespace

TalkingHeadsMixer::TalkingHeadsMixer(const MixerConfig& config, OptionReader& options)
    : config_(config) {
  read(options);
  make_parameters();
  init_ == "paper" ? initialise_as_paper() : initialise_as_identity();
}

void TalkingHeadsMixer::read(OptionReader& options) {
  init_ = options.choice("init", "paper", {"paper", "identity"});
  const bool paper = init_ == "paper";
  mixing_ = options.choice("mixing", "both", {"both", "logits", "weights", "none"});
  groups_ = options.integer("groups", 1);
  dynamic_ = split_names(options.text("dynamic", "none"));
  key_heads_ = options.integer("key_heads", config_.heads);
  value_heads_ = options.integer("value_heads", config_.heads);
  key_width_ = options.integer("key_width", config_.dim / config_.heads);
  value_width_ = options.integer("value_width", config_.dim / config_.heads);
  relative_kind_ = options.choice("relative_bias", "none", {"none", "t5"});
  buckets_ = options.integer("buckets", 32);
  max_distance_ = options.integer("max_distance", 128);
  dropout_site_ =
      options.choice("dropout_site", "after_mix", {"after_mix", "before_mix", "per_key"});
  folded_scale_ =
      options.choice("scale", paper ? "folded" : "explicit", {"folded", "explicit"}) == "folded";
  bias_ = options.boolean("bias", !paper);

  const int64_t heads = config_.heads;
  const auto found = cat("key_heads = ", key_heads_, ", heads = ", heads,
                         ", value_heads = ", value_heads_, ", groups = ", groups_);
  HEADLOOM_CHECK(key_heads_ >= 1 && value_heads_ >= 1 && key_width_ >= 1 && value_width_ >= 1,
                 kMixer, "heads and widths of 1 or more",
                 cat(found, ", key_width = ", key_width_, ", value_width = ", value_width_));
  HEADLOOM_CHECK(groups_ >= 1 && key_heads_ % groups_ == 0 && heads % groups_ == 0 &&
                     value_heads_ % groups_ == 0,
                 kMixer, "groups that divide the counts of heads", found);
  HEADLOOM_CHECK(buckets_ >= 4 && buckets_ % 4 == 0 && max_distance_ > buckets_ / 2, kMixer,
                 "buckets a multiple of 4 and max_distance above half of them",
                 cat("buckets = ", buckets_, ", max_distance = ", max_distance_));
  const bool mixes_logits = mixing_ == "both" || mixing_ == "logits";
  const bool mixes_weights = mixing_ == "both" || mixing_ == "weights";
  HEADLOOM_CHECK((mixes_logits || key_heads_ == heads) && (mixes_weights || value_heads_ == heads),
                 kMixer, "equal counts of heads where they are not mixed",
                 cat(found, ", mixing = \"", mixing_, '"'));
  HEADLOOM_CHECK(paper || (key_heads_ == heads && value_heads_ == heads), kMixer,
                 "equal counts of heads with init = \"identity\"", found);
  for (const std::string& name : dynamic_) {
    HEADLOOM_CHECK(name[2] == 'l' ? mixes_logits : mixes_weights, kMixer,
                   cat("a mix that ", name, " adds to"), cat("mixing = \"", mixing_, '"'));
  }
}

std::vector<int64_t> TalkingHeadsMixer::mix_shape(int64_t in, int64_t out) const {
  if (groups_ == 1) return {in, out};
  return {groups_, in / groups_, out / groups_};
}

Linear TalkingHeadsMixer::dynamic(const char* name, int64_t in, int64_t out) {
  if (std::find(dynamic_.begin(), dynamic_.end(), name) == dynamic_.end()) return nullptr;
  return register_module(
      name, Linear(torch::nn::LinearOptions(config_.dim, in * out / groups_).bias(false)));
}

void TalkingHeadsMixer::make_parameters() {
  const int64_t dim = config_.dim, heads = config_.heads;
  const auto linear = [&](const char* name, int64_t in, int64_t out) {
    return register_module(name, Linear(torch::nn::LinearOptions(in, out).bias(bias_)));
  };
  q_proj_ = linear("q_proj", dim, key_heads_ * key_width_);
  k_proj_ = linear("k_proj", dim, key_heads_ * key_width_);
  v_proj_ = linear("v_proj", dim, value_heads_ * value_width_);
  out_proj_ = linear("out_proj", value_heads_ * value_width_, dim);
  if (mixing_ == "both" || mixing_ == "logits") {
    logits_proj_ = register_parameter("logits_proj", at::zeros(mix_shape(key_heads_, heads)));
  }
  if (mixing_ == "both" || mixing_ == "weights") {
    weights_proj_ = register_parameter("weights_proj", at::zeros(mix_shape(heads, value_heads_)));
  }
  x2l_ = dynamic("x2l", key_heads_, heads);
  m2l_ = dynamic("m2l", key_heads_, heads);
  x2w_ = dynamic("x2w", heads, value_heads_);
  m2w_ = dynamic("m2w", heads, value_heads_);
  if (relative_kind_ == "t5") {
    relative_bias_ = register_parameter("relative_bias", at::zeros({heads, buckets_}));
  }
}

void TalkingHeadsMixer::initialise_as_paper() {
  const double dim = static_cast<double>(config_.dim), heads = static_cast<double>(config_.heads);
  const double key_heads = static_cast<double>(key_heads_);
  const double key_width = folded_scale_ ? static_cast<double>(key_width_) : 1.0;
  const torch::NoGradGuard no_grad;
  truncated_normal(q_proj_->weight, 1.0 / (key_width * dim));
  truncated_normal(k_proj_->weight, 1.0 / dim);
  truncated_normal(v_proj_->weight, 1.0 / dim);
  truncated_normal(out_proj_->weight, 1.0 / static_cast<double>(value_heads_ * value_width_));
  for (const auto& projection : {q_proj_, k_proj_, v_proj_, out_proj_}) {
    if (bias_) projection->bias.zero_();
  }
  if (logits_proj_.defined()) truncated_normal(logits_proj_, 1.0 / key_heads);
  if (weights_proj_.defined()) truncated_normal(weights_proj_, 1.0 / heads);
  for (const auto& projection : {x2l_, m2l_}) {
    if (projection) truncated_normal(projection->weight, 1e-2 / (key_heads * dim));
  }
  for (const auto& projection : {x2w_, m2w_}) {
    if (projection) truncated_normal(projection->weight, 1e-2 / (heads * dim));
  }
  if (relative_bias_.defined()) truncated_normal(relative_bias_, 1.0 / dim);
}

void TalkingHeadsMixer::initialise_as_identity() {
  const torch::NoGradGuard no_grad;
  for (const auto& projection : {q_proj_, k_proj_, v_proj_, out_proj_}) {
    torch::nn::init::xavier_uniform_(projection->weight);
    if (bias_) projection->bias.zero_();
  }
  for (const Tensor& mix : {logits_proj_, weights_proj_}) {
    if (mix.defined()) mix.copy_(at::eye(mix.size(-1)).expand_as(mix));
  }
  for (const auto& projection : {x2l_, m2l_, x2w_, m2w_}) {
    if (projection) projection->weight.zero_();
  }
}

Tensor t5_buckets(const Tensor& relative_position, bool causal, int64_t buckets,
                  int64_t max_distance) {
  Tensor first = at::zeros_like(relative_position), distance = -relative_position;
  if (causal) {
    distance = distance.clamp_min(0);
  } else {
    buckets /= 2;
    first = (relative_position > 0).to(at::kLong) * buckets;
    distance = distance.abs();
  }
  const int64_t exact = buckets / 2;
  const double step = static_cast<double>(buckets - exact) /
                      std::log(static_cast<double>(max_distance) / static_cast<double>(exact));
  const Tensor far = (distance.to(at::kDouble) / static_cast<double>(exact)).log() * step;
  const Tensor large =
      (far.clamp(0.0, static_cast<double>(buckets)).to(at::kLong) + exact).clamp_max(buckets - 1);
  return first + at::where(distance < exact, distance, large);
}

// [H, Tq + Tk - 1]: see relative_bias in talking_heads.h. Query i stands at position i + Tk - Tq.
Tensor TalkingHeadsMixer::relative(int64_t queries, int64_t keys) const {
  const auto positions = at::TensorOptions().dtype(at::kLong).device(relative_bias_.device());
  const Tensor place = at::arange(std::max<int64_t>(0, queries + keys - 1), positions);
  const Tensor buckets = t5_buckets(queries - 1 - place, config_.causal, buckets_, max_distance_);
  return relative_bias_.index_select(1, buckets);
}

TalkingHeadsMixer::Memory TalkingHeadsMixer::remember(const Tensor& memory) {
  const auto by_key = [&](Linear& projection, int64_t in, int64_t out) {
    return projection ? projection(memory).unflatten(2, mix_shape(in, out)) : Tensor();
  };
  return {split_heads(k_proj_(memory), key_heads_), split_heads(v_proj_(memory), value_heads_),
          by_key(m2l_, key_heads_, config_.heads), by_key(m2w_, config_.heads, value_heads_)};
}

Tensor TalkingHeadsMixer::attend(const Tensor& x, const Memory& memory, TalkingHeadsOptions options,
                                 const Tensor& query_padding) {
  const auto by_query = [&](Linear& projection, int64_t in, int64_t out) {
    return projection ? std::optional(projection(x).unflatten(2, mix_shape(in, out)))
                      : std::nullopt;
  };
  options.logits_proj = as_optional(logits_proj_);
  options.weights_proj = as_optional(weights_proj_);
  options.x2l = by_query(x2l_, key_heads_, config_.heads);
  options.x2w = by_query(x2w_, config_.heads, value_heads_);
  options.m2l = as_optional(memory.m2l);
  options.m2w = as_optional(memory.m2w);
  if (folded_scale_) options.scale = 1.0;
  options.dropout_p = dropout();
  options.dropout_site = dropout_site_;
  const Tensor q = split_heads(q_proj_(x), key_heads_);
  note(is_training(), {q, memory.k, query_padding, value_or_undefined(options.key_padding_mask),
                       value_or_undefined(options.cu_seqlens_k)});
  const Tensor mixed = talking_heads_attention(q, memory.k, memory.v, options);  // [B, V, T, E]
  return out_proj_(mixed.transpose(1, 2).flatten(2));
}

Tensor TalkingHeadsMixer::forward(const Tensor& x, const Masks& masks) {
  TalkingHeadsOptions options;
  options.key_padding_mask = as_optional(masks.key_padding_mask);
  options.cu_seqlens_q = options.cu_seqlens_k = as_optional(masks.cu_seqlens);
  options.causal = config_.causal;
  if (relative_bias_.defined()) options.relative_bias = relative(x.size(1), x.size(1));
  return attend(x, remember(x), options, masks.key_padding_mask);
}

Tensor TalkingHeadsMixer::cross(const Tensor& x, const Tensor& memory,
                                const Tensor& memory_padding_mask) {
  TalkingHeadsOptions options;
  options.key_padding_mask = as_optional(memory_padding_mask);
  return attend(x, remember(memory), options);
}

std::unique_ptr<MixerState> TalkingHeadsMixer::new_state(int64_t) const {
  HEADLOOM_CHECK(config_.causal, kMixer, "a causal mixer to decode with", "a bidirectional one");
  return std::make_unique<TalkingHeadsState>();
}

Tensor TalkingHeadsMixer::step(const Tensor& x, MixerState& state) {
  auto& seen = dynamic_cast<TalkingHeadsState&>(state);
  const Memory now = remember(x);
  seen.append(now.k, now.v, now.m2l, now.m2w);
  const int64_t length = seen.length();
  TalkingHeadsOptions options;
  options.causal = x.size(1) > 1;  // one query sees everything so far
  if (relative_bias_.defined()) options.relative_bias = relative(x.size(1), length);
  return attend(x,
                {seen.keys.first(length), seen.values.first(length),
                 seen.logits_by_key.first(length), seen.weights_by_key.first(length)},
                options);
}

double TalkingHeadsMixer::flops(int64_t length) const {
  const double tokens = static_cast<double>(length), dim = static_cast<double>(config_.dim);
  const double pairs = config_.causal ? tokens * (tokens + 1) / 2 : tokens * tokens;
  const double keys = static_cast<double>(key_heads_ * key_width_);
  const double values = static_cast<double>(value_heads_ * value_width_);
  double per_token = 2 * dim * (2 * keys + 2 * values), per_pair = 2 * (keys + values);
  const auto mix = [&](const Tensor& projection, const Linear& by_query, const Linear& by_key) {
    if (!projection.defined()) return;
    const double size = static_cast<double>(projection.numel());
    const int dynamic = (by_query ? 1 : 0) + (by_key ? 1 : 0);
    per_pair += 2 * size * (1 + dynamic);
    per_token += 2 * dim * size * dynamic;
  };
  mix(logits_proj_, x2l_, m2l_);
  mix(weights_proj_, x2w_, m2w_);
  return tokens * per_token + pairs * per_pair;
}

}  // namespace headloom

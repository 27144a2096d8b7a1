// Schemas of the operators and their backward halves, argument checks, registration.
#include "headloom/mechanisms/light_conv/light_conv.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include "headloom/base/check.h"
#include "headloom/mechanisms/light_conv/light_conv_dispatch.h"
#include "headloom/tensor/contract.h"
#include "headloom/tensor/dropout.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;

Tensor forward(const Tensor& x, const Tensor& weight, const ConvCall& call) {
  check_conv(x, weight, call);
  return conv_forward(x, weight, call);
}

Tensor forward_meta(const Tensor& x, const Tensor& weight, const ConvCall& call) {
  check_conv(x, weight, call);
  return at::empty_symint(x.sym_sizes(), x.options());
}

ConvGradients backward(const Tensor& grad_out, const Tensor& x, const Tensor& weight, Wanted wanted,
                       const ConvCall& call) {
  check_conv(x, weight, call);
  return conv_backward(grad_out, x, weight, wanted, call);
}

ConvGradients backward_meta(const Tensor&, const Tensor& x, const Tensor& weight, Wanted wanted,
                            const ConvCall&) {
  const auto like = [&](const Tensor& tensor, bool needed) {
    return needed ? at::empty_symint(tensor.sym_sizes(), tensor.options()) : or_empty({}, x);
  };
  const Tensor grad_bias =
      wanted[2] ? at::empty_symint({x.sym_size(2)}, x.options()) : or_empty({}, x);
  return {like(x, wanted[0]), like(weight, wanted[1]), grad_bias};
}

template <class Op>
void define(torch::Library& m, const std::string& weight, const std::string& options) {
  const auto add = [&m](const std::string& schema) {
    m.def(torch::schema(schema.c_str()), {at::Tag::pt2_compliant_tag});
  };
  add(cat(Op::kName, "(Tensor x, Tensor ", weight, ", *, ", options, ") -> Tensor"));
  add(cat(Op::kBackwardName, "(Tensor grad_out, Tensor x, Tensor ", weight, ", bool[3] wanted, *, ",
          options, ") -> (Tensor, Tensor, Tensor)"));
}

template <class Op>
void implement(torch::Library& m) {
  m.impl(Op::kName, &Operator<Op, ConvForward>::template kernel<forward>);
  m.impl(Op::kBackwardName, &Operator<Op, ConvBackward>::template kernel<backward>);
}

template <class Op>
void implement_meta(torch::Library& m) {
  m.impl(Op::kName, &Operator<Op, ConvForward>::template kernel<forward_meta>);
  m.impl(Op::kBackwardName, &Operator<Op, ConvBackward>::template kernel<backward_meta>);
}

// The fields that both option structs share, with the padding resolved and a seed drawn if needed.
ConvCall call_of(const char* op, const ConvOptions& options, int64_t kernel_size) {
  ConvCall call{op, 0};
  const auto* name = std::get_if<std::string>(&options.padding);
  call.padding = name ? left_padding(*name, kernel_size) : std::get<int64_t>(options.padding);
  call.weight_softmax = options.weight_softmax;
  call.conv_bias = options.conv_bias;
  call.key_padding_mask = options.key_padding_mask;
  call.cu_seqlens = options.cu_seqlens;
  call.weight_dropout = options.weight_dropout;
  call.seed = options.seed;
  if (call.weight_dropout > 0.0 && !call.seed) call.seed = new_seed();
  return call;
}

// The last size of a weight that may yet turn out to be anything.
int64_t kernel_size_of(const Tensor& weight) {
  return weight.defined() && weight.dim() > 0 ? weight.size(-1) : 1;
}

}  // namespace

int64_t left_padding(const std::string& name, int64_t kernel_size) {
  if (name == "causal") return kernel_size - 1;
  HEADLOOM_CHECK(name == "same", "convolution", "padding \"same\", \"causal\" or a whole number",
                 cat('"', name, '"'));
  return kernel_size / 2;
}

bool is_per_position(const char* op, std::string_view dropconnect) {
  if (dropconnect == "per_position") return true;
  HEADLOOM_CHECK(dropconnect == "shared", op, "dropconnect \"shared\" or \"per_position\"",
                 cat('"', dropconnect, '"'));
  return false;
}

void check_conv(const Tensor& x, const Tensor& weight, const ConvCall& call) {
  Contract args(call.op);
  args.floating("x", x, {"B", "T", "C"});
  if (std::string_view(call.op) == LightConvOp::kName) {
    args.same("weight", weight, {"H", "K"});
  } else {
    args.same("kernel_logits", weight, {"B", "T", "H", "K"});
  }
  args.same("conv_bias", call.conv_bias, {"C"})
      .mask("key_padding_mask", call.key_padding_mask, {"B", "T"})
      .boundaries("cu_seqlens", call.cu_seqlens)
      .probability("weight_dropout", call.weight_dropout)
      .seed(call.seed, call.weight_dropout > 0.0);
  const c10::SymInt heads = args.sym("H"), kernel_size = args.sym("K");
  args.require(kernel_size >= 1 && kernel_size <= kMaxKernelSize,
               cat("a kernel width K of 1 to ", kMaxKernelSize), cat("K = ", kernel_size))
      .require(heads >= 1 && args.sym("C") % heads == 0,
               "a head count H that divides the channels C",
               cat("H = ", heads, ", C = ", args.sym("C")))
      .require(call.padding >= 0, "a left padding P of at least 0", cat("P = ", call.padding),
               "\"causal\" is K - 1, \"same\" is K div 2.")
      .require(call.weight_softmax || !call.renorm_padding, "weight_softmax with renorm_padding",
               "renorm_padding alone");
  if (call.cu_seqlens) {
    args.require(args.sym("B") == 1, "B = 1 with cu_seqlens", cat("B = ", args.sym("B")),
                 "Concatenate the sequences along time.");
  }
}

Tensor light_conv(const Tensor& x, const Tensor& weight, const LightConvOptions& options) {
  ConvCall call = call_of(LightConvOp::kName, options, kernel_size_of(weight));
  call.per_position = is_per_position(call.op, options.dropconnect);
  return call_conv<LightConvOp>(x, weight, call);
}

Tensor dynamic_conv(const Tensor& x, const Tensor& kernel_logits,
                    const DynamicConvOptions& options) {
  ConvCall call = call_of(DynamicConvOp::kName, options, kernel_size_of(kernel_logits));
  call.renorm_padding = options.renorm_padding;
  call.per_position = true;
  return call_conv<DynamicConvOp>(x, kernel_logits, call);
}

TORCH_LIBRARY_FRAGMENT(headloom, m) {
  define<LightConvOp>(
      m, "weight",
      "int padding, bool weight_softmax=True, Tensor? conv_bias=None, Tensor? "
      "key_padding_mask=None, Tensor? cu_seqlens=None, float weight_dropout=0.0, str "
      "dropconnect=\"shared\", Tensor? seed=None");
  define<DynamicConvOp>(
      m, "kernel_logits",
      "int padding, bool weight_softmax=True, bool renorm_padding=False, Tensor? conv_bias=None, "
      "Tensor? key_padding_mask=None, Tensor? cu_seqlens=None, float weight_dropout=0.0, Tensor? "
      "seed=None");
}

TORCH_LIBRARY_IMPL(headloom, CPU, m) {
  implement<LightConvOp>(m);
  implement<DynamicConvOp>(m);
}

TORCH_LIBRARY_IMPL(headloom, CUDA, m) {
  implement<LightConvOp>(m);
  implement<DynamicConvOp>(m);
}

TORCH_LIBRARY_IMPL(headloom, Meta, m) {
  implement_meta<LightConvOp>(m);
  implement_meta<DynamicConvOp>(m);
}

}  // namespace headloom

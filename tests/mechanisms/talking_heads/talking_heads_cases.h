#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "headloom/mechanisms/talking_heads/talking_heads_dispatch.h"
#include "tests/support/closeness.h"
#include "tests/support/conformance.h"

// What the tests of talking heads share. Letters as in talking_heads.h.
namespace headloom::testing {

inline TalkingHeadsOptions talking_heads_options(const Arguments& a) {
  return {a.optional("logits_proj"),
          a.optional("weights_proj"),
          a.optional("x2l"),
          a.optional("m2l"),
          a.optional("x2w"),
          a.optional("m2w"),
          a.optional("bias"),
          a.optional("relative_bias"),
          a.optional("key_padding_mask"),
          a.flag("causal"),
          a.optional_number("scale"),
          a.number("dropout_p"),
          a.text("dropout_site", "after_mix"),
          a.optional("seed"),
          a.optional("cu_seqlens_q"),
          a.optional("cu_seqlens_k")};
}

inline std::vector<at::Tensor> run_talking_heads(const Arguments& a) {
  return {talking_heads_attention(a["q"], a["k"], a["v"], talking_heads_options(a))};
}

inline std::vector<at::Tensor> talking_heads_by_reference(const Arguments& a) {
  const TalkingHeadsOptions options = talking_heads_options(a);
  return {talking_heads_composite(talking_heads_inputs(a["q"], a["k"], a["v"], options), options)};
}

// Heads [K, H, V]; E = 0 means D; `groups` > 0 gives grouped projections.
struct TalkingHeadsCase {
  int64_t B = 2, K = 2, H = 3, V = 4, Tq = 5, Tk = 5, D = 4, E = 0;
  int64_t groups = 0;
  bool logits = true, weights = true;

  std::vector<int64_t> projection(int64_t in, int64_t out, std::vector<int64_t> front = {}) const {
    if (groups > 0) front.push_back(groups);
    const int64_t g = std::max<int64_t>(1, groups);
    front.push_back(in / g);
    front.push_back(out / g);
    return front;
  }
  // x2l, m2l, x2w or m2w
  Input dynamic(const std::string& name) const {
    const bool of_logits = name[2] == 'l', by_query = name[0] == 'x';
    return tokens(name, projection(of_logits ? K : H, of_logits ? H : V, {B, by_query ? Tq : Tk}),
                  1);
  }
  // The arguments of a call; `more` says what they are padded and packed by.
  std::vector<Input> inputs(std::vector<Input> more = {}) const;
};

inline std::vector<Input> TalkingHeadsCase::inputs(std::vector<Input> more) const {
  const auto named = [&more](const std::string& name) {
    for (const Input& input : more) {
      if (input.name == name) return true;
    }
    return false;
  };
  const auto of_keys = [&](Input input) {
    if (named("key_padding_mask")) input = input.padded("key_padding_mask");
    return named("cu_seqlens_k") ? input.packed("cu_seqlens_k") : input;
  };
  const auto of_queries = [&](Input input) {
    return named("cu_seqlens_q") ? input.packed("cu_seqlens_q") : input;
  };
  std::vector<Input> all{of_queries(tokens("q", {B, K, Tq, D}, 2)),
                         of_keys(tokens("k", {B, K, Tk, D}, 2)),
                         of_keys(tokens("v", {B, V, Tk, E > 0 ? E : D}, 2))};
  if (logits) all.push_back(plain("logits_proj", projection(K, H)));
  if (weights) all.push_back(plain("weights_proj", projection(H, V)));
  for (Input& input : more) {
    if (input.name == "x2l" || input.name == "x2w") input = of_queries(input);
    if (input.name == "m2l" || input.name == "m2w") input = of_keys(input);
    if (input.name == "key_padding_mask" && named("cu_seqlens_k")) {
      input = input.packed("cu_seqlens_k");
    }
    all.push_back(input);
  }
  return all;
}

}  // namespace headloom::testing

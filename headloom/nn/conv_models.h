#pragma once

#include <string>
#include <vector>

#include "headloom/nn/encoder_decoder.h"

namespace headloom::nn {

// The translation models of Wu et al. (2019) by the names of their recipes: seven encoder and six
// decoder layers of the kernel widths 3, 7, 15, 31, 31, 31(, 31), multi-head attention to the
// source, one table for all embeddings.
//
//                  C     FFN   H   gate  dropout, on attention, on weights, on input
//   iwslt_de_en    512   1024   4  no    0.3      0.1           0.1         0    (own embeddings)
//   wmt_en_de      512   2048   8  yes   0.1      0             0           0.1
//   wmt_en_de_big  1024  4096  16  yes   0.3      0.1           0.1         0.1
//   wmt_en_fr_big  1024  4096  16  yes   0.1      0.1           0.1         0.1
//   wmt_zh_en_big  1024  4096  16  yes   0.2      0.2           0.2         0.1
//
// `mechanism` is "light_conv" or "dynamic_conv". The caller may change what is returned, for
// example encoder_mixer.options["glu"]. Refuses other names.
EncoderDecoderConfig conv_model(const std::string& name, const std::string& mechanism,
                                int64_t source_vocabulary, int64_t target_vocabulary);
std::vector<std::string> conv_model_names();

}  // namespace headloom::nn

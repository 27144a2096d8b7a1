// Both operators where there is no fused kernel: tiles of output positions as products with band
// matrices. Row i of a tile's band [n, n + K - 1] holds the K weights of position i from column i
// on, so that
//   forward      Y = Band X            X: the n + K - 1 rows that the tile reads
//   backward     dX += Band^T dY,      dBand = dY X^T, of which only the band is read
// Memory beyond the operands is one tile's.
#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "headloom/mechanisms/light_conv/light_conv_paths.h"
#include "headloom/mechanisms/light_conv/light_conv_reference.h"
#include "headloom/tensor/dispatch.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;

// Rows of a tile. Few, because K of its n + K - 1 columns are used; not fewer, because each tile
// costs a dozen calls of torch. Measured best or next to it for K from 3 to 31.
constexpr int64_t kTileRows = 32;
// Elements of a tile's band matrices at most: 16 MiB of float32.
constexpr int64_t kTileElements = int64_t{1} << 22;

struct Tile {
  int64_t begin, rows;
  Tensor of(const Tensor& x) const { return x.narrow(1, begin, rows); }
  Tensor read_by(const Tensor& window, int64_t kernel_size) const {
    return window.narrow(1, begin, rows + kernel_size - 1);
  }
};

std::vector<Tile> tiles_of(int64_t batch, int64_t time, int64_t heads, int64_t kernel_size) {
  int64_t rows = kTileRows;
  while (rows > 1 && batch * heads * rows * (rows + kernel_size - 1) > kTileElements) rows /= 2;
  std::vector<Tile> tiles;
  for (int64_t begin = 0; begin < time; begin += rows) {
    tiles.push_back({begin, std::min(rows, time - begin)});
  }
  return tiles;
}

Tensor split_heads(const Tensor& x, int64_t heads) {  // [B, n, C] -> [B, H, n, R]
  return x.unflatten(2, {heads, x.size(2) / heads}).transpose(1, 2);
}

// The weights inside band matrices, as a view.
Tensor band_of(const Tensor& matrices) {  // [B, H, n, n + K - 1] -> [B, n, H, K]
  const int64_t batch = matrices.size(0), heads = matrices.size(1), rows = matrices.size(2),
                columns = matrices.size(3), kernel_size = columns - rows + 1;
  return matrices.as_strided({batch, rows, heads, kernel_size},
                             {heads * rows * columns, columns + 1, rows * columns, 1});
}

// weights broadcast to [B, n, H, K].
Tensor band_matrices(const Tensor& weights, int64_t batch, int64_t rows) {
  const int64_t heads = weights.size(-2), kernel_size = weights.size(-1);
  const Tensor matrices =
      at::zeros({batch, heads, rows, rows + kernel_size - 1}, weights.options());
  band_of(matrices).copy_(weights);
  return matrices;
}

// window [B, n + K - 1, C], weights that broadcast to [B, n, H, K] -> [B, n, H, R]
Tensor band_product(const Tensor& window, const Tensor& weights) {
  const int64_t rows = window.size(1) - weights.size(-1) + 1;
  return at::matmul(band_matrices(weights, window.size(0), rows),
                    split_heads(window, weights.size(-2)))
      .transpose(1, 2);
}

// The weight in the accumulation type: all of [H, K], or a tile's rows of [B, T, H, K].
Tensor rows_of_weight(const Tensor& weight, const Tile& tile, at::ScalarType type) {
  return (weight.dim() == 2 ? weight : tile.of(weight)).to(type);
}

Tensor softmax_gradient(const Tensor& grad, const Tensor& normalised, const ConvCall& call) {
  if (!call.weight_softmax) return grad;
  return at::_softmax_backward_data(grad, normalised, -1, grad.scalar_type());
}

ConvCall in_type(ConvCall call, at::ScalarType type) {
  if (call.conv_bias) call.conv_bias = call.conv_bias->to(type);
  return call;
}

}  // namespace

Tensor conv_forward_banded(const Tensor& x, const Tensor& weight, const ConvCall& given) {
  const at::ScalarType type = accumulation_type(x);
  const ConvCall call = in_type(given, type);
  const int64_t kernel_size = weight.size(-1);
  const Taps taps(x, weight, call);
  const Tensor window = taps.window(x.to(type));
  const Tensor y = at::empty(x.sizes(), x.options().dtype(type));
  for (const Tile& tile : tiles_of(x.size(0), x.size(1), weight.size(-2), kernel_size)) {
    const TapWeights weights =
        taps.weights(rows_of_weight(weight, tile, type), tile.begin, tile.rows);
    const Tensor product = band_product(tile.read_by(window, kernel_size), weights.applied());
    tile.of(y).unflatten(2, {product.size(2), product.size(3)}).copy_(product);
  }
  return add_bias_and_mask(y, call).to(x.scalar_type());
}

ConvGradients conv_backward_banded(const Tensor& grad_out, const Tensor& x, const Tensor& weight,
                                   Wanted wanted, const ConvCall& call) {
  const at::ScalarType type = accumulation_type(x);
  const int64_t heads = weight.size(-2), kernel_size = weight.size(-1);
  const bool shared = weight.dim() == 2;
  const Taps taps(x, weight, call);
  const Tensor window = taps.window(x.to(type));
  const Tensor grad_y = zero_padding(grad_out.to(type), call);
  const Tensor grad_window = wanted[0] ? at::zeros_like(window) : Tensor();
  Tensor grad_weight = wanted[1] ? at::zeros(weight.sizes(), window.options()) : Tensor();
  for (const Tile& tile : tiles_of(x.size(0), x.size(1), heads, kernel_size)) {
    const TapWeights weights =
        taps.weights(rows_of_weight(weight, tile, type), tile.begin, tile.rows);
    const Tensor grad_rows = split_heads(tile.of(grad_y), heads);  // [B, H, n, R]
    if (wanted[0]) {
      const Tensor band = band_matrices(weights.applied(), x.size(0), tile.rows);
      split_heads(tile.read_by(grad_window, kernel_size), heads)
          .add_(at::matmul(band.transpose(-2, -1), grad_rows));
    }
    if (wanted[1]) {
      const Tensor read = split_heads(tile.read_by(window, kernel_size), heads);
      Tensor grad_taps = band_of(at::matmul(grad_rows, read.transpose(-2, -1)));  // [B, n, H, K]
      if (weights.multiplier.defined()) grad_taps = grad_taps * weights.multiplier;
      if (shared) {
        grad_weight.add_(grad_taps.sum(at::IntArrayRef({0, 1})));
      } else {
        tile.of(grad_weight).copy_(softmax_gradient(grad_taps, weights.normalised, call));
      }
    }
  }
  if (wanted[1] && shared) {
    grad_weight = softmax_gradient(grad_weight, weight.to(type).softmax(-1), call);
  }
  const auto result = [&](const Tensor& gradient) {
    return gradient.defined() ? gradient.to(x.scalar_type()) : or_empty({}, x);
  };
  const Tensor grad_x =
      wanted[0] ? zero_padding(grad_window.narrow(1, taps.left(), x.size(1)), call).contiguous()
                : Tensor();
  return {result(grad_x), result(grad_weight),
          result(wanted[2] ? grad_y.sum(at::IntArrayRef({0, 1})) : Tensor())};
}

}  // namespace headloom

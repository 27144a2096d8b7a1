#include "headloom/tasks/graph/graph_ops.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <limits>

#include "headloom/base/check.h"
#include "headloom/base/parallel.h"

namespace headloom::tasks::graph {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr double kSlope = 0.2;
constexpr int64_t kGrain = 32;  // rows worth a thread

// SparseRows travel through autograd as a capsule.
struct RowsHolder : torch::CustomClassHolder {
  std::shared_ptr<const SparseRows> rows;
};
c10::IValue hold(const std::shared_ptr<const SparseRows>& rows) {
  auto holder = c10::make_intrusive<RowsHolder>();
  holder->rows = rows;
  return c10::IValue::make_capsule(holder);
}
std::shared_ptr<const SparseRows> held(const c10::IValue& value) {
  return c10::static_intrusive_pointer_cast<RowsHolder>(value.toCapsule())->rows;
}

template <class Body>
void with_type(const Tensor& x, const Body& body) {
  HEADLOOM_CHECK(x.is_cpu(), "task graph", "tensors on the processor", cat(x.device()),
                 "Use train.device = \"cpu\".");
  if (x.scalar_type() == at::kDouble) {
    body(double{});
  } else {
    HEADLOOM_CHECK(x.scalar_type() == at::kFloat, "task graph", "float32 or float64",
                   cat(x.scalar_type()));
    body(float{});
  }
}

template <class T>
void add_scaled(T factor, const T* from, T* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] += factor * from[i];
}
template <class T>
T dot(const T* a, const T* b, int64_t count) {
  T sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

struct SparseLinear : torch::autograd::Function<SparseLinear> {
  static Tensor forward(AutogradContext* ctx, const std::shared_ptr<const SparseRows>& rows,
                        const Tensor& values, const Tensor& given) {
    const Tensor weight = given.contiguous();
    ctx->saved_data["rows"] = hold(rows);
    ctx->save_for_backward({values});
    const int64_t heads = weight.size(1), width = weight.size(2);
    const Tensor out = at::zeros({rows->row_count(), heads, width}, weight.options());
    with_type(weight, [&](auto tag) {
      using T = decltype(tag);
      const T *w = weight.const_data_ptr<T>(), *v = values.const_data_ptr<T>();
      T* y = out.data_ptr<T>();
      parallel_for(0, rows->row_count(), kGrain, [&](int64_t first, int64_t last) {
        for (int64_t n = first; n < last; ++n) {
          for (int64_t e = rows->begin[n]; e < rows->begin[n + 1]; ++e) {
            const T* row = w + rows->columns[e] * heads * width;
            for (int64_t h = 0; h < heads; ++h) {
              add_scaled(v[e * heads + h], row + h * width, y + (n * heads + h) * width, width);
            }
          }
        }
      });
    });
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto rows = held(ctx->saved_data["rows"]);
    const Tensor values = ctx->get_saved_variables()[0], grad = grads[0].contiguous();
    const int64_t heads = grad.size(1), width = grad.size(2);
    const Tensor grad_weight = at::zeros({rows->column_count(), heads, width}, grad.options());
    with_type(grad, [&](auto tag) {
      using T = decltype(tag);
      const T *g = grad.const_data_ptr<T>(), *v = values.const_data_ptr<T>();
      T* w = grad_weight.data_ptr<T>();
      parallel_for(0, rows->column_count(), kGrain, [&](int64_t first, int64_t last) {
        for (int64_t c = first; c < last; ++c) {
          for (int64_t i = rows->column_begin[c]; i < rows->column_begin[c + 1]; ++i) {
            const int64_t e = rows->entries[i];
            const T* row = g + rows->rows[e] * heads * width;
            for (int64_t h = 0; h < heads; ++h) {
              add_scaled(v[e * heads + h], row + h * width, w + (c * heads + h) * width, width);
            }
          }
        }
      });
    });
    return {Tensor(), Tensor(), grad_weight};
  }
};

template <class T>
T leaky(T x) {
  return x > 0 ? x : static_cast<T>(kSlope) * x;
}

// Softmax over the entries of each row, [E, H].
template <class T>
void row_weights(const SparseRows& rows, const T* left, const T* right, T* weights, int64_t heads) {
  parallel_for(0, rows.row_count(), kGrain, [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n) {
      for (int64_t h = 0; h < heads; ++h) {
        T most = -std::numeric_limits<T>::infinity(), sum = 0;
        for (int64_t e = rows.begin[n]; e < rows.begin[n + 1]; ++e) {
          const T logit = leaky(left[n * heads + h] + right[rows.columns[e] * heads + h]);
          weights[e * heads + h] = logit;
          most = std::max(most, logit);
        }
        for (int64_t e = rows.begin[n]; e < rows.begin[n + 1]; ++e) {
          T& weight = weights[e * heads + h];
          weight = std::exp(weight - most);
          sum += weight;
        }
        for (int64_t e = rows.begin[n]; e < rows.begin[n + 1]; ++e) weights[e * heads + h] /= sum;
      }
    }
  });
}

struct NeighbourhoodAttention : torch::autograd::Function<NeighbourhoodAttention> {
  static Tensor forward(AutogradContext* ctx, const std::shared_ptr<const SparseRows>& rows,
                        const Tensor& given_z, const Tensor& given_left, const Tensor& given_right,
                        const std::optional<Tensor>& kept) {
    const Tensor keep = kept.value_or(Tensor());
    const Tensor z = given_z.contiguous(), left = given_left.contiguous(),
                 right = given_right.contiguous();
    const int64_t heads = z.size(1), width = z.size(2);
    const Tensor weights = at::empty({rows->size(), heads}, z.options());
    const Tensor out = at::zeros({rows->row_count(), heads, width}, z.options());
    with_type(z, [&](auto tag) {
      using T = decltype(tag);
      row_weights(*rows, left.const_data_ptr<T>(), right.const_data_ptr<T>(), weights.data_ptr<T>(),
                  heads);
    });
    const Tensor used = keep.defined() ? weights * keep : weights;
    with_type(z, [&](auto tag) {
      using T = decltype(tag);
      const T *w = used.const_data_ptr<T>(), *from = z.const_data_ptr<T>();
      T* y = out.data_ptr<T>();
      parallel_for(0, rows->row_count(), kGrain, [&](int64_t first, int64_t last) {
        for (int64_t n = first; n < last; ++n) {
          for (int64_t e = rows->begin[n]; e < rows->begin[n + 1]; ++e) {
            for (int64_t h = 0; h < heads; ++h) {
              add_scaled(w[e * heads + h], from + (rows->columns[e] * heads + h) * width,
                         y + (n * heads + h) * width, width);
            }
          }
        }
      });
    });
    ctx->saved_data["rows"] = hold(rows);
    ctx->save_for_backward({z, left, right, weights, keep});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto rows = held(ctx->saved_data["rows"]);
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &z = saved[0], &left = saved[1], &right = saved[2], &weights = saved[3];
    const Tensor used = saved[4].defined() ? weights * saved[4] : weights;
    const Tensor keep = saved[4].defined() ? saved[4] : at::ones_like(weights);
    const Tensor grad = grads[0].contiguous();
    const Tensor grad_z = at::zeros_like(z), grad_left = at::zeros_like(left),
                 grad_right = at::zeros_like(right), by_logit = at::empty_like(weights);
    with_type(z, [&](auto tag) {
      using T = decltype(tag);
      Backward<T>{*rows,
                  z.size(1),
                  z.size(2),
                  z.const_data_ptr<T>(),
                  left.const_data_ptr<T>(),
                  right.const_data_ptr<T>(),
                  weights.const_data_ptr<T>(),
                  used.const_data_ptr<T>(),
                  keep.const_data_ptr<T>(),
                  grad.const_data_ptr<T>(),
                  grad_z.data_ptr<T>(),
                  grad_left.data_ptr<T>(),
                  grad_right.data_ptr<T>(),
                  by_logit.data_ptr<T>()}
          .run();
    });
    return {Tensor(), grad_z, grad_left, grad_right, Tensor()};
  }

 private:
  // Rows first, then columns, so that every sum has one owner.
  template <class T>
  struct Backward {
    const SparseRows& rows;
    int64_t heads, width;
    const T *z, *left, *right, *weights, *used, *keep, *grad;
    T *grad_z, *grad_left, *grad_right, *by_logit;

    void run() const {
      parallel_for(0, rows.row_count(), kGrain, [&](int64_t first, int64_t last) {
        for (int64_t n = first; n < last; ++n) {
          for (int64_t h = 0; h < heads; ++h) row(n, h);
        }
      });
      parallel_for(0, rows.column_count(), kGrain, [&](int64_t first, int64_t last) {
        for (int64_t c = first; c < last; ++c) {
          for (int64_t h = 0; h < heads; ++h) column(c, h);
        }
      });
    }
    void row(int64_t n, int64_t h) const {
      const T* g = grad + (n * heads + h) * width;
      T mean = 0;
      for (int64_t e = rows.begin[n]; e < rows.begin[n + 1]; ++e) {
        const int64_t at = e * heads + h;
        by_logit[at] = keep[at] * dot(g, z + (rows.columns[e] * heads + h) * width, width);
        mean += weights[at] * by_logit[at];
      }
      for (int64_t e = rows.begin[n]; e < rows.begin[n + 1]; ++e) {
        const int64_t at = e * heads + h;
        const bool positive = left[n * heads + h] + right[rows.columns[e] * heads + h] > 0;
        by_logit[at] = weights[at] * (by_logit[at] - mean) * (positive ? T(1) : T(kSlope));
        grad_left[n * heads + h] += by_logit[at];
      }
    }
    void column(int64_t c, int64_t h) const {
      for (int64_t i = rows.column_begin[c]; i < rows.column_begin[c + 1]; ++i) {
        const int64_t e = rows.entries[i], at = e * heads + h;
        grad_right[c * heads + h] += by_logit[at];
        add_scaled(used[at], grad + (rows.rows[e] * heads + h) * width,
                   grad_z + (c * heads + h) * width, width);
      }
    }
  };
};

}  // namespace

Tensor sparse_linear(const std::shared_ptr<const SparseRows>& rows, const Tensor& values,
                     const Tensor& weight) {
  return SparseLinear::apply(rows, values.contiguous(), weight);
}

Tensor neighbourhood_attention(const std::shared_ptr<const SparseRows>& rows, const Tensor& z,
                               const Tensor& left, const Tensor& right, const Tensor& keep) {
  return NeighbourhoodAttention::apply(rows, z, left, right,
                                       keep.defined() ? std::optional(keep) : std::nullopt);
}

}  // namespace headloom::tasks::graph

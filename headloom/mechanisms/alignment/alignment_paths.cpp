// From tensors to the streaming kernels of the processor.
#include <ATen/ATen.h>

#include "headloom/mechanisms/alignment/alignment_dispatch.h"
#include "headloom/mechanisms/alignment/transport_run.h"
#include "headloom/tensor/dispatch.h"

namespace headloom {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// The points of one side that take part, in the form of the kernels.
class Points {
 public:
  Points(const Tensor& points, const OptionalTensor& mask)
      : size_(points.size(2)),
        index_(at::empty({points.size(0), size_}, at::kLong)),
        count_(at::empty({points.size(0)}, at::kLong)) {
    const Tensor kept = mask ? mask->contiguous() : Tensor();
    for (int64_t b = 0; b < points.size(0); ++b) {
      const bool* out = mask ? kept.const_data_ptr<bool>() + b * size_ : nullptr;
      int64_t* index = index_.data_ptr<int64_t>() + b * size_;
      int64_t count = 0;
      for (int64_t i = 0; i < size_; ++i) {
        if (out == nullptr || !out[i]) index[count++] = i;
      }
      count_.data_ptr<int64_t>()[b] = count;
    }
  }
  kernels::Selection selection() const {
    return {size_, index_.const_data_ptr<int64_t>(), count_.const_data_ptr<int64_t>()};
  }
  int64_t count(int64_t batch) const { return count_.const_data_ptr<int64_t>()[batch]; }

 private:
  int64_t size_;
  Tensor index_, count_;
};

template <class S>
const S* read(const Tensor& tensor) {
  return static_cast<const S*>(tensor.const_data_ptr());
}
template <class S>
S* write(const Tensor& tensor) {
  return static_cast<S*>(tensor.mutable_data_ptr());
}

// Room for a gradient. Kernels write the points that take part; where that may not be all of them,
// the rest are zeros.
Tensor room(const Tensor& like, bool all_written) {
  return all_written ? at::empty(like.sizes(), like.options())
                     : at::zeros(like.sizes(), like.options());
}

template <class Call>
bool takes_all(const Tensor& x, const Tensor& y, const Call& call) {
  return !call.query_mask && !call.key_mask && x.size(2) > 0 && y.size(2) > 0;
}

// The gradients of a loss [B, H] as the kernels read them.
Tensor as_doubles(const Tensor& grad) {
  return grad.to(at::kDouble).contiguous();
}

// One transport call: contiguous operands, states, and the weights of the gradients.
struct Transport {
  Tensor u, v, f, g, query_state, key_state;
  Points queries, keys;
  TransportCall call;

  Transport(const Tensor& given_u, const Tensor& given_v, const Tensor& given_f,
            const Tensor& given_g, const Tensor& query_state, const Tensor& key_state,
            const TransportCall& call)
      : u(given_u.contiguous()),
        v(given_v.contiguous()),
        f(given_f.contiguous()),
        g(given_g.contiguous()),
        query_state(query_state),
        key_state(key_state),
        queries(u, call.query_mask),
        keys(v, call.key_mask),
        call(call) {}

  template <class S>
  kernels::TransportArgs<S> args() const {
    using T = accumulator_t<S>;
    kernels::TransportArgs<S> result{};
    result.heads = u.size(1);
    result.queries = queries.selection();
    result.keys = keys.selection();
    result.r = u.size(3);
    result.p = f.size(3);
    result.u = read<S>(u);
    result.f = read<S>(f);
    result.v = read<S>(v);
    result.g = read<S>(g);
    result.inverse_temperature = 1.0 / call.temperature;
    result.cost =
        call.euclidean ? kernels::TransportCost::kEuclidean : kernels::TransportCost::kCosine;
    result.query_state = write<T>(query_state);
    result.key_state = write<T>(key_state);
    return result;
  }

  // The loss of each head from the states: rho mean_i D_i + (1 - rho) mean_j E_j, in fixed order.
  template <class T>
  void losses(double* loss) const {
    const auto mean = [](const T* states, int64_t points, int64_t count) {
      double sum = 0;
      for (int64_t i = 0; i < points; ++i) {
        sum += static_cast<double>(states[i * kernels::kTransportState + 2]);
      }
      return sum / static_cast<double>(count);
    };
    const int64_t m = u.size(2), n = v.size(2);
    for (int64_t head = 0; head < u.size(0) * u.size(1); ++head) {
      const int64_t batch = head / u.size(1);
      const int64_t m_kept = queries.count(batch), n_kept = keys.count(batch);
      loss[head] = 0;
      if (m_kept == 0 || n_kept == 0) continue;
      const double forth =
          mean(read<T>(query_state) + head * m * kernels::kTransportState, m, m_kept);
      const double back = mean(read<T>(key_state) + head * n * kernels::kTransportState, n, n_kept);
      const double value = call.rho * forth + (1 - call.rho) * back;
      loss[head] = call.euclidean ? value : 1 - value;
    }
  }

  // dloss/dD_i and dloss/dE_j of each head, [2, B H].
  Tensor weights(const Tensor& grad_loss) const {
    const Tensor grad = as_doubles(grad_loss);
    const Tensor result = at::zeros({2, grad.numel()}, at::kDouble);
    const double sign = call.euclidean ? 1.0 : -1.0;
    double* to = result.data_ptr<double>();
    for (int64_t head = 0; head < grad.numel(); ++head) {
      const int64_t batch = head / u.size(1);
      const double upstream = sign * grad.const_data_ptr<double>()[head];
      const auto share = [](double part, int64_t count) {
        return count == 0 ? 0.0 : part / static_cast<double>(count);
      };
      to[head] = share(upstream * call.rho, queries.count(batch));
      to[grad.numel() + head] = share(upstream * (1 - call.rho), keys.count(batch));
    }
    return result;
  }
};

// The operands of the other two operators.
struct Pair {
  Tensor x, y;
  Points of_x, of_y;

  Pair(const Tensor& given_x, const Tensor& given_y, const OptionalTensor& query_mask,
       const OptionalTensor& key_mask)
      : x(given_x.contiguous()), y(given_y.contiguous()), of_x(x, query_mask), of_y(y, key_mask) {}

  template <class S, class Args>
  Args args() const {
    Args result{};
    result.batch = x.size(0);
    result.heads = x.size(1);
    result.width = x.size(3);
    result.x_points = of_x.selection();
    result.y_points = of_y.selection();
    result.x = read<S>(x);
    result.y = read<S>(y);
    return result;
  }
  Tensor values() const { return at::zeros({x.size(0), x.size(1)}, at::kDouble); }
};

}  // namespace

Tensor3 transport_forward_cpu(const Tensor& u, const Tensor& v, const Tensor& f, const Tensor& g,
                              const TransportCall& call) {
  const auto wide = u.options().dtype(accumulation_type(u));
  const auto state = [&](const Tensor& points) {
    return at::zeros({u.size(0), u.size(1), points.size(2), kernels::kTransportState}, wide);
  };
  const Transport transport(u, v, f, g, state(u), state(v), call);
  const Tensor loss = at::zeros({u.size(0), u.size(1)}, at::kDouble);
  dispatch_kernel_type(u.scalar_type(), TransportOp::kName, [&](auto tag) {
    using S = typename decltype(tag)::type;
    transport_forward(transport.args<S>(), u.size(0));
    transport.losses<accumulator_t<S>>(loss.data_ptr<double>());
  });
  return {loss.to(u.scalar_type()), transport.query_state, transport.key_state};
}

Tensor4 transport_backward_cpu(const Tensor& grad_loss, const Tensor& u, const Tensor& v,
                               const Tensor& f, const Tensor& g, const Tensor& query_state,
                               const Tensor& key_state, const TransportCall& call) {
  const Transport transport(u, v, f, g, query_state.contiguous(), key_state.contiguous(), call);
  const Tensor weights = transport.weights(grad_loss);
  const bool all = takes_all(u, v, call);
  const Tensor4 grads{room(u, all), room(v, all), room(f, all), room(g, all)};
  dispatch_kernel_type(u.scalar_type(), TransportOp::kName, [&](auto tag) {
    using S = typename decltype(tag)::type;
    auto args = transport.args<S>();
    args.query_weight = weights.const_data_ptr<double>();
    args.key_weight = args.query_weight + grad_loss.numel();
    args.grad_u = write<S>(std::get<0>(grads));
    args.grad_v = write<S>(std::get<1>(grads));
    args.grad_f = write<S>(std::get<2>(grads));
    args.grad_g = write<S>(std::get<3>(grads));
    transport_backward(args, u.size(0));
  });
  return grads;
}

Tensor3 sinkhorn_forward_cpu(const Tensor& x, const Tensor& y, const SinkhornCall& call) {
  const Pair pair(x, y, call.query_mask, call.key_mask);
  const Tensor value = pair.values(), error = pair.values();
  const auto wide = x.options().dtype(accumulation_type(x));
  const Tensor potentials = at::zeros({x.size(0), x.size(1), 2 * (x.size(2) + y.size(2))}, wide);
  dispatch_kernel_type(x.scalar_type(), SinkhornOp::kName, [&](auto tag) {
    using S = typename decltype(tag)::type;
    auto args = pair.args<S, SinkhornArgs<S>>();
    args.options = call.options;
    args.potentials = write<accumulator_t<S>>(potentials);
    args.value = value.data_ptr<double>();
    args.error = error.data_ptr<double>();
    sinkhorn_forward(args);
  });
  return {value.to(x.scalar_type()), potentials, error.to(wide.dtype())};
}

Tensor2 sinkhorn_backward_cpu(const Tensor& grad_value, const Tensor& x, const Tensor& y,
                              const Tensor& potentials, const SinkhornCall& call) {
  const Pair pair(x, y, call.query_mask, call.key_mask);
  const Tensor grad = as_doubles(grad_value), state = potentials.contiguous();
  const bool all = takes_all(x, y, call);
  const Tensor2 grads{room(x, all), room(y, all)};
  dispatch_kernel_type(x.scalar_type(), SinkhornOp::kName, [&](auto tag) {
    using S = typename decltype(tag)::type;
    auto args = pair.args<S, SinkhornArgs<S>>();
    args.options = call.options;
    args.potentials = write<accumulator_t<S>>(state);
    args.grad_value = grad.const_data_ptr<double>();
    args.grad_x = write<S>(std::get<0>(grads));
    args.grad_y = write<S>(std::get<1>(grads));
    sinkhorn_backward(args);
  });
  return grads;
}

Tensor discrepancy_cpu(const Tensor& x, const Tensor& y, const DiscrepancyCall& call) {
  const Pair pair(x, y, call.query_mask, call.key_mask);
  const Tensor value = pair.values();
  dispatch_kernel_type(x.scalar_type(), DiscrepancyOp::kName, [&](auto tag) {
    using S = typename decltype(tag)::type;
    auto args = pair.args<S, DiscrepancyArgs<S>>();
    args.bandwidth = call.bandwidth;
    args.value = value.data_ptr<double>();
    discrepancy_forward(args);
  });
  return value.to(x.scalar_type());
}

Tensor2 discrepancy_backward_cpu(const Tensor& grad_value, const Tensor& x, const Tensor& y,
                                 const DiscrepancyCall& call) {
  const Pair pair(x, y, call.query_mask, call.key_mask);
  const Tensor grad = as_doubles(grad_value);
  const bool all = takes_all(x, y, call);
  const Tensor2 grads{room(x, all), room(y, all)};
  dispatch_kernel_type(x.scalar_type(), DiscrepancyOp::kName, [&](auto tag) {
    using S = typename decltype(tag)::type;
    auto args = pair.args<S, DiscrepancyArgs<S>>();
    args.bandwidth = call.bandwidth;
    args.grad_value = grad.const_data_ptr<double>();
    args.grad_x = write<S>(std::get<0>(grads));
    args.grad_y = write<S>(std::get<1>(grads));
    discrepancy_backward(args);
  });
  return grads;
}

}  // namespace headloom

#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <string>

namespace headloom {

// The bridge between the dispatcher, which passes keyword arguments one by one, and a slice, which
// hands them on as one struct, the Call. A slice states its keyword arguments once:
//
//   struct FooOp {
//     static FooCall read(double scale, bool causal);  // the schema's keyword arguments, in order
//     template <class Receiver>
//     static auto write(const FooCall& call, const Receiver& receive) {  // the same order
//       return receive(call.scale, call.causal);
//     }
//   };
//   using FooForward = at::Tensor(const at::Tensor& x);  // the positional arguments
//   at::Tensor foo_forward(const at::Tensor& x, const FooCall& call);
//
// Registration:  m.impl("foo", &Operator<FooOp, FooForward>::kernel<foo_forward>);
// A call:        static const Operator<FooOp, FooForward> op("foo"); return op(x, call);
template <class Op, class Signature, class Read = decltype(&Op::read)>
class Operator;

template <class Op, class Result, class... Positional, class Call, class... Keywords>
class Operator<Op, Result(Positional...), Call (*)(Keywords...)> {
 public:
  // Looks up headloom::name.
  explicit Operator(const std::string& name)
      : handle_(c10::Dispatcher::singleton()
                    .findSchemaOrThrow(("headloom::" + name).c_str(), "")
                    .template typed<Result(Positional..., Keywords...)>()) {}

  Result operator()(Positional... positional, const Call& call) const {
    return Op::write(
        call, [&](const auto&... keywords) { return handle_.call(positional..., keywords...); });
  }

  // body(positional..., call) with the signature of the schema.
  template <Result (*body)(Positional..., const Call&)>
  static Result kernel(Positional... positional, Keywords... keywords) {
    return body(positional..., Op::read(keywords...));
  }

 private:
  c10::TypedOperatorHandle<Result(Positional..., Keywords...)> handle_;
};

}  // namespace headloom

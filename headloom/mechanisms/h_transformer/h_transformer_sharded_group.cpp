// The shards of h_attention_sharded over a c10d process group, and the operator that Python calls.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "headloom/base/check.h"
#include "headloom/mechanisms/h_transformer/h_transformer_dispatch.h"
#include "headloom/mechanisms/h_transformer/h_transformer_sharded.h"

#if defined(USE_DISTRIBUTED)
#include <torch/csrc/distributed/c10d/GroupRegistry.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#endif

namespace headloom {
namespace {

using at::Tensor;

#if defined(USE_DISTRIBUTED)
class GroupShards : public HAttentionShards {
 public:
  explicit GroupShards(c10::intrusive_ptr<c10d::ProcessGroup> group) : group_(std::move(group)) {}

  int64_t rank() const override { return group_->getRank(); }
  int64_t ranks() const override { return group_->getSize(); }
  int64_t elements_sent() const override { return sent_; }

  Pair exchange(const Pair& sent) override {
    constexpr int kForward = 1, kBackward = 2;
    Pair from;
    std::vector<c10::intrusive_ptr<c10d::Work>> works;
    std::vector<std::vector<Tensor>> buffers;  // must live until the work is done
    const auto pass = [&](const Tensor& tensor, int64_t to, int64_t source, int tag, Tensor& into) {
      if (!tensor.defined()) return;
      into = at::zeros_like(tensor, at::MemoryFormat::Contiguous);
      if (source >= 0 && source < ranks()) {
        buffers.push_back({into});
        works.push_back(group_->recv(buffers.back(), static_cast<int>(source), tag));
      }
      if (to < 0 || to >= ranks()) return;
      buffers.push_back({tensor.contiguous()});
      works.push_back(group_->send(buffers.back(), static_cast<int>(to), tag));
      sent_ += tensor.numel();
    };
    buffers.reserve(4);
    pass(sent.after, rank() + 1, rank() - 1, kForward, from.before);
    pass(sent.before, rank() - 1, rank() + 1, kBackward, from.after);
    for (const auto& work : works) work->wait();
    return from;
  }

  Tensor gather(const Tensor& own) override {
    std::vector<std::vector<Tensor>> all(1);
    for (int64_t i = 0; i < ranks(); ++i) all[0].push_back(at::empty_like(own));
    std::vector<Tensor> mine{own.contiguous()};
    group_->allgather(all, mine)->wait();
    sent_ += own.numel() * (ranks() - 1);
    return at::stack(all[0]);
  }

  Tensor sum(const Tensor& all) override {
    std::vector<Tensor> tensors{all.clone(at::MemoryFormat::Contiguous)};
    group_->allreduce(tensors)->wait();
    sent_ += all.numel() / ranks() * (ranks() - 1);
    return tensors[0];
  }

 private:
  c10::intrusive_ptr<c10d::ProcessGroup> group_;
  int64_t sent_ = 0;
};
#endif

Tensor sharded(const Tensor& q, const Tensor& k, const Tensor& v, std::string group_name,
               int64_t block_size, bool causal, const std::optional<Tensor>& bias,
               const std::optional<Tensor>& key_padding_mask, std::optional<double> scale) {
  HAttentionOptions options;
  options.block_size = block_size;
  options.causal = causal;
  options.bias = bias;
  options.key_padding_mask = key_padding_mask;
  options.scale = scale;
  return h_attention_sharded(q, k, v, options, HAttentionShards::of_group(group_name));
}

}  // namespace

std::shared_ptr<HAttentionShards> HAttentionShards::of_group(const std::string& group_name) {
#if defined(USE_DISTRIBUTED)
  return std::make_shared<GroupShards>(c10d::resolve_process_group(group_name));
#else
  fail("h_attention_sharded", "a torch with torch.distributed", "one without",
       cat("No group \"", group_name, "\" can exist."));
#endif
}

TORCH_LIBRARY_FRAGMENT(headloom, m) {
  // Composed of differentiable parts: autograd sees through it.
  m.def(
      "h_attention_sharded(Tensor q, Tensor k, Tensor v, str group_name, *, int block_size=16, "
      "bool causal=False, Tensor? bias=None, Tensor? key_padding_mask=None, float? scale=None) -> "
      "Tensor",
      &sharded);
}

}  // namespace headloom

// Ranks as threads of one process. tests/python has real processes over Gloo.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "headloom/base/check.h"
#include "headloom/mechanisms/h_transformer/h_transformer_sharded.h"
#include "tests/support/arguments.h"
#include "tests/support/closeness.h"

namespace headloom::testing {
namespace {

using at::Tensor;

// A table that every rank writes and then, when all have written, reads.
class Board {
 public:
  explicit Board(int64_t ranks) : entries_(ranks), ranks_(ranks) {}

  template <class Read>
  auto meet(int64_t rank, std::vector<Tensor> entry, const Read& read) {
    entries_[rank] = std::move(entry);
    wait();
    const auto result = read(entries_);
    wait();
    return result;
  }
  int64_t ranks() const { return ranks_; }

 private:
  void wait() {
    std::unique_lock lock(mutex_);
    const int64_t round = round_;
    if (++arrived_ == ranks_) {
      arrived_ = 0;
      ++round_;
      all_.notify_all();
    } else {
      all_.wait(lock, [&] { return round_ != round; });
    }
  }

  std::vector<std::vector<Tensor>> entries_;
  int64_t ranks_, arrived_ = 0, round_ = 0;
  std::mutex mutex_;
  std::condition_variable all_;
};

class ThreadShards : public HAttentionShards {
 public:
  ThreadShards(Board& board, int64_t rank) : board_(board), rank_(rank) {}

  int64_t rank() const override { return rank_; }
  int64_t ranks() const override { return board_.ranks(); }
  int64_t elements_sent() const override { return sent_; }

  Pair exchange(const Pair& sent) override {
    if (sent.before.defined() && rank_ > 0) sent_ += sent.before.numel();
    if (sent.after.defined() && rank_ + 1 < ranks()) sent_ += sent.after.numel();
    return board_.meet(rank_, {sent.before, sent.after}, [&](const auto& all) {
      const auto take = [&](int64_t from, int which, const Tensor& like) {
        if (!like.defined()) return Tensor();
        return from >= 0 && from < ranks() ? all[from][which].clone() : at::zeros_like(like);
      };
      return Pair{take(rank_ - 1, 1, sent.after), take(rank_ + 1, 0, sent.before)};
    });
  }
  Tensor gather(const Tensor& own) override {
    sent_ += own.numel() * (ranks() - 1);
    return stack(own);
  }
  Tensor sum(const Tensor& all) override {
    sent_ += all.numel() / ranks() * (ranks() - 1);
    return stack(all).sum(0);
  }

 private:
  Tensor stack(const Tensor& own) {
    return board_.meet(rank_, {own}, [](const auto& all) {
      std::vector<Tensor> tensors;
      for (const auto& entry : all) tensors.push_back(entry[0]);
      return at::stack(tensors);
    });
  }

  Board& board_;
  int64_t rank_, sent_ = 0;
};

struct Whole {
  Tensor q, k, v, grad, mask;
  HAttentionOptions options;

  Whole(int64_t time, int64_t block, bool causal, bool masked, bool biased) {
    const auto make = [&](const char* name, int64_t width) {
      return normal(name, {2, 2, time, width});
    };
    q = make("q", 3);
    k = make("k", 3);
    v = make("v", 4);
    grad = make("grad", 4);
    options.block_size = block;
    options.causal = causal;
    if (masked) mask = normal("mask", {2, time}) > 0.5;
    if (biased) options.bias = normal("bias", {2, 4 * block - 1});
  }
};

// Output and gradients of q, k, v and bias.
std::vector<Tensor> evaluate(const Whole& x,
                             const std::function<Tensor(const Tensor&, const Tensor&, const Tensor&,
                                                        const HAttentionOptions&)>& attend,
                             const std::function<Tensor(const Tensor&, int64_t)>& part) {
  HAttentionOptions options = x.options;
  if (x.mask.defined()) options.key_padding_mask = part(x.mask, 1);
  std::vector<Tensor> leaves;
  for (const Tensor& tensor : {x.q, x.k, x.v}) {
    leaves.push_back(part(tensor, 2).detach().clone().requires_grad_());
  }
  if (options.bias) {
    leaves.push_back(options.bias->detach().clone().requires_grad_());
    options.bias = leaves[3];
  }
  const Tensor out = attend(leaves[0], leaves[1], leaves[2], options);
  std::vector<Tensor> result{out.detach()};
  for (const Tensor& g : torch::autograd::grad({out}, leaves, {part(x.grad, 2)})) {
    result.push_back(g);
  }
  return result;
}

struct Sharded {
  std::vector<std::vector<Tensor>> results;
  std::vector<int64_t> sent;
};

Sharded on_ranks(const Whole& x, int64_t ranks) {
  Board board(ranks);
  Sharded all{std::vector<std::vector<Tensor>>(ranks), std::vector<int64_t>(ranks)};
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      const auto shards = std::make_shared<ThreadShards>(board, rank);
      all.results[rank] = evaluate(
          x,
          [&](const Tensor& q, const Tensor& k, const Tensor& v, const HAttentionOptions& options) {
            return h_attention_sharded(q, k, v, options, shards);
          },
          [&](const Tensor& tensor, int64_t axis) {
            const int64_t size = tensor.size(axis) / ranks;
            return tensor.narrow(axis, rank * size, size);
          });
      all.sent[rank] = shards->elements_sent();
    });
  }
  for (std::thread& thread : threads) thread.join();
  return all;
}

void expect_close(const Tensor& found, const Tensor& exact, const std::string& where) {
  const Difference difference = differs_by_more_than_rounding(found, exact);
  EXPECT_FALSE(difference) << where << ": " << *difference;
}

TEST(HAttentionSharded, RanksTogetherEqualOne) {
  for (const int64_t ranks : {1, 2, 4, 8}) {
    for (const int64_t part : {4, 8, 32}) {
      for (const int flags : {0, 1, 2, 5, 7}) {
        const Whole x(ranks * part, 4, flags & 1, flags & 2, flags & 4);
        const auto whole = evaluate(
            x,
            [](const Tensor& q, const Tensor& k, const Tensor& v,
               const HAttentionOptions& options) { return h_attention(q, k, v, options); },
            [](const Tensor& tensor, int64_t) { return tensor; });
        const Sharded sharded = on_ranks(x, ranks);
        for (size_t i = 0; i < whole.size(); ++i) {
          std::vector<Tensor> parts;
          for (const auto& result : sharded.results) parts.push_back(result[i]);
          const Tensor together = i == 4 ? at::stack(parts).sum(0) : at::cat(parts, 2);
          expect_close(together, whole[i],
                       cat(ranks, " ranks of ", part, ", flags ", flags, ", result ", i));
        }
      }
    }
  }
}

TEST(HAttentionSharded, VolumeGrowsWithTheLogarithm) {
  constexpr int64_t kBlock = 4, kRanks = 4, kWidth = 3 + 4 + 1, kHeads = 4;
  for (const int64_t levels : {3, 6}) {
    const Whole x(kRanks * kBlock << levels, kBlock, false, false, false);
    const Sharded sharded = on_ranks(x, kRanks);
    for (int64_t rank = 0; rank < kRanks; ++rank) {
      const int64_t sides = rank == 0 || rank == kRanks - 1 ? 1 : 2;
      const int64_t forward = (sides * levels + kRanks - 1) * kBlock * kWidth * kHeads;
      EXPECT_EQ(sharded.sent[rank], 2 * forward) << levels << " levels, rank " << rank;
    }
  }
}

TEST(HAttentionSharded, Refusals) {
  Board board(1);
  const auto shards = std::make_shared<ThreadShards>(board, 0);
  const auto message = [&](int64_t time, const std::function<void(HAttentionOptions&)>& change) {
    HAttentionOptions options;
    options.block_size = 4;
    change(options);
    const Tensor x = at::ones({1, 1, time, 2});
    try {
      h_attention_sharded(x, x, x, options, shards);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(message(12, [](auto&) {}).find("block_size 4 times a power of two"), std::string::npos);
  EXPECT_NE(message(8, [](auto& o) { o.query_mode = "fine"; }).find("coarse queries"),
            std::string::npos);
  EXPECT_NE(message(8, [](auto& o) { o.dropout_p = 0.1; }).find("coarse queries"),
            std::string::npos);
}

}  // namespace
}  // namespace headloom::testing

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <torch/torch.h>

#include <fstream>

#include "headloom/base/check.h"
#include "headloom/tasks/graph/gat_model.h"
#include "headloom/tasks/graph/graph_task.h"
#include "tests/support/arguments.h"
#include "tests/support/closeness.h"

// N nodes, E entries, H heads, F features a head, C columns.
namespace headloom::tasks::graph {
namespace {

using at::Tensor;
using headloom::testing::normal;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class Folder {
 public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "headloom-graph-XXXXXX");
    path_ = ::mkdtemp(pattern.data());
    write("nodes.tsv",
          "node\tlabel\tsplit\tfeatures\n0\t0\ttrain\t0 2\n1\t1\ttrain\t1\n2\t0\tval\t\n3\t1\ttest"
          "\t1 2 3\n4\t-1\tnone\t3\n");
    write("edges.tsv", "u\tv\n0\t1\n1\t2\n2\t3\n3\t2\n");
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name) << text;
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

TEST(GraphData, ReadsBothFiles) {
  const Folder folder;
  const Graph graph = read_graph(folder.path());
  EXPECT_EQ(graph.classes, 2);
  EXPECT_THAT(graph.labels, ElementsAre(0, 1, 0, 1, -1));
  EXPECT_THAT(graph.nodes_of(Split::kTrain), ElementsAre(0, 1));
  EXPECT_THAT(graph.neighbours.begin, ElementsAre(0, 2, 5, 8, 10, 11));
  EXPECT_THAT(graph.neighbours.columns, ElementsAre(0, 1, 0, 1, 2, 1, 2, 3, 2, 3, 4));
  EXPECT_THAT(graph.features.columns, ElementsAre(0, 2, 1, 1, 2, 3, 3));
  EXPECT_THAT(graph.features.column_begin, ElementsAre(0, 1, 3, 5, 7));
  EXPECT_THAT(graph.features.entries, ElementsAre(0, 2, 3, 1, 4, 5, 6));
}

TEST(GraphData, RefusesWhatIsNotAGraph) {
  const Folder folder;
  const auto refused = [&](const char* name, const std::string& text, const char* says) {
    const Folder broken;
    broken.write(name, text);
    EXPECT_THAT([&] { read_graph(broken.path()); }, ThrowsMessage<Error>(HasSubstr(says)));
  };
  refused("nodes.tsv", "node\tlabel\tsplit\tfeatures\n1\t0\ttrain\t0\n",
          "nodes.tsv:2: expected node 0");
  refused("nodes.tsv", "node\tlabel\tsplit\tfeatures\n0\tx\ttrain\t0\n", "as the label");
  refused("nodes.tsv", "node\tlabel\tsplit\tfeatures\n0\t0\tdev\t0\n", "a split among");
  refused("nodes.tsv", "node\tlabel\tsplit\tfeatures\n0\t-1\ttrain\t0\n", "a label for");
  refused("nodes.tsv", "node\tlabel\n", "4 fields");
  refused("edges.tsv", "u\tv\n0\t9\n", "nodes from 0 to 4");
  refused("edges.tsv", "u\tv\n", "at least one line");
}

std::shared_ptr<const SparseRows> rows_of(const Folder& folder, bool features) {
  const auto graph = std::make_shared<Graph>(read_graph(folder.path()));
  return {graph, features ? &graph->features : &graph->neighbours};
}

// [N, C] with ones at the entries.
Tensor dense(const SparseRows& rows) {
  const Tensor result = at::zeros({rows.row_count(), rows.column_count()}, at::kDouble);
  for (size_t e = 0; e < rows.columns.size(); ++e) result[rows.rows[e]][rows.columns[e]] = 1.0;
  return result;
}

::testing::AssertionResult close(const Tensor& found, const Tensor& expected) {
  const auto difference = headloom::testing::differs_by_more_than_rounding(found, expected);
  return difference ? ::testing::AssertionFailure() << *difference : ::testing::AssertionSuccess();
}

// Values and gradients of both, in float64.
template <class Found, class Expected>
void expect_same(std::vector<Tensor> inputs, const Found& found, const Expected& expected) {
  for (Tensor& x : inputs) x.requires_grad_(true);
  const Tensor a = found(inputs), b = expected(inputs);
  EXPECT_TRUE(close(a.detach(), b.detach()));
  const Tensor grad = normal("grad", a.sizes());
  const auto of_a = torch::autograd::grad({a}, inputs, {grad});
  const auto of_b = torch::autograd::grad({b}, inputs, {grad});
  for (size_t i = 0; i < inputs.size(); ++i) EXPECT_TRUE(close(of_a[i], of_b[i])) << i;
}

TEST(GraphOps, SparseLinearIsALinearMap) {
  const Folder folder;
  const auto rows = rows_of(folder, true);
  const Tensor values = normal("values", {rows->size(), 2});
  expect_same(
      {normal("weight", {4, 2, 3})},
      [&](const auto& x) { return sparse_linear(rows, values, x[0]); },
      [&](const auto& x) {
        std::vector<Tensor> heads;
        for (int64_t h = 0; h < 2; ++h) {
          const Tensor matrix = at::zeros({5, 4}, at::kDouble);
          for (int64_t e = 0; e < rows->size(); ++e) {
            matrix[rows->rows[static_cast<size_t>(e)]][rows->columns[static_cast<size_t>(e)]] =
                values[e][h];
          }
          heads.push_back(at::matmul(matrix, x[0].select(1, h)));
        }
        return at::stack(heads, 1);
      });
}

TEST(GraphOps, AttentionIsAMaskedSoftmax) {
  const Folder folder;
  const auto rows = rows_of(folder, false);
  const Tensor keep = normal("keep", {rows->size(), 2}).gt(0).to(at::kDouble) * 2;
  const Tensor adjacency = dense(*rows);
  for (const bool dropped : {false, true}) {
    const Tensor mask = at::zeros({5, 5, 2}, at::kDouble);
    for (int64_t e = 0; e < rows->size(); ++e) {
      mask[rows->rows[static_cast<size_t>(e)]][rows->columns[static_cast<size_t>(e)]] =
          dropped ? keep[e] : at::ones({2}, at::kDouble);
    }
    expect_same(
        {normal("z", {5, 2, 3}), normal("left", {5, 2}), normal("right", {5, 2})},
        [&](const auto& x) {
          return neighbourhood_attention(rows, x[0], x[1], x[2], dropped ? keep : Tensor());
        },
        [&](const auto& x) {
          const Tensor logits = at::leaky_relu(x[1].unsqueeze(1) + x[2].unsqueeze(0), 0.2);
          const Tensor weights =
              logits.masked_fill(adjacency.unsqueeze(2) == 0, -INFINITY).softmax(1) * mask;
          return at::einsum("ijh,jhf->ihf", {weights, x[0]});
        });
  }
}

nn::TransformerConfig small_config() {
  nn::TransformerConfig config;
  config.dim = 8;
  config.heads = 2;
  config.layers = 2;
  config.dropout = config.mixing_dropout = 0.2;
  return config;
}

TEST(GraphTask, TrainsOnItsSplit) {
  const Folder folder;
  GraphOptions options;
  options.folder = folder.path().string();
  const GraphTask task({}, options);
  torch::manual_seed(1);
  const auto model = task.make_model(small_config());
  const Batch batch = task.train_batch(0);
  EXPECT_EQ(batch.token_count, 2);
  torch::optim::Adam optimizer(model->parameters(), torch::optim::AdamOptions(0.05));
  for (int step = 0; step < 200; ++step) {
    optimizer.zero_grad();
    task.loss(model->forward(batch), batch).sum.backward();
    optimizer.step();
  }
  model->eval();
  Totals totals;
  task.measure(model->forward(batch), batch, totals);
  EXPECT_EQ(task.metrics(totals)[1].second, 1.0);
  EXPECT_GT(model->flops(5), 0.0);
}

TEST(GraphTask, RefusesWhatItCannotBuild) {
  EXPECT_THAT([] { GraphTask({}, {}); }, ThrowsMessage<Error>(HasSubstr("folder")));
  const Folder folder;
  GraphOptions options;
  options.folder = folder.path().string();
  nn::TransformerConfig config = small_config();
  config.layers = 3;
  EXPECT_THAT([&] { GraphTask({}, options).make_model(config); },
              ThrowsMessage<Error>(HasSubstr("model.layers = 2")));
}

// Queries and keys whose channel sums are the two terms of the scores.
TEST(GatModel, LeavesChannelVectorsAsQueriesAndKeys) {
  const Folder folder;
  const auto graph = std::make_shared<Graph>(read_graph(folder.path()));
  GatModel model(graph, small_config());
  int64_t sources = 0;
  for (const auto& module : model.modules(false)) {
    auto* source = dynamic_cast<QueryKeySource*>(module.get());
    if (source == nullptr) continue;
    source->record(true);
    ++sources;
  }
  EXPECT_EQ(sources, 2);
  Batch batch;
  batch.tokens = at::tensor({0, 1}, at::kLong).unsqueeze(0);
  model.forward(batch);
  for (const auto& module : model.modules(false)) {
    auto* source = dynamic_cast<QueryKeySource*>(module.get());
    if (source == nullptr) continue;
    const auto passes = source->take_passes();
    ASSERT_EQ(passes.size(), 1u);
    EXPECT_EQ(passes[0].q.size(2), graph->nodes());
    EXPECT_EQ(passes[0].q.size(3), source->query_width());
  }
}

}  // namespace
}  // namespace headloom::tasks::graph

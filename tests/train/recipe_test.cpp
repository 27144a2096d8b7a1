#include "headloom/train/recipe.h"

#include <gmock/gmock.h>

#include <cmath>

#include "headloom/base/check.h"
#include "headloom/train/recipe_changes.h"
#include "tests/train/tiny_task.h"

namespace headloom::train {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

const std::vector<std::string> kTasks = {"tiny", "listops"};

Recipe parse(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return parse_recipe(text, "folder/r.toml", overrides, kTasks);
}

// The message of the error that reading must raise.
std::string error_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    parse(text, overrides);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

const std::string kTask = "[task]\nname = \"tiny\"\n";

TEST(Recipe, DefaultsAreThoseOfTheStructs) {
  const Recipe recipe = parse(kTask);
  EXPECT_EQ(recipe.task, "tiny");
  EXPECT_EQ(recipe.model.mixer, "dot_product");
  EXPECT_EQ(recipe.train.steps, TrainConfig().steps);
  EXPECT_EQ(recipe.optimizer.beta2, OptimizerConfig().beta2);
  EXPECT_EQ(recipe.base_folder, (std::filesystem::current_path() / "folder").string());
}

TEST(Recipe, ReadsEveryKindOfValue) {
  const Recipe recipe = parse(R"(
[task]
name = "tiny"
path = "data/x.tsv"
share = 0.5
count = 3
flag = true
widths = [3, 7]
none = []
[mixer]
name = "dot_product"
[optimizer]
lr = 1            # a whole number where a number is due
betas = [0.8, 0.98]
[train]
seed = 9_000_000_000
[compare]
mechanisms = ["dot_product"]
seeds = [4, 5]
[compare.dot_product]
width = 2
)");
  const Options expected = {{"path", "data/x.tsv"},
                            {"share", 0.5},
                            {"count", int64_t{3}},
                            {"flag", true},
                            {"widths", std::vector<int64_t>{3, 7}},
                            {"none", std::vector<int64_t>{}}};
  EXPECT_EQ(recipe.task_options, expected);
  EXPECT_EQ(recipe.optimizer.lr, 1.0);
  EXPECT_EQ(recipe.optimizer.beta1, 0.8);
  EXPECT_EQ(recipe.optimizer.beta2, 0.98);
  EXPECT_EQ(recipe.train.seed, 9'000'000'000u);
  EXPECT_EQ(recipe.compare.seeds, (std::vector<int64_t>{4, 5}));
  const CompareVariant variant{"dot_product", {{"width", int64_t{2}}}, {}};
  EXPECT_EQ(recipe.compare.variants.at("dot_product"), variant);
}

Recipe unusual_recipe() {
  Recipe r;
  r.path = "folder/r.toml";
  r.base_folder = "/a folder/with \"quotes\"";
  r.task = "listops";
  r.task_options = {{"third", 1.0 / 3.0},
                    {"whole", 2.0},
                    {"tiny", 5e-324},
                    {"infinite", HUGE_VAL},
                    {"yes", true},
                    {"big", int64_t{1} << 62},
                    {"list", std::vector<int64_t>{-1, 2}},
                    {"empty", std::vector<int64_t>{}},
                    {"odd key", "tab\tline\nquote\" back\\ \x7f é"}};
  r.model = {0,    96,    3,      6,   100, "post", "none",        77, 2, true,
             1e-3, "rms", "relu", 0.1, 0.2, false,  "dot_product", {}};
  r.optimizer = {"adam", 0.1 + 0.2, 0.7, 0.97, 1e-7, 0.3};
  r.schedule = {"inverse_sqrt", 4, 5, 0.6};
  r.train = {6, 7, 8, 9, 1.5, "bfloat16", 0.99, 10, 11, 12, 13, 14, "cuda", 15};
  r.compare.mechanisms = {"dot_product", "a variant"};
  r.compare.variants = {{"dot_product", {"dot_product", {{"x", 0.25}}, {}}},
                        {"a variant", {"dot_product", {}, {"train.clip=2.5", "task.a=\"b\""}}}};
  r.compare.seeds = {3, 1, 2};
  return r;
}

TEST(Recipe, RoundTripsExactly) {
  const Recipe a = unusual_recipe();
  const Recipe b = parse(to_toml(a));
  EXPECT_EQ(to_toml(b), to_toml(a));
  EXPECT_EQ(b.base_folder, a.base_folder);
  EXPECT_EQ(b.task, a.task);
  EXPECT_EQ(b.task_options, a.task_options);
  EXPECT_EQ(b.model.dim, 96);
  EXPECT_EQ(b.model.layers, 3);
  EXPECT_EQ(b.model.heads, 6);
  EXPECT_EQ(b.model.ffn, 100);
  EXPECT_EQ(b.model.norm, "post");
  EXPECT_EQ(b.model.positions, "none");
  EXPECT_EQ(b.model.max_length, 77);
  EXPECT_EQ(b.model.norm_type, "rms");
  EXPECT_EQ(b.model.activation, "relu");
  EXPECT_EQ(b.model.dropout, 0.1);
  EXPECT_EQ(b.model.mixing_dropout, 0.2);
  EXPECT_EQ(b.optimizer.name, "adam");
  EXPECT_EQ(b.optimizer.lr, 0.1 + 0.2);
  EXPECT_EQ(b.optimizer.beta1, 0.7);
  EXPECT_EQ(b.optimizer.beta2, 0.97);
  EXPECT_EQ(b.optimizer.eps, 1e-7);
  EXPECT_EQ(b.optimizer.weight_decay, 0.3);
  EXPECT_EQ(b.schedule.name, "inverse_sqrt");
  EXPECT_EQ(b.schedule.warmup, 4);
  EXPECT_EQ(b.schedule.steps, 5);
  EXPECT_EQ(b.schedule.min_ratio, 0.6);
  EXPECT_EQ(b.train.steps, 6);
  EXPECT_EQ(b.train.batch_size, 7);
  EXPECT_EQ(b.train.accumulate, 8);
  EXPECT_EQ(b.train.seed, 9);
  EXPECT_EQ(b.train.clip, 1.5);
  EXPECT_EQ(b.train.precision, "bfloat16");
  EXPECT_EQ(b.train.ema, 0.99);
  EXPECT_EQ(b.train.log_every, 10);
  EXPECT_EQ(b.train.validate_every, 11);
  EXPECT_EQ(b.train.checkpoint_every, 12);
  EXPECT_EQ(b.train.keep, 13);
  EXPECT_EQ(b.train.patience, 14);
  EXPECT_EQ(b.train.device, "cuda");
  EXPECT_EQ(b.train.threads, 15);
  EXPECT_EQ(b.compare.mechanisms, a.compare.mechanisms);
  EXPECT_EQ(b.compare.variants, a.compare.variants);
  EXPECT_EQ(b.compare.seeds, a.compare.seeds);
}

TEST(Recipe, ReportsAllErrorsAtOnceWithTheirPlaces) {
  const std::string text = error_of(R"([task]
name = "tinny"
[model]
dim = "wide"
drop_out = 0.1
norm = "prae"
[trian]
steps = 3
[optimizer]
lr = 0
betas = [0.9]
[train]
steps = 2.5
precision = 16
batch_size = 0
)");
  const std::vector<std::string> lines = {
      "folder/r.toml:2:8: expected task.name to be a task among tiny, listops; found \"tinny\". "
      "Did you mean \"tiny\"?",
      "folder/r.toml:4:7: expected model.dim to be a whole number at least 1; found \"wide\".",
      "folder/r.toml:5:1: expected keys of [model] among dim, layers, ",
      "folder/r.toml:6:8: expected model.norm to be one among pre, post; found \"prae\". Did you "
      "mean \"pre\"?",
      "folder/r.toml:7:1: expected sections among task, model, mixer, encoder_mixer, "
      "decoder_mixer, cross_mixer, alignment, optimizer, schedule, train, compare; found [trian]. "
      "Did you mean \"train\"?",
      "folder/r.toml:10:6: expected optimizer.lr to be a number above 0; found 0.",
      "folder/r.toml:11:9: expected optimizer.betas to be a list of two numbers; found [0.9].",
      "folder/r.toml:13:9: expected train.steps to be a whole number at least 1; found 2.5.",
      "folder/r.toml:14:13: expected train.precision to be one among float32, bfloat16; found 16.",
      "folder/r.toml:15:14: expected train.batch_size to be a whole number at least 1; found 0."};
  size_t place = 0;
  for (const std::string& line : lines) {
    const size_t found = text.find(line);
    ASSERT_NE(found, std::string::npos) << line << "\nin\n" << text;
    EXPECT_GE(found, place) << "not in file order: " << line;
    place = found;
  }
  EXPECT_THAT(text, HasSubstr("found \"drop_out\". Did you mean \"dropout\"?"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n') + 1, static_cast<long>(lines.size()));
}

TEST(Recipe, RefusesValuesOutOfRange) {
  const auto model = [](const std::string& line) { return error_of(kTask + "[model]\n" + line); };
  EXPECT_THAT(model("dropout = 1.0"), HasSubstr("a number at least 0 and below 1; found 1.0."));
  EXPECT_THAT(model("dropout = nan"), HasSubstr("found nan"));
  EXPECT_THAT(model("heads = 3"), AllOf(StartsWith("folder/r.toml:4:9: expected model.heads to "
                                                   "divide model.dim; found dim = 128, heads = 3"),
                                        Not(HasSubstr("\n"))));
  const auto train = [](const std::string& line) { return error_of(kTask + "[train]\n" + line); };
  for (const char* key : {"steps", "batch_size", "accumulate", "log_every", "validate_every",
                          "checkpoint_every", "keep"}) {
    EXPECT_THAT(train(cat(key, " = 0")), HasSubstr(cat("train.", key, " to be a whole number at")));
  }
  for (const char* key : {"seed", "patience", "threads"}) {
    EXPECT_THAT(train(cat(key, " = -1")), HasSubstr("at least 0; found -1."));
  }
  EXPECT_THAT(train("clip = -0.5"), HasSubstr("a number at least 0; found -0.5."));
  EXPECT_THAT(train("clip = inf"), HasSubstr("found inf"));
  EXPECT_THAT(train("ema = 1"), HasSubstr("below 1; found 1."));
  EXPECT_THAT(train("device = \"gpu\""), HasSubstr("cpu, cuda; found \"gpu\""));
  EXPECT_THAT(
      error_of(kTask + "[optimizer]\nbetas = [0.9, 1.0]"),
      HasSubstr("r.toml:4:15: expected optimizer.betas to be a number at least 0 and below"));
  EXPECT_THAT(error_of(kTask + "[schedule]\nmin_ratio = 1.5"), HasSubstr("at most 1; found 1.5"));
}

TEST(Recipe, RefusesUnknownMechanisms) {
  EXPECT_THAT(error_of(kTask + "[mixer]\nname = \"dot_prodct\""),
              AllOf(HasSubstr("r.toml:4:8: expected mixer.name to be a mechanism among"),
                    HasSubstr("Did you mean \"dot_product\"?")));
  EXPECT_THAT(
      error_of(kTask + "[compare]\nmechanisms = [\"dot_product\", \"dot\"]"),
      HasSubstr("r.toml:4:30: expected compare.mechanisms to be mechanisms or variants among"));
  EXPECT_THAT(error_of(kTask + "[compare.dotproduct]\nx = 1"),
              AllOf(HasSubstr("r.toml:3:1: expected [compare.<name>] with mechanism = one of"),
                    HasSubstr("Did you mean \"dot_product\"?")));
  EXPECT_THAT(error_of(kTask + "[compare.sharp]\nmechanism = \"dot_prodct\""),
              AllOf(HasSubstr("expected compare.sharp.mechanism to be a mechanism among"),
                    HasSubstr("Did you mean \"dot_product\"?")));
  EXPECT_THAT(error_of(kTask + "[compare.dot_product]\nset = \"train.steps=1\""),
              HasSubstr("r.toml:4:7: expected compare.dot_product.set to be a list of texts"));
}

TEST(Recipe, VariantsChangeMechanismOptionsAndAnythingElse) {
  const Recipe shared = parse(R"(
[task]
name = "listops"
[mixer]
name = "dot_product"
logit_scale = 2.0
[train]
steps = 7
[compare]
mechanisms = ["dot_product", "sharp", "other"]
[compare.sharp]
mechanism = "dot_product"
logit_scale = 8.0
set = ["train.clip=1.5", "alignment.form=adversarial"]
[compare.other]
mechanism = "dot_product"
)");
  const Recipe own = variant_recipe(shared, "dot_product");
  EXPECT_EQ(own.model.mixer_options.at("logit_scale"), OptionValue(2.0));
  EXPECT_TRUE(own.compare.variants.empty());
  const Recipe sharp = variant_recipe(shared, "sharp");
  EXPECT_EQ(sharp.model.mixer, "dot_product");
  EXPECT_EQ(sharp.model.mixer_options, (Options{{"logit_scale", 8.0}}));
  EXPECT_EQ(sharp.train.clip, 1.5);
  EXPECT_EQ(sharp.alignment.form, "adversarial");
  EXPECT_EQ(sharp.train.steps, 7);
  EXPECT_TRUE(variant_recipe(shared, "other").model.mixer_options.empty());
  EXPECT_THROW(variant_recipe(shared, "shrp"), Error);
}

TEST(Recipe, RefusesImpossibleComparisons) {
  const auto compare = [](const std::string& line) {
    return error_of(kTask + "[compare]\n" + line);
  };
  EXPECT_THAT(compare("seeds = []"), HasSubstr("one seed at least; found none"));
  EXPECT_THAT(compare("seeds = [1, 1]"), HasSubstr("without repetitions; found 1"));
  EXPECT_THAT(compare("seeds = 3"), HasSubstr("a list of whole numbers; found 3"));
  EXPECT_THAT(compare("mechanism = []"), HasSubstr("Did you mean \"mechanisms\"?"));
}

TEST(Recipe, RefusesOptionsOfStrangeTypes) {
  EXPECT_THAT(error_of(kTask + "when = 2020-01-01"), HasSubstr("found a date or time"));
  EXPECT_THAT(error_of(kTask + "mixed = [1, \"a\"]"), HasSubstr("found [1, \"a\"]"));
  EXPECT_THAT(error_of(kTask + "[task.inner]\nx = 1"), HasSubstr("found a table"));
  EXPECT_THAT(error_of("train = 5\n" + kTask), HasSubstr("1:9: expected [train] to be a table"));
  EXPECT_THAT(error_of("[[task]]\nname = \"tiny\""), HasSubstr("expected [task] to be a table"));
}

TEST(Recipe, RefusesWhatIsNotToml) {
  EXPECT_THAT(error_of(""), HasSubstr("r.toml:1:1: expected [task] with name = one of tiny, "
                                      "listops; found an empty recipe"));
  EXPECT_THAT(error_of("[model]\ndim = 4\nheads = 2"), HasSubstr("expected [task] with name"));
  EXPECT_THAT(error_of(kTask + "[train]\nsteps = = 3"), StartsWith("folder/r.toml:4:9: expected a "
                                                                   "recipe in TOML syntax; found"));
  EXPECT_THAT(error_of(kTask + "x = \"\xff\xfe\""), StartsWith("folder/r.toml:3:"));
  EXPECT_THAT(error_of(kTask + "name = \"tiny\""), StartsWith("folder/r.toml:3:"));
}

TEST(Recipe, FilesThatAreNoneAreNamed) {
  const ScratchFolder scratch;
  const auto error = [](const std::string& path) -> std::string {
    try {
      load_recipe(path);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_THAT(error(scratch / "none.toml"), HasSubstr("expected a recipe file; found no such"));
  EXPECT_THAT(error(scratch / "."), HasSubstr("expected a recipe file; found a folder"));
  std::ofstream(scratch / "big.toml") << std::string(2 << 20, '\n');
  EXPECT_THAT(error(scratch / "big.toml"), HasSubstr("big.toml: expected at most"));
  std::ofstream(scratch / "task.toml") << "[task]\nname = \"no such task\"";
  EXPECT_THAT(error(scratch / "task.toml"), HasSubstr("task.toml:2:8: expected task.name to be"));
}

TEST(RecipeOverride, TakesTomlAndBareWords) {
  const Recipe recipe =
      parse(kTask + "[train]\nsteps = 3\nseed = 4\n",
            {"train.steps=20", "optimizer.lr = 3e-4", "schedule.name=cosine",
             "task.path=data/a b.tsv", "task.flag=true", "mixer.list=[1, 2]", "compare.seeds=[7]",
             "optimizer.betas=[0.5, 0.6]", "task.text=\"x=y\"", "train.steps=30"});
  EXPECT_EQ(recipe.train.steps, 30);
  EXPECT_EQ(recipe.train.seed, 4u);
  EXPECT_EQ(recipe.optimizer.lr, 3e-4);
  EXPECT_EQ(recipe.optimizer.beta1, 0.5);
  EXPECT_EQ(recipe.schedule.name, "cosine");
  EXPECT_EQ(recipe.task_options.at("path"), OptionValue("data/a b.tsv"));
  EXPECT_EQ(recipe.task_options.at("flag"), OptionValue(true));
  EXPECT_EQ(recipe.task_options.at("text"), OptionValue("x=y"));
  EXPECT_EQ(recipe.model.mixer_options.at("list"), OptionValue(std::vector<int64_t>{1, 2}));
  EXPECT_EQ(recipe.compare.seeds, (std::vector<int64_t>{7}));
}

TEST(RecipeOverride, ErrorsNameTheOverride) {
  const std::string text = error_of(kTask, {"train.step=5", "trian.steps=5", "optimizer.lr=fast",
                                            "nothing", "train.steps=", "a..b=1", "mixer.name=dot",
                                            "task.name.x=1", "task.list=[1", "steps=4"});
  EXPECT_THAT(text, AllOf(HasSubstr("--set train.step=5: expected keys of [train] among"),
                          HasSubstr("found \"step\". Did you mean \"steps\"?"),
                          HasSubstr("--set trian.steps=5: expected sections among"),
                          HasSubstr("found [trian]. Did you mean \"train\"?"),
                          HasSubstr("--set optimizer.lr=fast: expected optimizer.lr to be a number "
                                    "above 0; found \"fast\".")));
  EXPECT_THAT(text, AllOf(HasSubstr("--set nothing: expected section.key=value; found nothing."),
                          HasSubstr("--set train.steps=: expected a value in TOML syntax"),
                          HasSubstr("--set a..b=1: expected section.key=value"),
                          HasSubstr("--set mixer.name=dot: expected mixer.name to be a mechanism"),
                          HasSubstr("--set task.name.x=1: expected task.name to be a table"),
                          HasSubstr("--set task.list=[1: expected a value in TOML syntax"),
                          HasSubstr("--set steps=4: expected sections among")));
}

TEST(RecipeOverride, CannotSmuggleInOtherKeys) {
  EXPECT_THAT(error_of(kTask, {"train.steps=5\n[model]\ndim=1"}),
              HasSubstr("expected a value in TOML syntax"));
}

TEST(Recipe, BaseFolderFollowsTheRecipe) {
  EXPECT_EQ(parse("base_folder = \"/data\"\n" + kTask).base_folder, "/data");
  EXPECT_EQ(parse("base_folder = \"../x/\"\n" + kTask).base_folder,
            (std::filesystem::current_path() / "x").string());
  EXPECT_THAT(error_of("base_folder = 3\n" + kTask), HasSubstr("1:15: expected base_folder"));
}

TEST(RecipeChanges, SaysWhatDiffersAndWhatBreaks) {
  Recipe before = unusual_recipe(), after = before;
  after.train.steps = 100;
  after.model.dim = 48;
  after.task_options.erase("yes");
  after.base_folder = "/elsewhere";
  after.compare.seeds = {9};
  const auto changes = recipe_changes(to_toml(before), to_toml(after));
  ASSERT_EQ(changes.size(), 3);
  EXPECT_EQ(changes[0].key, "model.dim");
  EXPECT_TRUE(changes[0].breaks_resume);
  EXPECT_EQ(changes[1].key, "task.yes");
  EXPECT_EQ(changes[1].after, "");
  EXPECT_EQ(changes[2].key, "train.steps");
  EXPECT_EQ(changes[2].before, "6");
  EXPECT_FALSE(changes[2].breaks_resume);
}

TEST(Recipe, PartsHaveSectionsOfTheirOwn) {
  const std::string parts = kTask + R"([model]
decoder_layers = 3
ffn_dropout = 0.25
[encoder_mixer]
name = "light_conv"
kernel_sizes = [3, 7]
[cross_mixer]
name = "dot_product"
bias = false
)";
  const Recipe recipe = parse(parts);
  EXPECT_EQ(recipe.parts.decoder_layers, 3);
  EXPECT_EQ(recipe.parts.ffn_dropout, 0.25);
  EXPECT_EQ(recipe.parts.encoder_mixer.name, "light_conv");
  EXPECT_EQ(recipe.parts.encoder_mixer.options.at("kernel_sizes"),
            OptionValue(std::vector<int64_t>{3, 7}));
  EXPECT_EQ(recipe.parts.decoder_mixer.name, "");
  EXPECT_EQ(recipe.parts.cross_mixer.options.at("bias"), OptionValue(false));
  const std::string text = to_toml(recipe);
  EXPECT_THAT(text, Not(HasSubstr("[decoder_mixer]")));
  EXPECT_EQ(to_toml(parse(text)), text);
  EXPECT_THAT(to_toml(parse(kTask)), Not(HasSubstr("_mixer]")));
  EXPECT_THAT(error_of(kTask + "[encoder_mixr]\nname = \"light_conv\"\n"),
              HasSubstr("Did you mean \"encoder_mixer\"?"));
  EXPECT_THAT(error_of(kTask + "[cross_mixer]\nname = \"dot_prodct\"\n"),
              AllOf(HasSubstr("cross_mixer.name"), HasSubstr("\"dot_product\"?")));
  EXPECT_THAT(error_of(kTask + "[cross_mixer]\nbias = true\n"),
              HasSubstr("[cross_mixer] with name"));
  const auto changes = recipe_changes(text, to_toml(parse(parts, {"cross_mixer.bias=true"})));
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_TRUE(changes[0].breaks_resume);
}

}  // namespace
}  // namespace headloom::train

#include "headloom/tasks/pathfinder/generator.h"

#include <array>
#include <cmath>
#include <numeric>

#include "headloom/tasks/pathfinder/pathfinder_task.h"
#include "tests/tasks/support.h"

namespace headloom::tasks::pathfinder {
namespace {

using ::testing::HasSubstr;

std::vector<Image> images(int64_t count) {
  std::vector<Image> made;
  const Setting setting = setting_of(32);
  for (int64_t i = 0; i < count; ++i) {
    made.push_back(make_image(setting, 1, static_cast<uint64_t>(i)));
  }
  return made;
}

// Whether a snake was drawn within a cell of where a marker is.
bool touches(const Plane& snake, Cell marker) {
  for (int64_t y = marker.y - 1; y <= marker.y + 1; ++y) {
    for (int64_t x = marker.x - 1; x <= marker.x + 1; ++x) {
      if (snake.holds({y, x}) && snake.at(y, x) > 0.1) return true;
    }
  }
  return false;
}

TEST(Pathfinder, ImagesArePureFunctionsOfSeedAndNumber) {
  const Setting setting = setting_of(32);
  const Image one = make_image(setting, 3, 5), same = make_image(setting, 3, 5);
  EXPECT_EQ(one.pixels, same.pixels);
  EXPECT_EQ(one.connected, same.connected);
  EXPECT_NE(make_image(setting, 4, 5).pixels, one.pixels);
  EXPECT_NE(make_image(setting, 3, 6).pixels, one.pixels);
}

// Shares of grey values in the hard setting, of a run of the published algorithm over 200 images.
TEST(Pathfinder, GreyValuesFollowThePublishedAlgorithm) {
  constexpr int kImages = 300;
  const std::array<int, 7> upper = {0, 15, 63, 127, 191, 249, 255};
  const std::array<double, 7> published = {.548, .234, .045, .063, .082, .026, .002};
  std::array<double, 7> shares{};
  double mean = 0.0;
  for (const Image& image : images(kImages)) {
    ASSERT_EQ(image.pixels.size(), 1024u);
    for (const uint8_t pixel : image.pixels) {
      size_t bin = 0;
      while (pixel > upper[bin]) ++bin;
      shares[bin] += 1.0 / (1024.0 * kImages);
      mean += pixel / (1024.0 * kImages);
    }
  }
  for (size_t bin = 0; bin < shares.size(); ++bin) {
    EXPECT_NEAR(shares[bin], published[bin], 0.015) << "up to " << upper[bin];
  }
  EXPECT_NEAR(mean, 27.7, 1.5);
}

// The label is an even coin, and says whether the markers are on one snake.
TEST(Pathfinder, LabelsSayWhetherTheMarkersAreOnOneSnake) {
  constexpr int kImages = 300;
  int connected = 0;
  for (const Image& image : images(kImages)) {
    connected += image.connected;
    const size_t first = touches(image.snakes[0], image.markers[0]) ? 0 : 1;
    EXPECT_TRUE(touches(image.snakes[first], image.markers[0]));
    EXPECT_TRUE(touches(image.snakes[image.connected ? first : 1 - first], image.markers[1]) ||
                touches(image.snakes[1 - first], image.markers[0]));
  }
  EXPECT_NEAR(connected, kImages / 2, 4 * std::sqrt(kImages / 4.0));
}

// Every marker is a bright disk in the image.
TEST(Pathfinder, MarkersAreVisible) {
  for (const Image& image : images(20)) {
    for (const Cell& marker : image.markers) {
      EXPECT_GE(image.pixels[static_cast<size_t>(marker.y * 32 + marker.x)], 200);
    }
  }
}

TEST(Pathfinder, DrawsEverySize) {
  for (const int64_t size : {64, 128, 256}) {
    const Image image = make_image(setting_of(size, 6), 1, 0);
    EXPECT_EQ(static_cast<int64_t>(image.pixels.size()), size * size);
    EXPECT_EQ(*std::max_element(image.pixels.begin(), image.pixels.end()), 255);
    EXPECT_EQ(*std::min_element(image.pixels.begin(), image.pixels.end()), 0);
  }
}

TEST(Pathfinder, RefusesOtherSettings) {
  EXPECT_THAT(message_of([] { setting_of(48); }),
              HasSubstr("task pathfinder: expected size 32, 64, 128 or 256; found 48"));
  EXPECT_THAT(message_of([] { setting_of(32, 2); }), HasSubstr("contour_length between 3 and 64"));
}

TEST(Pathfinder, SplitsShareNoImageAndDoNotMove) {
  const auto make = [](int64_t train_size, const char* split) {
    auto task = make_task("pathfinder", {},
                          {{"contour_length", int64_t{4}},
                           {"train_size", train_size},
                           {"validation_size", int64_t{3}},
                           {"test_size", int64_t{2}},
                           {"evaluate_on", std::string(split)}});
    return std::unique_ptr<PathfinderTask>(dynamic_cast<PathfinderTask*>(task.release()));
  };
  TaskConfig config;
  const auto task = make(40, "validation"), larger = make(50, "validation"),
             test = make(40, "test");
  ASSERT_EQ(task->evaluation().size(), 3u);
  ASSERT_EQ(test->evaluation().size(), 2u);
  EXPECT_EQ(task->evaluation()[0].tokens, larger->evaluation()[0].tokens);
  EXPECT_EQ(task->training()[39].tokens, larger->training()[39].tokens);
  EXPECT_NE(task->evaluation()[0].tokens, test->evaluation()[0].tokens);
  EXPECT_NE(test->evaluation()[1].tokens, task->training()[0].tokens);
}

double sum_of(const Plane& plane) {
  return std::accumulate(plane.values.begin(), plane.values.end(), 0.0);
}

TEST(Plane, DrawsLines) {
  Plane plane(9, 9);
  draw_line(plane, {4, 4}, {4, 8}, 1, 1.0);
  EXPECT_EQ(sum_of(plane), 5.0);
  EXPECT_EQ(plane.at(4, 6), 1.0);
  Plane slope(9, 9);
  draw_line(slope, {0, 0}, {8, 4}, 1, 1.0);
  EXPECT_EQ(sum_of(slope), 9.0);
  EXPECT_EQ(slope.at(8, 4), 1.0);
  EXPECT_EQ(slope.at(0, 0), 1.0);
  Plane wide(9, 9);
  draw_line(wide, {4, 2}, {4, 6}, 2, 1.0);
  EXPECT_EQ(sum_of(wide), 10.0);
}

TEST(Plane, Dilates) {
  Plane plane(7, 7);
  plane.at(3, 3) = 0.5;
  plane.at(0, 0) = 1.0;
  const Plane grown = dilate(plane, disk_offsets(1));
  EXPECT_EQ(sum_of(grown), 5 * 0.5 + 3.0);
  EXPECT_EQ(grown.at(2, 3), 0.5);
  EXPECT_EQ(disk_offsets(2).size(), 13u);
}

// A constant stays what it is; an edge overshoots and is cut to 8 bits.
TEST(Plane, ResizesIn8Bits) {
  Plane constant(17, 17);
  for (double& value : constant.values) value = 100.0;
  for (const double value : Resizer(17, 9)(constant).values) EXPECT_EQ(value, 100.0);
  Plane edge(16, 16);
  for (int64_t y = 0; y < 16; ++y) {
    for (int64_t x = 8; x < 16; ++x) edge.at(y, x) = 255.0;
  }
  const Plane half = Resizer(16, 4)(edge);
  EXPECT_EQ(half.height, 4);
  EXPECT_EQ(half.width, 4);
  for (const double value : half.values) {
    EXPECT_EQ(value, std::floor(value));
    EXPECT_GE(value, 0.0);
    EXPECT_LE(value, 255.0);
  }
  EXPECT_LT(half.at(3, 0), 30.0);
  EXPECT_GT(half.at(3, 3), 225.0);
}

}  // namespace
}  // namespace headloom::tasks::pathfinder

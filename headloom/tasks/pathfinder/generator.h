#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "headloom/tasks/pathfinder/plane.h"

namespace headloom::tasks::pathfinder {

// How images of one size are drawn; the published values (Linsley et al., 2018; Tay et al., 2021).
// Lengths in pixels.
struct Setting {
  int64_t size = 32;  // height and width
  int64_t padding = 1, seed_distance = 7;
  double marker_radius = 1.5;
  int64_t contour_length = 14;  // paddles of a target snake: 6 easy, 9 intermediate, 14 hard
  int64_t paddle_length = 2;
  double paddle_thickness = 0.5;
  double continuity = 1.0;
  std::vector<int64_t> margins = {1};  // around paddles; drawn for each image
  double snake_contrast = 2.0, paddle_contrast = 0.75;
  int64_t distractor_length = 4, distractors = 5;  // paddles of a snake, and snakes
};
// For a size of 32, 64, 128 or 256; refuses others, and a contour length below 3.
Setting setting_of(int64_t size, int64_t contour_length = 14);

struct Image {
  std::vector<uint8_t> pixels;  // by rows
  bool connected = false;       // both markers on one snake: the label
  std::array<Cell, 2> markers;  // where the path may start and end
  // What was drawn of the two snakes before distractors and markers, 0 where there is nothing.
  std::array<Plane, 2> snakes;
};

// Image number `index` of a seed: a pure function of the arguments. Two snakes of paddles, each
// continuing the last at a small angle; short distractor snakes; two disks, at the start of one of
// the snakes and at the end of the same one (label 1) or the other (label 0), an even coin. Grey
// values are stretched to 0 .. 255. index < 2^56.
Image make_image(const Setting& setting, uint64_t seed, uint64_t index);

}  // namespace headloom::tasks::pathfinder

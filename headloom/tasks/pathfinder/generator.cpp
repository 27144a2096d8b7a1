#include "headloom/tasks/pathfinder/generator.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "headloom/base/check.h"
#include "headloom/tasks/random.h"

namespace headloom::tasks::pathfinder {
namespace {

constexpr const char* kWhere = "task pathfinder";
constexpr double kPi = 3.14159265358979323846;
constexpr int64_t kFiner = 2;  // lines are drawn at this many times the resolution
// Tries after the first.
constexpr int kPaddleRetries = 2, kDistractorRetries = 4;

double radians(uint64_t degrees) {
  return (static_cast<double>(degrees) - 180.0) * kPi / 180.0;
}

double opposite(double angle) {
  return angle < 0.0 ? angle + kPi : angle - kPi;
}

Cell move(Cell from, double angle, double distance) {
  return {
      static_cast<int64_t>(std::ceil(static_cast<double>(from.y) + distance * std::sin(angle))),
      static_cast<int64_t>(std::ceil(static_cast<double>(from.x) + distance * std::cos(angle)))};
}

struct Stroke {  // where a paddle starts, and where it points
  Cell start;
  double angle;
};

// A small plane whose first cell lies at `corner` of the image.
struct Patch {
  Cell corner;
  Plane plane;
};

// A free cell is one that nothing covers by more than this.
bool is_free(double mask) {
  return mask <= 0.3;
}

struct Snake {
  std::vector<Stroke> strokes;
  Cell pivot;
  double angle = 0.0;
  Patch last;  // what its last paddle covers, which may not block it yet
};

struct Candidate {
  Cell cell;
  double angle, weight;
};

// Draws one image: its state, and the steps of the generator.
class Painter {
 public:
  Painter(const Setting& setting, uint64_t seed, uint64_t index)
      : setting_(setting), stream_(seed, Purpose::kImages, index) {
    margin_ = setting.margins[stream_.below(setting.margins.size())];
    reach_ = setting.paddle_length + margin_;
    radius_ = reach_ + static_cast<int64_t>(std::ceil(setting.paddle_thickness));
    shrink_.emplace(2 * radius_ * kFiner + 1, 2 * radius_ + 1);
    near_ = disk_offsets(margin_);
    near_finer_ = disk_offsets(margin_ * kFiner);
  }

  Image paint() {
    const bool connected = stream_.below(2) == 1;
    Plane mask = blank();
    auto snakes = make_targets(mask);
    while (!snakes) snakes = make_targets(mask);
    std::array<Plane, 2> images{blank(), blank()};
    Plane image = blank();
    for (size_t s = 0; s < 2; ++s) {
      draw((*snakes)[s], setting_.snake_contrast * setting_.paddle_contrast, images[s]);
      image.raise_to(images[s]);
    }
    draw_distractors(image, mask);

    const size_t origin = stream_.below(2), terminal = connected ? origin : 1 - origin;
    const std::array<Cell, 2> markers{(*snakes)[origin].strokes.front().start,
                                      (*snakes)[terminal].strokes.back().start};
    for (const Cell& marker : markers) image.raise_to(disk(marker));
    return {stretched(image), connected, markers, std::move(images)};
  }

 private:
  Plane blank() const { return {setting_.size, setting_.size}; }

  // A paddle at the finer resolution.
  Plane fine_line(double angle) const {
    Plane fine(2 * radius_ * kFiner + 1, 2 * radius_ * kFiner + 1);
    const Cell centre{radius_ * kFiner, radius_ * kFiner};
    draw_line(fine, centre,
              move(centre, angle, static_cast<double>(setting_.paddle_length * kFiner)),
              std::lround(setting_.paddle_thickness * kFiner), 255.0);
    return fine;
  }
  Patch shrunk(const Plane& fine, Cell start, double most) const {
    Patch patch{{start.y - radius_, start.x - radius_}, (*shrink_)(fine)};
    for (double& value : patch.plane.values) value *= most / 255.0;
    return patch;
  }

  // What a paddle covers, 0 to 1.
  Patch cover_of(const Stroke& stroke) const {
    return shrunk(dilate(fine_line(stroke.angle), near_finer_), stroke.start, 1.0);
  }

  void draw(const Snake& snake, double contrast, Plane& image) const {
    for (const Stroke& stroke : snake.strokes) {
      const Patch line = shrunk(fine_line(stroke.angle), stroke.start, contrast);
      image.raise_to(line.plane, line.corner);
    }
  }

  // Where the mask of a paddle along `angle` covers, seen from where it starts: within the reach of
  // a point one cell off the start, as published.
  Offsets footprint(double angle) const {
    const Patch whole = cover_of({{1, 1}, angle});
    Offsets offsets;
    for (int64_t y = 0; y < whole.plane.height; ++y) {
      for (int64_t x = 0; x < whole.plane.width; ++x) {
        const Cell cell{whole.corner.y + y, whole.corner.x + x};
        const bool within = std::abs(cell.y) <= reach_ && std::abs(cell.x) <= reach_;
        if (within && whole.plane.at(y, x) >= 1.0) offsets.push_back(cell);
      }
    }
    return offsets;
  }

  // Cells from which a footprint covers free cells alone.
  static std::vector<Cell> free_cells(const Plane& mask, const Offsets& footprint) {
    std::vector<Cell> free;
    for (int64_t y = 0; y < mask.height; ++y) {
      for (int64_t x = 0; x < mask.width; ++x) {
        const auto taken = [&](const Cell& o) {
          const Cell near{y + o.y, x + o.x};
          return mask.holds(near) && !is_free(mask.at(near.y, near.x));
        };
        if (std::none_of(footprint.begin(), footprint.end(), taken)) free.push_back({y, x});
      }
    }
    return free;
  }

  // A snake that has its tail and direction; nothing when its first paddle leaves the image.
  std::optional<Snake> begin(Cell tail, double angle) const {
    const Cell head = move(tail, angle, static_cast<double>(setting_.paddle_length));
    const Cell pivot = move(head, opposite(angle), static_cast<double>(reach_));
    const Plane whole(setting_.size, setting_.size);
    if (!whole.holds(head) || !whole.holds(pivot)) return std::nullopt;
    return Snake{{{tail, angle}}, pivot, angle, cover_of({tail, angle})};
  }

  // The first paddle in free space, away from a frame.
  std::optional<Snake> seed_snake(const Plane& mask, int64_t frame) {
    for (int attempt = 0; attempt <= kPaddleRetries; ++attempt) {
      const double angle = radians(stream_.below(360));
      Plane framed = mask;
      framed.frame(frame, 1.0);
      const std::vector<Cell> free = free_cells(framed, footprint(angle));
      if (free.empty()) return std::nullopt;
      if (const auto snake = begin(free[stream_.below(free.size())], angle)) return snake;
    }
    return std::nullopt;
  }

  // The second target begins near the first.
  std::optional<Snake> seed_beside(Cell tail) {
    for (int attempt = 0; attempt <= kPaddleRetries; ++attempt) {
      const double angle = radians(stream_.below(360)), way = radians(stream_.below(360));
      const auto distance = static_cast<double>(setting_.seed_distance);
      const Cell beside{std::llrint(static_cast<double>(tail.y) + distance * std::sin(way)),
                        std::llrint(static_cast<double>(tail.x) + distance * std::cos(way))};
      if (const auto snake = begin(beside, angle)) return snake;
    }
    return std::nullopt;
  }

  // The cells around a pivot where the next paddle may begin, by rows, and how likely each is.
  std::vector<Candidate> candidates(Cell pivot, double angle, const Plane& mask) const {
    const auto radius = static_cast<double>(reach_);
    const double step = 360.0 / (2.0 * radius * kPi);
    std::vector<std::pair<int64_t, int64_t>> cells;
    for (int64_t i = 0; static_cast<double>(i) * step < 360.0; ++i) {
      const double at = static_cast<double>(i) * step * kPi / 180.0;
      const double y = static_cast<double>(pivot.y) + radius * std::sin(at);
      const double x = static_cast<double>(pivot.x) + radius * std::cos(at);
      const auto side = static_cast<double>(setting_.size);
      if (y < 0.0 || y >= side || x < 0.0 || x >= side) continue;
      cells.emplace_back(static_cast<int64_t>(y), static_cast<int64_t>(x));
    }
    std::sort(cells.begin(), cells.end());
    cells.erase(std::unique(cells.begin(), cells.end()), cells.end());
    std::vector<Candidate> result;
    for (const auto& [y, x] : cells) {
      const double way =
          std::atan2(static_cast<double>(y - pivot.y), static_cast<double>(x - pivot.x));
      const double turn = std::min(std::abs(way - angle), 2.0 * kPi - std::abs(way - angle));
      const double near = std::cos(std::min(setting_.continuity * turn, kPi / 2.0));
      result.push_back({{y, x}, way, near * near * (1.0 - dilated_at(mask, {y, x}, near_))});
    }
    return result;
  }

  static bool crosses(const Plane& mask, const Patch& patch) {
    for (int64_t y = 0; y < patch.plane.height; ++y) {
      for (int64_t x = 0; x < patch.plane.width; ++x) {
        const Cell cell{patch.corner.y + y, patch.corner.x + x};
        if (!mask.holds(cell)) continue;
        if (mask.at(cell.y, cell.x) + patch.plane.at(y, x) >= 1.8) return true;
      }
    }
    return false;
  }

  const Candidate& choose(const std::vector<Candidate>& all, double total) {
    double lot = stream_.uniform() * total;
    for (const Candidate& candidate : all) {
      lot -= candidate.weight;
      if (lot < 0.0) return candidate;
    }
    return *std::max_element(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {
      return a.weight < b.weight;
    });
  }

  // One paddle more; false when there is no room.
  bool extend(Snake& snake, Plane& mask) {
    const Cell pivot =
        move(snake.pivot, snake.angle, static_cast<double>(setting_.paddle_length + 2 * margin_));
    const std::vector<Candidate> all = candidates(pivot, snake.angle, mask);
    double total = 0.0;
    for (const Candidate& candidate : all) total += candidate.weight;
    if (total < 1e-4) return false;
    for (int attempt = 0; attempt <= kPaddleRetries; ++attempt) {
      const Candidate& chosen = choose(all, total);
      const Stroke stroke{chosen.cell, opposite(chosen.angle)};
      Patch next = cover_of(stroke);
      if (crosses(mask, next)) continue;
      mask.raise_to(snake.last.plane, snake.last.corner);
      snake.strokes.push_back(stroke);
      snake.pivot = pivot;
      snake.angle = chosen.angle;
      snake.last = std::move(next);
      return true;
    }
    return false;
  }

  // Both target snakes, a paddle of each in turn; nothing when one does not fit.
  std::optional<std::array<Snake, 2>> make_targets(Plane& mask) {
    mask = blank();
    mask.frame(setting_.padding, 1.0);
    auto first = seed_snake(mask, 2 * setting_.seed_distance);
    if (!first) return std::nullopt;
    auto second = seed_beside(first->strokes[0].start);
    if (!second) return std::nullopt;
    std::array<Snake, 2> snakes{std::move(*first), std::move(*second)};
    for (int64_t length = 1; length < setting_.contour_length; ++length) {
      for (Snake& snake : snakes) {
        if (!extend(snake, mask)) return std::nullopt;
      }
    }
    mask.raise_to(snakes[1].last.plane, snakes[1].last.corner);
    return snakes;
  }

  // Leaves image and mask as they were when it does not fit.
  bool draw_distractor(Plane& image, Plane& mask) {
    auto snake = seed_snake(mask, 1);
    if (!snake) return false;
    Plane new_mask = mask;
    for (int64_t length = 1; length < setting_.distractor_length; ++length) {
      if (!extend(*snake, new_mask)) return false;
    }
    new_mask.raise_to(snake->last.plane, snake->last.corner);
    mask = std::move(new_mask);
    draw(*snake, setting_.snake_contrast, image);
    return true;
  }

  void draw_distractors(Plane& image, Plane& mask) {
    constexpr double kRoom = 0.01;  // of the cells, to go on
    for (int64_t i = 0; i < setting_.distractors; ++i) {
      for (int attempt = 0; attempt <= kDistractorRetries; ++attempt) {
        const auto free = std::count_if(mask.values.begin(), mask.values.end(), is_free);
        if (static_cast<double>(free) < kRoom * static_cast<double>(mask.values.size())) return;
        if (draw_distractor(image, mask)) break;
      }
    }
  }

  Plane disk(Cell centre) const {
    const int64_t side = setting_.size * kFiner;
    const double radius = setting_.marker_radius * kFiner;
    Plane fine(side, side);
    for (int64_t y = 0; y < side; ++y) {
      for (int64_t x = 0; x < side; ++x) {
        const auto dy = static_cast<double>(y - centre.y * kFiner);
        const auto dx = static_cast<double>(x - centre.x * kFiner);
        if (dy * dy + dx * dx <= radius * radius) fine.at(y, x) = 255.0;
      }
    }
    Plane result = Resizer(side, setting_.size)(fine);
    for (double& value : result.values) value /= 255.0;
    return result;
  }

  static std::vector<uint8_t> stretched(const Plane& image) {
    const auto [low, high] = std::minmax_element(image.values.begin(), image.values.end());
    std::vector<uint8_t> pixels;
    pixels.reserve(image.values.size());
    for (const double value : image.values) {
      const double share = (value - *low) / (*high - *low);
      pixels.push_back(static_cast<uint8_t>(255.0 * share + 0.5));
    }
    return pixels;
  }

  const Setting& setting_;
  RandomStream stream_;
  int64_t margin_ = 0, reach_ = 0;  // reach: length of a paddle and its margin
  int64_t radius_ = 0;              // of a paddle's plane
  std::optional<Resizer> shrink_;   // of paddles
  Offsets near_, near_finer_;       // disks of the margin
};

}  // namespace

Setting setting_of(int64_t size, int64_t contour_length) {
  HEADLOOM_CHECK(contour_length >= 3 && contour_length <= 64, kWhere,
                 "contour_length between 3 and 64", cat(contour_length));
  Setting s;
  s.size = size;
  s.contour_length = contour_length;
  s.distractor_length = contour_length / 3;
  int64_t paddles = 20;  // of all distractors
  if (size == 64) {
    s = {64, 1, 12, 2.5, contour_length, 5, 1.0, 1.8, {1}, 0.8, 1.0, s.distractor_length, 0};
    paddles = 22;
  } else if (size == 128) {
    s = {128, 1, 20, 3.0, contour_length, 5, 1.5, 1.8, {2, 3}, 0.9, 1.0, s.distractor_length, 0};
    paddles = 35;
  } else if (size == 256) {
    s = {256, 22, 27, 5.0, contour_length, 5, 2.0, 1.8, {3}, 1.0, 1.0, s.distractor_length, 0};
    paddles = 30;
  } else {
    HEADLOOM_CHECK(size == 32, kWhere, "size 32, 64, 128 or 256", cat(size));
  }
  s.distractors = paddles / s.distractor_length;
  return s;
}

Image make_image(const Setting& setting, uint64_t seed, uint64_t index) {
  return Painter(setting, seed, index).paint();
}

}  // namespace headloom::tasks::pathfinder

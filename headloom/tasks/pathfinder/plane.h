#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

// Small grey images, and the drawing operations of the Pathfinder generator. Coordinates are (y,
// x), y downwards.
namespace headloom::tasks::pathfinder {

struct Cell {
  int64_t y = 0, x = 0;
};

struct Plane {
  Plane(int64_t height, int64_t width)
      : height(height), width(width), values(static_cast<size_t>(height * width)) {}

  double& at(int64_t y, int64_t x) { return values[static_cast<size_t>(y * width + x)]; }
  double at(int64_t y, int64_t x) const { return values[static_cast<size_t>(y * width + x)]; }
  bool holds(Cell c) const { return c.y >= 0 && c.y < height && c.x >= 0 && c.x < width; }
  // The larger of both, cell by cell; the other's first cell lies at `corner`, and what lies
  // outside is left out.
  void raise_to(const Plane& other, Cell corner = {0, 0});
  void frame(int64_t thickness, double value);  // sets the cells near the border

  int64_t height, width;
  std::vector<double> values;  // by rows
};

// Cells of a dilation kernel, relative to its centre.
using Offsets = std::vector<Cell>;
Offsets disk_offsets(int64_t radius);  // y^2 + x^2 <= radius^2

// max over the offsets o of plane(cell + o), 0 outside.
double dilated_at(const Plane& plane, Cell cell, const Offsets& offsets);
// That of every cell.
Plane dilate(const Plane& plane, const Offsets& offsets);

// A straight line of `value` and integer width, not anti-aliased: Bresenham's for a width of 1,
// else all cells whose centres are within the width across and the length along.
void draw_line(Plane& plane, Cell from, Cell to, int64_t width, double value);

// Resizes square images as image libraries do with 8-bit pixels: Lanczos with three lobes, widened
// by the factor when it shrinks, along the rows and then the columns, rounded to 0 .. 255 after
// each.
class Resizer {
 public:
  Resizer(int64_t from, int64_t to);
  Plane operator()(const Plane& plane) const;  // [from, from] -> [to, to]

 private:
  struct Taps {  // the source cells of a target cell, and their weights, which sum to 1
    int64_t first;
    std::vector<double> weights;
  };
  Plane resize_rows(const Plane& plane) const;  // and transpose: [h, from] -> [to, h]

  std::vector<Taps> all_;
};

}  // namespace headloom::tasks::pathfinder

#include "headloom/kernels/transposition.h"

#include <gtest/gtest.h>

#include "headloom/kernels/isa_table.h"
#include "tests/kernels/guarded.h"

namespace headloom::kernels {
namespace {

using testing::fill_uniform;
using testing::Guarded;

// Whole squares and parts of them, with room between the rows of both, which stays as it was.
TEST(Transposition, MovesEveryElementAndNoOther) {
  constexpr float kBetween = -7.0f;
  for (const Isa isa : available_isas()) {
    for (const int64_t rows : {0, 1, 15, 16, 33, 64}) {
      for (const int64_t columns : {1, 8, 16, 37}) {
        const int64_t from_stride = columns + 3, to_stride = rows + 5;
        Guarded<float> from(rows * from_stride + 1), to(columns * to_stride);
        fill_uniform(from.data(), rows * from_stride + 1, 7);
        std::fill_n(to.data(), columns * to_stride, kBetween);
        transposition_table(isa).f32(
            {from.data(), from_stride, rows, columns, to.data(), to_stride});
        for (int64_t j = 0; j < columns; ++j) {
          for (int64_t i = 0; i < to_stride; ++i) {
            ASSERT_EQ(to.data()[j * to_stride + i],
                      i < rows ? from.data()[i * from_stride + j] : kBetween)
                << name(isa) << ' ' << rows << " x " << columns << " at " << i << ", " << j;
          }
        }
        EXPECT_TRUE(to.surroundings_intact());
      }
    }
  }
}

}  // namespace
}  // namespace headloom::kernels

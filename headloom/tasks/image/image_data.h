#pragma once

#include <filesystem>

#include "headloom/tasks/examples.h"

// Pictures as sequences of grey values, by rows.
namespace headloom::tasks::image {

// floor(255.5 (0.2989 R + 0.5870 G + 0.1140 B)) with R, G, B in 0 .. 1: how the published pipeline
// makes 8-bit grey.
uint8_t grey_of(uint8_t red, uint8_t green, uint8_t blue);

constexpr int64_t kCifarPixels = 1024;  // 32 by 32

// CIFAR-10's binary version (Krizhevsky, 2009): records of a class 0 .. 9 and three planes of 1,024
// bytes, red, green and blue. Training: data_batch_1.bin, data_batch_2.bin, ... of the folder, in
// that order; else test_batch.bin. Refuses a folder without them, sizes that are not whole records,
// and classes above 9.
Examples read_cifar(const std::filesystem::path& folder, bool training);

// A row a picture: `pixels` values 0 .. 255 and a class 0 .. 9 with commas between, no header.
// Refuses, with file and line, anything else.
Examples read_csv(const std::filesystem::path& file, int64_t pixels);

}  // namespace headloom::tasks::image

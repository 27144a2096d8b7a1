#pragma once

#include <cstddef>
#include <vector>

namespace headloom::report {

// The value that a Student t variable with `degrees` > 0 degrees of freedom stays below with
// `probability` in (0, 1).
double student_t_quantile(double probability, double degrees);

// A mean with the two-sided interval mean +- half_width that Student's t gives for independent
// normal samples. Below two samples there is no interval: half_width is NaN; without samples the
// mean is NaN too.
struct Estimate {
  double mean;
  double half_width;
  size_t count;
};
Estimate estimate_mean(const std::vector<double>& samples, double confidence = 0.95);

// The mean of values[i] - baseline[i]: the pairs share what is not under test (seed, data order),
// so that its spread drops out. Refuses vectors of different length.
Estimate estimate_difference(const std::vector<double>& values, const std::vector<double>& baseline,
                             double confidence = 0.95);

// The mean of the two middle values when their number is even; NaN when there are none.
double median(std::vector<double> values);

}  // namespace headloom::report

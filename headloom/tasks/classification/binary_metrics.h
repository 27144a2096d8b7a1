#pragma once

namespace headloom::tasks::classification {

// How often two classes were found and missed; class 1 is the positive one.
struct Confusion {
  double true_positive = 0, false_positive = 0, false_negative = 0, true_negative = 0;
};

double accuracy(const Confusion& counts);
// 2 tp / (2 tp + fp + fn); 0 when there is no positive.
double f1(const Confusion& counts);
// Matthews' correlation, -1 to 1; 0 when one of the classes never occurs or is never predicted.
double matthews(const Confusion& counts);

}  // namespace headloom::tasks::classification

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "headloom/tasks/examples.h"

// ListOps (Nangia & Bowman, 2018) as the Long Range Arena has it (Tay et al., ICLR 2021): nested
// prefix expressions over the digits 0-9.
//   MIN, MAX   smallest, largest argument
//   MED        median; for an even count the mean of the two middle values, rounded down
//   SM         sum modulo 10
namespace headloom::tasks::listops {

// The fixed token table. The original pipeline numbers tokens in an order that changes from run to
// run; its vocabulary has these 17 entries too.
enum Token : uint8_t {
  kPad = 0,
  kDigit0 = 1,  // 1 .. 10 are the digits 0 .. 9
  kMin = 11,    // "[MIN"
  kMax = 12,    // "[MAX"
  kMed = 13,    // "[MED"
  kSm = 14,     // "[SM"
  kClose = 15,  // "]"
  kUnknown = 16,
  kClass = 17,  // the learned vector of "cls" pooling, in no text
};
constexpr int64_t kVocabulary = 17;

using Tokens = std::vector<uint8_t>;  // 1 .. 15, in the order of the text
constexpr int64_t kValues = 10;       // of an expression: the classes

// Value of one whole expression, by a stack machine. `where` starts the messages: refuses no token,
// a token out of 1 .. 15, an operator without arguments, brackets that do not match, and anything
// after the end.
int evaluate(const Tokens& tokens, std::string_view where);

// Reads an expression with single or more spaces between tokens. Parentheses, which only group, are
// dropped once they balance. Refuses unknown tokens, and what evaluate() refuses.
Example parse(std::string_view text, std::string_view where);

// "[MAX 4 [SM 1 2 ] ]"
std::string print(const Tokens& tokens);
// The same in the binary-branching form of the published files: an operator and n arguments open n
// + 1 parentheses, "( ( ( [MAX 4 ) ( ( ( [SM 1 ) 2 ) ] ) ) ] )". `tokens` is one whole expression.
std::string print_tree(const Tokens& tokens);

}  // namespace headloom::tasks::listops

#pragma once

#include <cstdint>
#include <vector>

#include "headloom/tasks/glue.h"
#include "headloom/text/tokenizer.h"

namespace headloom::tasks::text_to_text {

// The tokens of a row as T5 words it (Raffel et al., 2020, appendix D), without the end:
//   sst2 sentence: A
//   rte sentence1: A sentence2: B
// At most `room` of them: sentences are cut at their ends, of a pair always the longer one. Refuses
// a room that the words around the sentences fill. `where` starts the message.
std::vector<int64_t> prompt(const ClassifiedTexts& row, const GlueFormat& format,
                            const text::Tokenizer& tokenizer, int64_t room, const char* where);

}  // namespace headloom::tasks::text_to_text

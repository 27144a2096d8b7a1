#pragma once

#include <gtest/gtest.h>

#include <string>

#include "headloom/base/check.h"

namespace headloom::testing {

// The message of the Error that `action` raises; a failed test when it raises none.
template <class Action>
std::string message_of(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "no headloom::Error";
  return "";
}

}  // namespace headloom::testing

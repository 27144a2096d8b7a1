#include "headloom/cli/app.h"

int main(int argc, char** argv) {
  return headloom::cli::run(argc, argv);
}

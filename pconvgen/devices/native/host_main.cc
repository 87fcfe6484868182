// Runs a compiled model once: host_main LIBRARY INPUTS OUTPUTS [count]
//
// It is the device's side of the emulated device and needs only what the wheels ship: the headers and the library of
// tvm-ffi, and TVM's runtime library, which registers the virtual machine. INPUTS and OUTPUTS are containers of tensors.
// With "count" the model runs as count.h says.
#include <exception>
#include <iostream>
#include <string>

#include "count.h"
#include "model.h"
#include "tensors.h"

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: host_main LIBRARY INPUTS OUTPUTS [count]\n";
    return 2;
  }
  try {
    pconvgen::Model model(argv[1]);
    auto inputs = pconvgen::ReadTensors(argv[2]);
    pconvgen::WriteTensors(argv[3], argc > 4 ? pconvgen::Count(model, inputs) : model(inputs));
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}

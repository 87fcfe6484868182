// The C interface of pconvgen.h.
#include "pconvgen.h"

#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "model.h"
#include "tensors.h"

struct pconvgen_model {
  explicit pconvgen_model(const std::string& library) : model(library) {}
  pconvgen::Model model;
  // A model has one memory for its activations: threads take turns.
  std::mutex turn;
  // Where inputs are copied to, as kernels need them aligned.
  std::vector<pconvgen::ffi::Tensor> inputs;
};

namespace {

namespace ffi = pconvgen::ffi;

thread_local std::string last_error;

ffi::Tensor Allocate(const pconvgen_tensor& described) {
  DLDataType type{described.type_code, described.type_bits, 1};
  ffi::Shape shape(described.shape, described.shape + described.rank);
  return ffi::Tensor::FromNDAlloc(pconvgen::AlignedMemory(), shape, type, DLDevice{kDLCPU, 0});
}

bool Fits(const ffi::Tensor& tensor, const pconvgen_tensor& described) {
  bool fits = tensor.ndim() == described.rank && tensor.dtype().code == described.type_code &&
              tensor.dtype().bits == described.type_bits;
  for (int axis = 0; fits && axis < described.rank; ++axis) fits = tensor.size(axis) == described.shape[axis];
  return fits;
}

void Run(pconvgen_model* model, const pconvgen_tensor* described, int inputs_count, int outputs_count,
         const void* const* inputs, void* const* outputs) {
  std::lock_guard<std::mutex> lock(model->turn);
  if (model->inputs.empty()) {
    for (int index = 0; index < inputs_count; ++index) model->inputs.push_back(Allocate(described[index]));
  }
  for (int index = 0; index < inputs_count; ++index) {
    const ffi::Tensor& input = model->inputs.at(index);
    if (!Fits(input, described[index])) throw std::runtime_error("inputs differ from those of the first run");
    std::memcpy(input.data_ptr(), inputs[index], ffi::GetDataSize(*input.GetDLTensorPtr()));
  }
  std::vector<ffi::Tensor> found;
  pconvgen::Flatten(model->model(model->inputs), &found);
  if (found.size() != static_cast<size_t>(outputs_count)) throw std::runtime_error("another number of outputs");
  for (int index = 0; index < outputs_count; ++index) {
    const pconvgen_tensor& wanted = described[inputs_count + index];
    if (!Fits(found[index], wanted)) throw std::runtime_error(std::string("another shape of ") + wanted.name);
    std::memcpy(outputs[index], found[index].data_ptr(), ffi::GetDataSize(*found[index].GetDLTensorPtr()));
  }
}

}  // namespace

extern "C" {

pconvgen_model* pconvgen_load(const char* library) {
  try {
    // A name without a folder would be looked for where the system's libraries are.
    std::string path = library;
    return new pconvgen_model(path.find('/') == std::string::npos ? "./" + path : path);
  } catch (const std::exception& error) {
    last_error = error.what();
    return nullptr;
  }
}

int pconvgen_run(pconvgen_model* model, const pconvgen_tensor* described, int inputs_count, int outputs_count,
                 const void* const* inputs, void* const* outputs) {
  try {
    Run(model, described, inputs_count, outputs_count, inputs, outputs);
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
    return 1;
  }
}

const char* pconvgen_error(void) { return last_error.c_str(); }

void pconvgen_free(pconvgen_model* model) { delete model; }

}  // extern "C"

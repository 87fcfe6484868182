// Containers of tensors (see container.py): their number, then for each its dtype, its shape and its bytes.
// Not .npy or safetensors, whose heads of text would take a parser here.
#pragma once

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace pconvgen {

namespace ffi = tvm::ffi;

constexpr size_t kAlignment = 64;  // what the kernels' aligned loads and stores rely on

// The allocator of tvm-ffi tensors that the kernels may load from.
struct AlignedMemory {
  void AllocData(DLTensor* tensor) {
    size_t bytes = ffi::GetDataSize(*tensor);
    // aligned_alloc is too new for some phones.
    if (posix_memalign(&tensor->data, kAlignment, bytes + kAlignment) != 0) throw std::bad_alloc();
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

template <typename T>
T Read(std::istream& file) {
  T value{};
  file.read(reinterpret_cast<char*>(&value), sizeof(T));
  return value;
}

template <typename T>
void Write(std::ostream& file, T value) {
  file.write(reinterpret_cast<const char*>(&value), sizeof(T));
}

inline std::vector<ffi::Tensor> ReadTensors(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<ffi::Tensor> tensors;
  for (uint32_t left = Read<uint32_t>(file); file && left; --left) {
    DLDataType dtype = Read<DLDataType>(file);
    std::vector<int64_t> shape(Read<uint32_t>(file));
    for (int64_t& extent : shape) extent = Read<int64_t>(file);
    tensors.push_back(ffi::Tensor::FromNDAlloc(AlignedMemory(), ffi::Shape(shape), dtype, DLDevice{kDLCPU, 0}));
    file.read(static_cast<char*>(tensors.back().data_ptr()), ffi::GetDataSize(*tensors.back().GetDLTensorPtr()));
  }
  if (!file) throw std::runtime_error("cannot read the inputs from " + path);
  return tensors;
}

// Appends the tensors of a result, which is a tensor or a (nested) tuple of them.
inline void Flatten(const ffi::Any& value, std::vector<ffi::Tensor>* tensors) {
  if (auto tensor = value.try_cast<ffi::Tensor>()) {
    tensors->push_back(*tensor);
    return;
  }
  for (const ffi::Any& part : value.cast<ffi::Array<ffi::Any>>()) Flatten(part, tensors);
}

inline void WriteTensors(const std::string& path, const ffi::Any& result) {
  std::vector<ffi::Tensor> tensors;
  Flatten(result, &tensors);
  std::ofstream file(path, std::ios::binary);
  Write<uint32_t>(file, tensors.size());
  for (const ffi::Tensor& tensor : tensors) {
    Write(file, tensor.dtype());
    Write<uint32_t>(file, tensor.ndim());
    for (int axis = 0; axis < tensor.ndim(); ++axis) Write<int64_t>(file, tensor.size(axis));
    file.write(static_cast<const char*>(tensor.data_ptr()), ffi::GetDataSize(*tensor.GetDLTensorPtr()));
  }
  if (!file) throw std::runtime_error("cannot write the outputs to " + path);
}

}  // namespace pconvgen

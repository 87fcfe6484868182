// Runs a compiled model once: host_main LIBRARY INPUTS OUTPUTS [count]
//
// It is the device's side of the emulated device and needs only what the wheels ship: the headers and the library of
// tvm-ffi, and TVM's runtime library, which registers the virtual machine. INPUTS and OUTPUTS are containers of tensors
// (see container.py): their number, then for each its dtype, its shape and its bytes. With "count" the model runs twice
// to warm up (memory pools fill, symbols are bound), then once between the markers that count_instructions.c looks for.
#include <sys/prctl.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <cstdint>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace ffi = tvm::ffi;

namespace {

constexpr int kMarker = 0x70637667;  // no prctl of Linux: harmless where nobody counts
constexpr size_t kAlignment = 64;    // what the kernels' aligned loads and stores rely on
constexpr int kWarmUps = 2;

// The allocator of tvm-ffi tensors that the kernels may load from.
struct AlignedMemory {
  void AllocData(DLTensor* tensor) {
    size_t bytes = ffi::GetDataSize(*tensor);
    tensor->data = std::aligned_alloc(kAlignment, (bytes / kAlignment + 1) * kAlignment);
    if (tensor->data == nullptr) throw std::bad_alloc();
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

std::vector<ffi::Any> ReadTensors(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<ffi::Any> tensors(Read<uint32_t>(file));
  for (ffi::Any& tensor : tensors) {
    DLDataType dtype = Read<DLDataType>(file);
    std::vector<int64_t> shape(Read<uint32_t>(file));
    for (int64_t& extent : shape) extent = Read<int64_t>(file);
    ffi::Tensor read = ffi::Tensor::FromNDAlloc(AlignedMemory(), ffi::Shape(shape), dtype, DLDevice{kDLCPU, 0});
    file.read(static_cast<char*>(read.data_ptr()), ffi::GetDataSize(*read.GetDLTensorPtr()));
    tensor = read;
  }
  if (!file) throw std::runtime_error("cannot read the inputs from " + path);
  return tensors;
}

// Appends the tensors of a result, which is a tensor or a (nested) tuple of them.
void Flatten(const ffi::Any& value, std::vector<ffi::Tensor>* tensors) {
  if (auto tensor = value.try_cast<ffi::Tensor>()) {
    tensors->push_back(*tensor);
    return;
  }
  for (const ffi::Any& part : value.cast<ffi::Array<ffi::Any>>()) Flatten(part, tensors);
}

void WriteTensors(const std::string& path, const ffi::Any& result) {
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

void Run(const std::string& library, const std::string& inputs, const std::string& outputs, bool count) {
  ffi::Module module = ffi::Module::LoadFromFile(library);
  auto load = module->GetFunction("vm_load_executable");
  if (!load) throw std::runtime_error(library + " is not a compiled model: it has no vm_load_executable");
  ffi::Module vm = (*load)().cast<ffi::Module>();
  constexpr int kPooledAllocator = 2;
  vm->GetFunction("vm_initialization").value()(static_cast<int>(kDLCPU), 0, kPooledAllocator);
  ffi::Function main_function = vm->GetFunction("main").value();

  std::vector<ffi::Any> tensors = ReadTensors(inputs);
  std::vector<ffi::AnyView> arguments(tensors.begin(), tensors.end());
  ffi::Any result;
  auto infer = [&] {
    result = nullptr;  // its memory goes back to the pool first, so that every run finds the pool the same
    main_function.CallPacked(arguments.data(), static_cast<int32_t>(arguments.size()), &result);
  };
  for (int run = 0; count && run < kWarmUps; ++run) infer();
  if (count) prctl(kMarker, 1, 0, 0, 0);
  infer();
  if (count) prctl(kMarker, 0, 0, 0, 0);
  WriteTensors(outputs, result);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: host_main LIBRARY INPUTS OUTPUTS [count]\n";
    return 2;
  }
  try {
    Run(argv[1], argv[2], argv[3], argc > 4);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}

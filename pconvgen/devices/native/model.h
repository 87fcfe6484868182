// A compiled model: a Relax executable in a shared library, called and measured as the local device does (worker.py).
#pragma once

#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "steady.h"
#include "tensors.h"

namespace pconvgen {

class Model {
 public:
  // Throws when the library cannot be loaded or is no compiled model.
  explicit Model(const std::string& library) : module_(ffi::Module::LoadFromFile(library)) {
    auto load = module_->GetFunction("vm_load_executable");
    if (!load) throw std::runtime_error(library + " is not a compiled model: it has no vm_load_executable");
    vm_ = (*load)().cast<ffi::Module>();
    constexpr int kPooledAllocator = 2;
    vm_.value()->GetFunction("vm_initialization").value()(static_cast<int>(kDLCPU), 0, kPooledAllocator);
    main_ = vm_.value()->GetFunction("main").value();
  }

  ffi::Any operator()(const std::vector<ffi::Tensor>& inputs) const {
    std::vector<ffi::AnyView> arguments(inputs.begin(), inputs.end());
    ffi::Any result;
    main_.value().CallPacked(arguments.data(), static_cast<int32_t>(arguments.size()), &result);
    return result;
  }

 private:
  ffi::Module module_;
  ffi::Optional<ffi::Module> vm_;
  ffi::Optional<ffi::Function> main_;
};

using Clock = std::chrono::steady_clock;

inline double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

constexpr double kRepeatSeconds = 0.005;  // long against the clock's resolution and a stray interrupt
constexpr size_t kMinRepeats = 10, kMostColdRepeats = 60;

inline double WarmUp(const Model& model, const std::vector<ffi::Tensor>& inputs) {
  auto started = Clock::now();
  return UntilSteady([&] { model(inputs); }, [&] { return SecondsSince(started); });
}

// Milliseconds of one inference for each repeat, for about so many seconds.
inline std::vector<double> Measure(const Model& model, const std::vector<ffi::Tensor>& inputs, double seconds) {
  double estimate = WarmUp(model, inputs);
  int number = std::max(1, static_cast<int>(std::ceil(kRepeatSeconds / estimate)));
  size_t repeats = std::max(kMinRepeats, static_cast<size_t>(std::ceil(seconds / (number * estimate))));
  std::vector<double> times;
  while (times.size() < repeats) {
    auto started = Clock::now();
    for (int call = 0; call < number; ++call) model(inputs);
    times.push_back(1e3 * SecondsSince(started) / number);
  }
  return times;
}

// The same of single calls, after `evict` bytes, the inputs and the memory of the results went through the caches.
inline std::vector<double> MeasureCold(const Model& model, const std::vector<ffi::Tensor>& inputs, double seconds,
                                       size_t evict) {
  std::vector<std::vector<char>> masters;
  for (const ffi::Tensor& input : inputs) {
    const char* data = static_cast<const char*>(input.data_ptr());
    masters.emplace_back(data, data + ffi::GetDataSize(*input.GetDLTensorPtr()));
  }
  std::vector<uint64_t> others(evict / sizeof(uint64_t), 1);
  volatile uint64_t sum = 0;
  std::vector<double> times;
  WarmUp(model, inputs);
  auto started = Clock::now();
  ffi::Any result = model(inputs);
  while (times.size() <= kMinRepeats || (SecondsSince(started) < 2 * seconds && times.size() < kMostColdRepeats)) {
    uint64_t total = 0;
    for (uint64_t value : others) total += value;
    sum = total;
    for (size_t index = 0; index < inputs.size(); ++index) {
      std::memcpy(inputs[index].data_ptr(), masters[index].data(), masters[index].size());
    }
    std::vector<ffi::Tensor> outputs;
    Flatten(result, &outputs);
    for (const ffi::Tensor& output : outputs) {
      std::memset(output.data_ptr(), 0, ffi::GetDataSize(*output.GetDLTensorPtr()));
    }
    outputs.clear();
    result = nullptr;  // the machine keeps its memory for the next one
    auto begun = Clock::now();
    result = model(inputs);
    times.push_back(1e3 * SecondsSince(begun));
  }
  (void)sum;
  times.erase(times.begin());
  return times;
}

}  // namespace pconvgen

// One session of a client: a process of its own, in a folder of its own, in which TVM's server loop answers.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/string.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "count.h"
#include "model.h"
#include "system.h"
#include "tensors.h"

namespace pconvgen {

// Where a file of the session lies; only plain names are taken, so that nothing outside its folder is touched.
inline std::string InFolder(const std::string& folder, const std::string& name) {
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos) {
    throw std::runtime_error("not the name of a file in the session's folder: " + name);
  }
  return folder + "/" + name;
}

inline std::vector<int> ParseCores(const std::string& text) {
  std::vector<int> cores;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) cores.push_back(std::stoi(part));
  return cores;
}

// Keeps the process to some cores, and has TVM's threads run on them, one each.
inline void KeepToCores(const std::vector<int>& cores, int threads) {
  setenv("TVM_NUM_THREADS", std::to_string(threads).c_str(), 1);  // TVM asks once, when its first thread starts
  if (!cores.empty()) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int core : cores) CPU_SET(core, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0) throw std::runtime_error("these cores cannot be used");
  }
  if (threads == 1) return;
  std::vector<ffi::String> names;
  for (int core : UsableCores()) names.push_back(ffi::String(std::to_string(core)));
  constexpr int kOneCorePerThread = -2;
  auto configure = ffi::Function::GetGlobalRequired("runtime.config_threadpool");
  configure(kOneCorePerThread, threads, ffi::Array<ffi::String>(names.begin(), names.end()));
}

// Runs a model on a file of inputs and writes its outputs; where `seconds` is positive, it is measured, or counted where
// there is a file in which the emulator counts: `counts`, which then is copied to a file beside the outputs.
inline std::string Run(const std::string& library, const std::string& inputs, const std::string& outputs, int threads,
                       const std::string& cores, double seconds, int64_t evict, const Idle& idle,
                       const std::string& counts) {
  std::vector<int> chosen = ParseCores(cores);
  KeepToCores(chosen, threads);
  std::vector<int> used = chosen.empty() ? UsableCores() : chosen;
  int first = used.empty() ? 0 : used.front();
  Model model(library);
  std::vector<ffi::Tensor> tensors = ReadTensors(inputs);
  JsonObject told;
  if (seconds > 0 && !counts.empty()) {
    std::filesystem::resize_file(counts, 0);
    WriteTensors(outputs, Count(model, tensors));
    std::filesystem::copy_file(counts, outputs + ".counts");
    return told.str();
  }
  WriteTensors(outputs, model(tensors));
  if (seconds > 0) {
    auto sleep = [](double seconds) { usleep(static_cast<useconds_t>(1e6 * seconds)); };
    double waited = CoolDown(idle.celsius, [] { return Celsius(); }, sleep);
    if (waited > 0) told.Add("cooled s", waited);
    told.Add("celsius before", Celsius());
    told.Add("times ms", evict > 0 ? MeasureCold(model, tensors, seconds, evict) : Measure(model, tensors, seconds));
    told.Add("celsius after", Celsius()).Add("mhz after", Megahertz(first));
    told.Add("mhz most", Number(CorePath(first, "cpufreq/cpuinfo_max_freq"), -1000) / 1000);
  }
  return told.str();
}

// What a client may call, in a session with that folder.
inline void Register(const std::string& server, const std::string& folder, const Idle& idle, const std::string& counts) {
  auto path = [folder](const ffi::String& name) { return InFolder(folder, name); };
  auto set = [](const char* name, const ffi::Function& function) { ffi::Function::SetGlobal(name, function, true); };
  set("tvm.rpc.server.workpath",
      ffi::Function::FromTyped([path](ffi::String name) { return ffi::String(path(name)); }));
  set("tvm.rpc.server.load_module",
      ffi::Function::FromTyped([path](ffi::String name) { return ffi::Module::LoadFromFile(path(name)); }));
  // TVM registers this one for any path.
  set("ffi.ModuleLoadFromFile",
      ffi::Function::FromTyped([path](ffi::String name) { return ffi::Module::LoadFromFile(path(name)); }));
  set("pconvgen.facts", ffi::Function::FromTyped([=] { return ffi::String(Facts(server, idle, !counts.empty())); }));
  set("pconvgen.run",
      ffi::Function::FromTyped([=](ffi::String library, ffi::String inputs, ffi::String outputs, int threads,
                                   ffi::String cores, double seconds, int64_t evict) {
        return ffi::String(Run(path(library), path(inputs), path(outputs), threads, cores, seconds, evict, idle, counts));
      }));
}

// Serves a client until it leaves. The kernel's memory is left to the device: a session may not take all of it.
inline void Serve(int socket, const std::string& server, const std::string& folder, const Idle& idle,
                  const std::string& counts) {
  if (chdir(folder.c_str()) != 0) throw std::runtime_error("cannot enter " + folder);
  rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  double free = FreeMemoryKib();
  if (free > 0) {
    rlimit most{};
    most.rlim_cur = most.rlim_max = static_cast<rlim_t>(0.9 * free * 1024);
    setrlimit(RLIMIT_DATA, &most);
  }
  Register(server, folder, idle, counts);
  ffi::Function::GetGlobalRequired("rpc.ServerLoop")(static_cast<int64_t>(socket));
}

}  // namespace pconvgen

// What Linux and Android tell of a device: cores and their clocks, heat, memory.
#pragma once

#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "json.h"

namespace pconvgen {

// The first line of a file, empty where there is none.
inline std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

inline double Number(const std::string& path, double otherwise) {
  std::ifstream file(path);
  double value;
  return file >> value ? value : otherwise;
}

inline std::string CorePath(int core, const std::string& name, const std::string& sys = "/sys") {
  return sys + "/devices/system/cpu/cpu" + std::to_string(core) + "/" + name;
}

// The cores that this process may use.
inline std::vector<int> UsableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &set)) cores.push_back(core);
    }
  }
  return cores;
}

// Degrees Celsius of the hottest zone that can be read, negative where none can.
inline double Celsius(const std::string& sys = "/sys") {
  double hottest = -1;
  std::error_code error;
  for (const auto& zone : std::filesystem::directory_iterator(sys + "/class/thermal", error)) {
    if (zone.path().filename().string().rfind("thermal_zone", 0) != 0) continue;
    double value = Number((zone.path() / "temp").string(), -1);
    if (value > 1000) value /= 1000;  // most tell thousandths
    if (value < 200) hottest = std::max(hottest, value);
  }
  return hottest;
}

// Megahertz of a core now, negative where it cannot be read.
inline double Megahertz(int core, const std::string& sys = "/sys") {
  return Number(CorePath(core, "cpufreq/scaling_cur_freq", sys), -1000) / 1000;
}

// A line of a file such as /proc/meminfo, "NAME: VALUE kB"; negative where there is none.
inline double Kib(const std::string& path, const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(name + ":", 0) == 0) return std::strtod(line.c_str() + name.size() + 1, nullptr);
  }
  return -1;
}

inline double FreeMemoryKib() { return Kib("/proc/meminfo", "MemAvailable"); }

// The processor's name, as far as it has one: x86 tells a name, ARM the numbers of who made which part.
inline std::string Processor() {
  std::ifstream file("/proc/cpuinfo");
  std::string hardware, parts;
  for (std::string line; std::getline(file, line);) {
    size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    std::string value = line.substr(colon + 2);
    if (line.rfind("model name", 0) == 0) return value;
    if (line.rfind("Hardware", 0) == 0) hardware = value;
    if (line.rfind("CPU part", 0) == 0 && parts.find(value) == std::string::npos) {
      parts += (parts.empty() ? "" : "+") + value;
    }
  }
  if (hardware.empty()) hardware = FirstLine("/proc/device-tree/model");
  return hardware + (hardware.empty() || parts.empty() ? "" : " ") + parts;
}

// What a server was like before its first session.
struct Idle {
  double kib = 0, celsius = -1;
};

inline std::string Facts(const std::string& server, const Idle& idle, bool emulated) {
  utsname names{};
  uname(&names);
  std::vector<int> cores = UsableCores();
  std::vector<double> clocks;
  for (int core : cores) clocks.push_back(Number(CorePath(core, "cpufreq/cpuinfo_max_freq"), 0) / 1000);
  JsonObject facts;
  facts.Add("server", server);
  facts.Add("machine", std::string(names.machine)).Add("system", std::string(names.sysname) + " " + names.release);
  facts.Add("cpu", emulated ? std::string("emulated") : Processor());
  facts.Add("cores", std::vector<double>(cores.begin(), cores.end())).Add("max mhz", clocks);
  facts.Add("governor", cores.empty() ? "" : FirstLine(CorePath(cores[0], "cpufreq/scaling_governor")));
  facts.Add("celsius", Celsius()).Add("free kib", FreeMemoryKib());
  facts.Add("page bytes", static_cast<double>(sysconf(_SC_PAGESIZE))).Add("server kib", idle.kib);
  facts.Add("runtime", std::string(RUNTIME)).Add("emulated", emulated);
#if defined(__ANDROID__)
  facts.Add("c library", std::string("bionic"));
#elif defined(__GLIBC__)
  facts.Add("c library", std::string("glibc"));
#endif
  return facts.str();
}

}  // namespace pconvgen

// When a device is ready to be measured: neither cold, with empty caches and a low clock, nor hot.
#pragma once

#include <limits>

namespace pconvgen {

constexpr double kWindowSeconds = 0.01, kMostWarmUpSeconds = 1;
constexpr double kFall = 0.02;  // windows that differ by less are alike
constexpr int kAlike = 3;
constexpr double kWarmer = 10, kMostCoolSeconds = 10, kCoolStepSeconds = 0.25;

// Runs something until windows of some milliseconds no longer get faster, or for a second. What one run takes then.
template <typename Run, typename Now>
double UntilSteady(Run run, Now now) {
  double best = std::numeric_limits<double>::infinity(), taken = 0;
  double started = now();
  for (int alike = 0; alike < kAlike && now() - started < kMostWarmUpSeconds;) {
    int runs = 0;
    double begun = now();
    do {
      run();
      ++runs;
    } while (now() - begun < kWindowSeconds);
    taken = (now() - begun) / runs;
    alike = taken < (1 - kFall) * best ? 0 : alike + 1;
    best = taken < best ? taken : best;
  }
  return taken;
}

// Waits, for a while, until it is no more than some degrees warmer than at the start: the seconds that it waited.
template <typename Celsius, typename Sleep>
double CoolDown(double at_start, Celsius celsius, Sleep sleep) {
  double waited = 0;
  while (at_start > 0 && celsius() > at_start + kWarmer && waited < kMostCoolSeconds) {
    sleep(kCoolStepSeconds);
    waited += kCoolStepSeconds;
  }
  return waited;
}

}  // namespace pconvgen

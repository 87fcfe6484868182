// What steady.h and system.h make of heat and clocks that are made up, as JSON: steady SYS
#include "steady.h"

#include <cmath>
#include <iostream>
#include <vector>

#include "json.h"
#include "system.h"

int main(int, char** argv) {
  pconvgen::JsonObject told;
  double now = 0;
  int runs = 0;
  std::vector<double> falling{0.5, 0.04, 0.03, 0.02, 0.019, 0.015};
  auto run = [&] { now += static_cast<size_t>(runs) < falling.size() ? falling[runs] : 0.012, ++runs; };
  told.Add("taken", pconvgen::UntilSteady(run, [&] { return now; })).Add("runs", static_cast<double>(runs));

  now = 0, runs = 0;
  auto faster = [&] { now += 0.1 * std::pow(0.97, runs++); };
  pconvgen::UntilSteady(faster, [&] { return now; });
  told.Add("at most", now);

  double degrees = 60;
  auto cooling = [&](double) { degrees -= 3; };
  told.Add("cooled", pconvgen::CoolDown(40, [&] { return degrees; }, cooling));
  told.Add("never cool", pconvgen::CoolDown(40, [] { return 90.0; }, [](double) {}));
  told.Add("unknown", pconvgen::CoolDown(-1, [] { return 90.0; }, [](double) {}));

  told.Add("celsius", pconvgen::Celsius(argv[1])).Add("mhz", pconvgen::Megahertz(3, argv[1]));
  told.Add("no celsius", pconvgen::Celsius("/nowhere")).Add("no mhz", pconvgen::Megahertz(0, "/nowhere"));
  std::cout << told.str() << std::endl;
}

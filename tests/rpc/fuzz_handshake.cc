// Feeds mutated handshakes to the server's parser: fuzz_handshake COUNT SEED. Prints how many were taken.
#include "handshake.h"

#include <algorithm>
#include <cstdio>
#include <random>

int main(int, char** argv) {
  using pconvgen::Handshake;
  long count = std::atol(argv[1]), taken = 0, invalid = 0;
  std::mt19937 random(static_cast<unsigned>(std::atol(argv[2])));
  auto draw = [&](size_t below) { return static_cast<size_t>(random() % below); };
  for (long number = 0; number < count; ++number) {
    std::string text = "client:me";
    if (draw(2)) text += " -timeout=" + std::to_string(draw(100));
    int32_t size = static_cast<int32_t>(text.size()), magic = pconvgen::kMagic;
    std::string bytes(reinterpret_cast<char*>(&magic), 4);
    bytes.append(reinterpret_cast<char*>(&size), 4).append(text);
    for (size_t change = draw(4); change > 0; --change) {
      size_t at = draw(bytes.size());
      if (draw(4) == 0) {
        bytes.erase(at);
      } else if (draw(3) == 0) {
        bytes.insert(at, draw(600), static_cast<char>(random()));
      } else {
        bytes[at] = static_cast<char>(random());
      }
      if (bytes.empty()) break;
    }
    // In pieces, as a network would deliver them, and never more than it asks for.
    Handshake handshake;
    for (size_t at = 0; at < bytes.size() && handshake.wanted() > 0;) {
      size_t piece = std::min({handshake.wanted(), bytes.size() - at, 1 + draw(16)});
      handshake.Feed(bytes.data() + at, piece);
      at += piece;
    }
    if (handshake.wanted() > static_cast<size_t>(pconvgen::kLongestText) || handshake.timeout() < 0) return 1;
    taken += handshake.state() == Handshake::State::kDone && handshake.who() == "client:me";
    invalid += handshake.state() == Handshake::State::kInvalid;
  }
  std::printf("%ld %ld\n", taken, invalid);
  return 0;
}

// What a client of TVM's RPC says first: a magic number, the length of a text, and "client:KEY -timeout=SECONDS".
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

namespace pconvgen {

constexpr int32_t kMagic = 0xff271, kAccepted = kMagic, kRefused = kMagic + 2;
constexpr int32_t kLongestText = 512;

// Reads a handshake from bytes as they come, and never more of them than belong to it.
class Handshake {
 public:
  enum class State { kMagicNumber, kLength, kText, kDone, kInvalid };

  // How many bytes are wanted next; none when it is done or invalid.
  size_t wanted() const {
    switch (state_) {
      case State::kMagicNumber:
      case State::kLength:
        return sizeof(int32_t) - buffer_.size();
      case State::kText:
        return length_ - buffer_.size();
      default:
        return 0;
    }
  }

  // Takes at most `wanted` bytes.
  void Feed(const char* data, size_t size) {
    if (size > wanted()) size = wanted();
    buffer_.append(data, size);
    if (size == 0 || wanted() > 0) return;
    if (state_ == State::kText) {
      Parse();
      return;
    }
    int32_t number;
    std::memcpy(&number, buffer_.data(), sizeof(number));
    buffer_.clear();
    if (state_ == State::kMagicNumber) {
      state_ = number == kMagic ? State::kLength : State::kInvalid;
    } else {
      length_ = static_cast<size_t>(number);
      state_ = number > 0 && number <= kLongestText ? State::kText : State::kInvalid;
    }
  }

  State state() const { return state_; }
  // "client:KEY", without the options.
  const std::string& who() const { return who_; }
  // The client's limit of the session in seconds; 0 for none.
  double timeout() const { return timeout_; }

 private:
  void Parse() {
    size_t end = buffer_.find(' ');
    who_ = buffer_.substr(0, end);
    const std::string option = "-timeout=";
    size_t at = buffer_.find(option);
    if (end != std::string::npos && at != std::string::npos) {
      double value = std::strtod(buffer_.c_str() + at + option.size(), nullptr);
      if (value > 0 && value < 1e6) timeout_ = value;
    }
    state_ = State::kDone;
  }

  State state_ = State::kMagicNumber;
  std::string buffer_, who_;
  size_t length_ = 0;
  double timeout_ = 0;
};

}  // namespace pconvgen

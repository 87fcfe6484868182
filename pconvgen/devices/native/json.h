// Values as JSON: what the server tells of itself and of what it measured.
// Written only, which takes less than a library that every build for a phone would have to bring.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

namespace pconvgen {

inline std::string Json(const std::string& text) {
  std::string out = "\"";
  for (unsigned char c : text) {
    char escaped[8];
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c < 0x20 || c >= 0x7f) {
      std::snprintf(escaped, sizeof(escaped), "\\u%04x", c);
      out += escaped;
    } else {
      out += static_cast<char>(c);
    }
  }
  return out + "\"";
}

inline std::string Json(bool value) { return value ? "true" : "false"; }

inline std::string Json(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.9g", value);
  return text;
}

template <typename T>
std::string Json(const std::vector<T>& values) {
  std::string out = "[";
  for (const T& value : values) out += (out.size() > 1 ? ", " : "") + Json(value);
  return out + "]";
}

// An object, member after member.
class JsonObject {
 public:
  template <typename T>
  JsonObject& Add(const std::string& name, const T& value) {
    text_ += (text_.empty() ? "" : ", ") + Json(name) + ": " + Json(value);
    return *this;
  }
  std::string str() const { return "{" + text_ + "}"; }

 private:
  std::string text_;
};

}  // namespace pconvgen

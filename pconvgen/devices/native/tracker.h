// The connection to TVM's tracker, which hands out devices: lines of JSON behind their length.
#pragma once

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>

#include "json.h"

namespace pconvgen {

constexpr int32_t kTrackerMagic = 0x2f271, kMostTrackerBytes = 1 << 20;
constexpr int kTrackerPut = 3, kTrackerUpdate = 5, kTrackerPending = 7;

// A connection within a few seconds, -1 where there is none.
inline int Connect(const std::string& host, const std::string& port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) return -1;
  int connection = -1;
  for (addrinfo* at = found; at != nullptr && connection < 0; at = at->ai_next) {
    int attempt = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol);
    if (attempt < 0) continue;
    timeval limit{5, 0};
    setsockopt(attempt, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    setsockopt(attempt, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (connect(attempt, at->ai_addr, at->ai_addrlen) == 0) {
      connection = attempt;
    } else {
      close(attempt);
    }
  }
  freeaddrinfo(found);
  return connection;
}

inline bool SendAll(int connection, const void* data, size_t size) {
  for (const char* at = static_cast<const char*>(data); size > 0;) {
    ssize_t sent = send(connection, at, size, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    at += sent;
    size -= static_cast<size_t>(sent);
  }
  return true;
}

inline bool ReceiveAll(int connection, void* data, size_t size) {
  for (char* at = static_cast<char*>(data); size > 0;) {
    ssize_t got = recv(connection, at, size, 0);
    if (got <= 0) return false;
    at += got;
    size -= static_cast<size_t>(got);
  }
  return true;
}

// A server's place at a tracker. What fails closes the connection; `Update` opens it again.
class Tracker {
 public:
  Tracker(std::string host, std::string port, std::string key, int served, std::string address)
      : host_(std::move(host)), port_(std::move(port)), key_(std::move(key)), served_(served),
        address_(std::move(address)) {}

  // The key that a client of the tracker names, new for each session.
  const std::string& match() const { return match_; }
  bool connected() const { return connection_ >= 0; }

  // Offers the device, again where the tracker was lost; with another key where somebody took this one and did not come.
  void Update() {
    if (!connected() && !Open()) return;
    if (match_.empty()) {
      Offer();
      return;
    }
    std::string pending;
    if (!Ask("[" + std::to_string(kTrackerPending) + "]", &pending)) return;
    taken_ = pending.find(Json(match_)) == std::string::npos ? taken_ + 1 : 0;
    if (taken_ > kPatience) Offer();
  }

  // The key was used: the device is not on offer until the next `Update`.
  void Take() { match_.clear(); }

  void Close() {
    if (connection_ >= 0) close(connection_);
    connection_ = -1;
    match_.clear();
  }

 private:
  static constexpr int kPatience = 3;

  bool Open() {
    connection_ = Connect(host_, port_);
    int32_t magic = kTrackerMagic;
    std::string reply;
    std::string address = address_.empty() ? "null" : Json(address_);
    std::string info = "[" + std::to_string(kTrackerUpdate) + ", {\"key\": " + Json("server:" + key_) +
                       ", \"addr\": [" + address + ", " + std::to_string(served_) + "]}]";
    bool opened = connected() && SendAll(connection_, &magic, sizeof(magic)) &&
                  ReceiveAll(connection_, &magic, sizeof(magic)) && magic == kTrackerMagic && Ask(info, &reply);
    if (!opened) Close();
    return opened;
  }

  void Offer() {
    std::random_device random;
    match_ = key_ + ":" + std::to_string(random()) + std::to_string(random());
    taken_ = 0;
    std::string reply, address = address_.empty() ? "null" : Json(address_);
    Ask("[" + std::to_string(kTrackerPut) + ", " + Json(key_) + ", [" + std::to_string(served_) + ", " + Json(match_) +
            "], " + address + "]",
        &reply);
  }

  bool Ask(const std::string& message, std::string* reply) {
    int32_t size = static_cast<int32_t>(message.size());
    bool done = SendAll(connection_, &size, sizeof(size)) && SendAll(connection_, message.data(), message.size()) &&
                ReceiveAll(connection_, &size, sizeof(size)) && size >= 0 && size <= kMostTrackerBytes;
    if (done) {
      reply->resize(static_cast<size_t>(size));
      done = ReceiveAll(connection_, &(*reply)[0], reply->size());
    }
    if (!done) Close();
    return done;
  }

  std::string host_, port_, key_;
  int served_;
  std::string address_, match_;
  int connection_ = -1, taken_ = 0;
};

}  // namespace pconvgen

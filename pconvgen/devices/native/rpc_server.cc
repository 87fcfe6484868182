// A server of TVM's RPC for phones and boards: rpc_server --key NAME [--host H] [--port P] [--tracker H:P] ...
//
// It needs only what TVM's wheels ship. One session at a time, as a device measures one thing at a time; each is a
// process of its own, so that a kernel that crashes or hangs ends its session, whose client is told why, and the next
// is served. A session's files are in a folder of its own, which is removed.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <deque>
#include <filesystem>
#include <iostream>
#include <list>
#include <optional>

#include "handshake.h"
#include "session.h"
#include "tracker.h"

namespace pconvgen {
namespace {

constexpr double kHandshakeSeconds = 5, kTrackerSeconds = 2;
constexpr size_t kMostWaiting = 64;
constexpr int kPollMilliseconds = 500;
constexpr int kStopping[] = {SIGTERM, SIGINT, SIGHUP};

volatile sig_atomic_t stopped = 0;

struct Options {
  std::string host = "127.0.0.1", key, tracker_host, tracker_port, address, folder = "pconvgen-sessions", counts;
  int port = 0;
  double timeout = 600;
  bool until_eof = false;
};

// Somebody who has connected and not yet been served.
struct Client {
  int connection;
  Clock::time_point since;
  Handshake handshake;
};

// The process that serves somebody.
struct Session {
  pid_t process;
  int connection, ended;  // the latter is closed when the process is gone
  Clock::time_point since;
  double timeout;
  std::string folder;
};

class Server {
 public:
  explicit Server(const Options& options) : options_(options) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int yes = 1;
    setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(options.port));
    if (inet_pton(AF_INET, options.host.c_str(), &address.sin_addr) != 1) {
      throw std::runtime_error("no IPv4 address: " + options.host);
    }
    socklen_t size = sizeof(address);
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener_, 16) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      throw std::runtime_error("cannot listen on " + options.host + ":" + std::to_string(options.port) + ": " +
                               std::strerror(errno));
    }
    port_ = ntohs(address.sin_port);
    std::filesystem::remove_all(options.folder);  // what a server that was killed left behind
    std::filesystem::create_directories(options.folder);
    if (!options.tracker_host.empty()) {
      tracker_.emplace(options.tracker_host, options.tracker_port, options.key, port_, options.address);
    }
  }

  void Run() {
    idle_ = {Kib("/proc/self/status", "VmRSS"), Celsius()};
    std::cout << "listening on " << options_.host << ":" << port_ << ", key " << options_.key << ", memory "
              << idle_.kib << " KiB" << std::endl;
    while (!stopped) {
      if (tracker_ && !session_) Offer();
      Wait();
      Accept();
      Listen();
      Supervise();
      if (!session_) Start();
    }
    if (session_) End("the server was stopped");
    std::error_code error;
    std::filesystem::remove_all(options_.folder, error);
  }

 private:
  // Offers the device at the tracker, and notices at intervals when that has gone.
  void Offer() {
    if (tracker_->connected() && !tracker_->match().empty() && SecondsSince(offered_) < kTrackerSeconds) return;
    if (!tracker_->connected() && SecondsSince(offered_) < kTrackerSeconds) return;
    bool before = tracker_->connected();
    tracker_->Update();
    offered_ = Clock::now();
    if (before != tracker_->connected()) {
      std::cout << (before ? "lost the tracker" : "registered at the tracker") << std::endl;
    }
  }

  void Wait() {
    std::vector<pollfd> watched{{listener_, POLLIN, 0}};
    for (const Client& client : clients_) {
      if (client.handshake.wanted() > 0) watched.push_back({client.connection, POLLIN, 0});
    }
    if (session_) watched.push_back({session_->ended, POLLIN, 0});
    if (options_.until_eof) watched.push_back({STDIN_FILENO, POLLIN, 0});
    poll(watched.data(), watched.size(), kPollMilliseconds);
    char ignored[256];
    if (options_.until_eof && watched.back().revents && read(STDIN_FILENO, ignored, sizeof(ignored)) <= 0) stopped = 1;
  }

  void Accept() {
    int connection = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (connection < 0) return;
    if (clients_.size() >= kMostWaiting) {
      close(connection);
      return;
    }
    int yes = 1;
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
    clients_.push_back({connection, Clock::now(), {}});
  }

  // Reads what clients say; those that say something else, or nothing, or nothing in time, are left.
  void Listen() {
    for (auto client = clients_.begin(); client != clients_.end();) {
      char bytes[kLongestText];
      bool lost = false;
      while (client->handshake.wanted() > 0) {
        ssize_t got = recv(client->connection, bytes, std::min(sizeof(bytes), client->handshake.wanted()), 0);
        lost = got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
        if (got <= 0) break;
        client->handshake.Feed(bytes, static_cast<size_t>(got));
      }
      bool done = client->handshake.state() == Handshake::State::kDone;
      // Without an offer at the tracker there is no key; and a client may name that of the session before.
      bool wrong = done && (Key().empty() || client->handshake.who() != "client:" + Key());
      if (wrong) Refuse(*client);
      bool late = !done && SecondsSince(client->since) > kHandshakeSeconds;
      if (wrong || lost || late || client->handshake.state() == Handshake::State::kInvalid) {
        close(client->connection);
        client = clients_.erase(client);
      } else {
        ++client;
      }
    }
  }

  const std::string& Key() const { return tracker_ ? tracker_->match() : options_.key; }

  void Refuse(const Client& client) {
    int32_t code = kRefused;
    SendAll(client.connection, &code, sizeof(code));
    std::cout << "refused a client with another key" << std::endl;
  }

  // Serves the first client that has said the right key.
  void Start() {
    for (auto client = clients_.begin(); client != clients_.end(); ++client) {
      if (client->handshake.state() != Handshake::State::kDone) continue;
      int connection = client->connection;
      double timeout = client->handshake.timeout();
      clients_.erase(client);
      fcntl(connection, F_SETFL, fcntl(connection, F_GETFL) & ~O_NONBLOCK);
      std::string me = "server:" + options_.key;
      int32_t code = kAccepted, size = static_cast<int32_t>(me.size());
      if (SendAll(connection, &code, sizeof(code)) && SendAll(connection, &size, sizeof(size)) &&
          SendAll(connection, me.data(), me.size())) {
        Fork(connection, timeout > 0 ? std::min(timeout, options_.timeout) : options_.timeout);
      } else {
        close(connection);
      }
      if (tracker_) tracker_->Take();
      return;
    }
  }

  void Fork(int connection, double timeout) {
    std::string folder = std::filesystem::absolute(options_.folder) / ("session-" + std::to_string(++count_));
    std::filesystem::create_directory(folder);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    pid_t process = fork();
    if (process < 0) throw std::runtime_error("no process for a session");
    if (process == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      setpgid(0, 0);
      for (int number : kStopping) signal(number, SIG_DFL);
      close(ends[0]);
      close(listener_);
      for (const Client& client : clients_) close(client.connection);
      if (tracker_) tracker_->Close();
      int status = 0;
      try {
        Serve(connection, Name(), folder, idle_, options_.counts);
      } catch (const std::exception& error) {
        std::cerr << error.what() << std::endl;
        status = 1;
      }
      _exit(status);
    }
    close(ends[1]);
    session_ = Session{process, connection, ends[0], Clock::now(), timeout, folder};
  }

  // Ends the session when its process is gone or its time is over.
  void Supervise() {
    if (!session_) return;
    int status = 0;
    if (waitpid(session_->process, &status, WNOHANG) == session_->process) {
      session_->process = 0;
      End(WIFSIGNALED(status) ? "the session crashed: " + Signal(WTERMSIG(status)) : "");
    } else if (SecondsSince(session_->since) > session_->timeout) {
      char text[64];
      std::snprintf(text, sizeof(text), "the session did not end within %g s", session_->timeout);
      End(text);
    }
  }

  // Which of several servers this is.
  std::string Name() const {
    char host[256] = "";
    gethostname(host, sizeof(host) - 1);
    return std::string(host) + ":" + std::to_string(port_);
  }

  static std::string Signal(int number) { return "signal " + std::to_string(number) + ", " + strsignal(number); }

  // Tells the client, stops what is left of the session, and removes its files.
  void End(const std::string& reason) {
    if (session_->process) {
      kill(-session_->process, SIGKILL);
      kill(session_->process, SIGKILL);
      waitpid(session_->process, nullptr, 0);
    }
    if (!reason.empty()) {
      std::cout << reason << std::endl;
      try {
        ffi::Function::GetGlobalRequired("rpc.ReturnException")(session_->connection, reason);
      } catch (const std::exception&) {
        // The client has gone, too.
      }
    }
    close(session_->connection);
    close(session_->ended);
    std::error_code error;
    std::filesystem::remove_all(session_->folder, error);
    session_.reset();
  }

  Options options_;
  int listener_ = -1, port_ = 0, count_ = 0;
  Idle idle_;
  std::optional<Tracker> tracker_;
  std::list<Client> clients_;
  std::optional<Session> session_;
  Clock::time_point offered_ = Clock::now() - std::chrono::hours(1);
};

const char* kUsage =
    "usage: rpc_server --key NAME [--host ADDRESS] [--port PORT] [--tracker HOST:PORT] [--address ADDRESS]\n"
    "                  [--folder FOLDER] [--timeout SECONDS] [--until eof] [--counts FILE]\n"
    "ADDRESS is 127.0.0.1 unless told otherwise; without PORT a free one is taken; --address is what clients of the\n"
    "tracker are told; sessions that take longer than --timeout, 600 s, are ended; with --until eof the server ends\n"
    "with its standard input; under emulation FILE is where count_instructions.c counts.\n";

std::optional<Options> Parse(int argc, char** argv) {
  Options options;
  for (int index = 1; index + 1 < argc; index += 2) {
    std::string name = argv[index], value = argv[index + 1];
    if (name == "--key") {
      options.key = value;
    } else if (name == "--host") {
      options.host = value;
    } else if (name == "--port") {
      options.port = std::atoi(value.c_str());
    } else if (name == "--tracker" && value.rfind(':') != std::string::npos) {
      options.tracker_host = value.substr(0, value.rfind(':'));
      options.tracker_port = value.substr(value.rfind(':') + 1);
    } else if (name == "--address") {
      options.address = value;
    } else if (name == "--folder") {
      options.folder = value;
    } else if (name == "--counts") {
      options.counts = value;
    } else if (name == "--until" && value == "eof") {
      options.until_eof = true;
    } else if (name == "--timeout") {
      options.timeout = std::atof(value.c_str());
    } else {
      return std::nullopt;
    }
  }
  bool valid = argc % 2 == 1 && !options.key.empty() && options.key.find_first_of(" :") == std::string::npos &&
               options.port >= 0 && options.port < 65536 && options.timeout > 0;
  return valid ? std::optional<Options>(options) : std::nullopt;
}

}  // namespace
}  // namespace pconvgen

int main(int argc, char** argv) {
  std::optional<pconvgen::Options> options = pconvgen::Parse(argc, argv);
  if (!options) {
    std::cerr << pconvgen::kUsage;
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  for (int number : pconvgen::kStopping) signal(number, [](int) { pconvgen::stopped = 1; });
  try {
    pconvgen::Server(*options).Run();
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
  return 0;
}
